# SPDX-License-Identifier: Apache-2.0
# The fence on a host, in POSIX sh; needs flock (util-linux). Run as
#     sh -c THIS surefoot-fence FOLDER NAME TOKEN ID COMMAND
# Runs COMMAND if TOKEN is the one that this host is fenced to. A smaller one is refused (97). A greater one first raises the fence: smaller
# ones are refused from then on, what they still run is ended, and only then is the greater one let in.
#
# FOLDER is where all fences are kept ("" for the default), NAME tells this one from others. In it: `token`, the token that may run; `raising`, one that
# is being let in; `lock`, held shared by each command that runs, by the guard's shell alone, so that a daemon that a task starts does not keep it;
# `holders/ID`, who that shell is, for as long as its command runs.
name=$2 token=$3 id=$4 command=$5
folder=$1
if [ -z "$folder" ]; then
  folder=/var/lib/surefoot/fence
  [ -w "$folder/$name" ] || mkdir -p "$folder/$name" 2>/dev/null || folder=$HOME/.surefoot/fence
fi
d=$folder/$name
refuse() { echo "surefoot-fence: $1" >&2; exit "$2"; }
[ -d "$d/holders" ] || mkdir -p "$d/holders" 2>/dev/null || refuse "folder: $d can't be made or written by $(id -un)" 96
command -v flock >/dev/null || refuse "missing: flock (package util-linux) is not on this host" 96
is=0 raising=0
look() {
  is=0 raising=0
  [ ! -e "$d/token" ] || read -r is < "$d/token"
  [ ! -e "$d/raising" ] || read -r raising < "$d/raising"
}
stale() { refuse "stale: token $token is behind $1 on $(uname -n)" 97; }
# Writes a file whole and durably: a host that loses power must not forget whom it refuses.
keep() { { echo "$2" > "$d/$1.new" && { sync "$d/$1.new" 2>/dev/null || sync; } && mv "$d/$1.new" "$d/$1" && { sync "$d" 2>/dev/null || sync; }; } || refuse "folder: $d can't be written" 96; }

# Ends what older tokens run. Of a process that is named by a holder, all below it; what carries the mark of a command that has not ended; and jobs
# that Ansible started in the background (async), which leave their command. A daemon that a task left behind in good order is none of these.
end_older='
d=$1 name=$2 token=$3
below() { cat /proc/[0-9]*/stat 2>/dev/null | awk -v roots="$1" '\''
  { pid = $1; sub(/^.*\) /, ""); parent[pid] = $2 }
  END { n = split(roots, r, " "); for (i = 1; i <= n; i++) if (r[i] in parent) want[r[i]] = 1
    do { more = 0; for (p in parent) if (!(p in want) && parent[p] in want) { want[p] = 1; more = 1 } } while (more)
    for (p in want) print p }'\''; }
roots=
for h in "$d"/holders/*; do
  [ -s "$h" ] || continue
  read -r ht hp hs < "$h" || continue
  [ "$ht" -lt "$token" ] || continue
  [ -r "/proc/$hp/stat" ] && { read -r s < "/proc/$hp/stat"; set -- ${s##*) }; [ "${20}" != "$hs" ] || roots="$roots $hp"; }
done
for e in $(grep -lsz "^SUREFOOT_FENCE=$name:" /proc/[0-9]*/environ); do
  p=${e#/proc/} p=${p%/environ}
  m=$(tr "\0" "\n" < "$e" 2>/dev/null | sed -n "s|^SUREFOOT_FENCE=$name:||p" | tail -n 1)
  [ -n "$m" ] && [ "${m%%:*}" -lt "$token" ] 2>/dev/null || continue
  if [ -s "$d/holders/${m#*:}" ] || tr "\0" " " < "/proc/$p/cmdline" 2>/dev/null | grep -q async_wrapper; then roots="$roots $p"; fi
done
[ -n "$roots" ] || exit 0
me=" $(below $$ | tr "\n" " ") "
for p in $(below "$roots"); do case $me in *" $p "*) ;; *) kill -9 "$p" 2>/dev/null; echo "$p" ;; esac; done
'
raise() {
  exec 8>>"$d/raise.lock" || refuse "folder: $d can't be written" 96
  flock -x 8 || refuse "lock: $d/raise.lock can't be locked" 96
  look
  [ "$token" -ge "$is" ] && [ "$token" -ge "$raising" ] || stale "$is"
  [ "$is" -lt "$token" ] || { exec 8>&-; return 0; }
  keep raising "$token"
  shell=sh
  [ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null || shell='sudo -n sh'
  tries=0
  while :; do
    left=$($shell -c "$end_older" end "$d" "$name" "$token" 8>&- 9>&-)
    [ -z "$left" ] && flock -x -n "$d/lock" true 8>&- && break
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || refuse "held: what an older token runs on $(uname -n) can't be ended: $(echo $left)" 98
    sleep 0.05
  done
  keep token "$token"
  for h in "$d"/holders/*; do rm -f "$h"; done
  rm -f "$d/raising"
  exec 8>&-
}
while :; do
  look
  [ "$token" -ge "$is" ] && [ "$token" -ge "$raising" ] || stale "$is"
  [ "$token" = "$is" ] || raise
  exec 9>>"$d/lock" || refuse "folder: $d can't be written" 96
  flock -s 9 || refuse "lock: $d/lock can't be locked" 96
  look
  [ "$token" -ge "$is" ] && [ "$token" -ge "$raising" ] || stale "$is"
  [ "$token" != "$is" ] || break
  exec 9>&-
done
read -r s < "/proc/$$/stat"
set -- ${s##*) }
echo "$token $$ ${20}" > "$d/holders/$id" || refuse "folder: $d can't be written" 96
SUREFOOT_FENCE="$name:$token:$id" /bin/sh -c "$command" 9>&-
code=$?
rm -f "$d/holders/$id"
exit $code
