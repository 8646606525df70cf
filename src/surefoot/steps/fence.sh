# SPDX-License-Identifier: Apache-2.0
# The fence on a host, in POSIX sh; needs flock (util-linux) and the usual awk, grep, sed, tr. Run as
#     sh -c 'eval "$(printf %b "$1")"' surefoot-fence THIS FOLDER NAME TOKEN ID TELL COMMAND [MAKES]
# THIS, COMMAND and MAKES are written so that no login shell, be it fish or csh, takes them apart: see steps/fence.py.
#
# Runs COMMAND if TOKEN is the one that this host is fenced to. A smaller one is refused (97). A greater one first raises the fence: smaller
# ones are refused from then on, what they still run is ended, and only then is the greater one let in. TELL is what the one that is let in wants
# to hear, on stderr: that it is (`held`), that the fence was `raised` only by this command, or nothing (""). MAKES is a temporary folder of Ansible's
# that COMMAND makes, in words for a shell.
#
# FOLDER is where all fences are kept ("" for the default), NAME tells this one from others. In it: `token`, the token that may run; `raising`, one that
# is being let in; `lock`, held shared by each command that runs, by the guard's shell alone, so that a daemon that a task starts does not keep it;
# `holders/ID.PID`, who that shell is, from before it asks for the lock until its command has ended. Where Ansible connects once more for the same
# command (`ssh_connection.retries`), two of one ID run. `temporary` lists what MAKES came to, since the fence rose.
folder=$2 name=$3 token=$4 id=$5 tell=$6
command=$(printf %b "$7") makes=${8-}
if [ -z "$folder" ]; then
  folder=/var/lib/surefoot/fence
  # Where a fence is it stays, whatever may be written since: elsewhere nothing is known of whom it refuses.
  [ -e "$folder/$name" ] || { [ ! -e "$HOME/.surefoot/fence/$name" ] && mkdir -p "$folder/$name" 2>/dev/null; } || folder=$HOME/.surefoot/fence
fi
d=$folder/$name
holder=$d/holders/$id.$$
# Who hears it may be gone already: the exit status must say all the same that nothing was run.
refuse() { trap '' PIPE; echo "surefoot-fence: $1" >&2; rm -f "$holder"; exit "$2"; }
unwritable() {
  on=$d
  until [ -e "${on:=/}" ]; do on=${on%/*}; done
  [ "$(df -P "$on" 2>/dev/null | awk 'NR > 1 { print $4 }')" != 0 ] || refuse "disk: No space left on device for $d" 96
  refuse "folder: $d can't be made or written by $(id -un)" 96
}
for program in flock awk grep sed tr; do
  command -v $program >/dev/null || refuse "missing: $program is not on this host" 96
done
[ -d "$d/holders" ] || mkdir -p "$d/holders" 2>/dev/null || unwritable
# `raising` first: a raise writes `token` before it takes `raising` away, so that whoever sees neither comes before it, and holds the lock that it needs.
look() {
  is=0 raising=0
  if [ -e "$d/raising" ]; then { read -r raising < "$d/raising"; } 2>/dev/null || [ ! -e "$d/raising" ] || raising=?; fi
  if [ -e "$d/token" ]; then read -r is < "$d/token" || is=?; fi
  case $is$raising in *[!0-9]*) refuse "damaged: $d/token or raising holds no number" 96 ;; esac
  least=$is
  [ "$raising" -le "$is" ] || least=$raising
  [ "$token" -ge "$least" ] || refuse "stale: token $token is behind $least on $(uname -n), which $d has seen" 97
}
# Writes a file whole and durably: a host that loses power must not forget whom it refuses.
keep() { { echo "$2" > "$d/$1.new" && { sync "$d/$1.new" || sync; } && mv "$d/$1.new" "$d/$1" && { sync "$d" || sync; }; } 2>/dev/null || unwritable; }
# A failed redirection of `exec` would end the shell without a word.
writable() { { true >> "$1"; } 2>/dev/null || unwritable; }

# Ends what older tokens run. Of a process that is named by a holder, all below it; what carries the mark of a command that has not ended; and jobs
# that Ansible started in the background (async), which leave their command. A daemon that a task left behind in good order is none of these; nor is
# what this shell itself runs below, such as an sshd that an interrupted task has started anew.
# Prints what it found alive; the dead whom nobody buries (zombies) run nothing.
end_older='
d=$1 name=$2 token=$3
roots=
for h in "$d"/holders/*; do
  [ -s "$h" ] || continue
  read -r ht hp hs < "$h" || continue
  [ "$ht" -lt "$token" ] || continue
  read -r s < "/proc/$hp/stat" || continue
  set -- ${s##*) }
  [ "${20}" != "$hs" ] || roots="$roots $hp"
done
n=$(echo "$name" | sed "s/[.]/[.]/g")
for e in $(grep -ls "SUREFOOT_FENCE=$n:" /proc/[0-9]*/environ); do
  p=${e#/proc/} p=${p%/environ}
  m=$(tr "\0" "\n" < "$e" | sed -n "s|^SUREFOOT_FENCE=$n:||p" | tail -n 1)
  [ -n "$m" ] && [ "${m%%:*}" -lt "$token" ] || continue
  set -- "$d/holders/${m#*:}".*
  if [ -s "$1" ] || tr "\0" " " < "/proc/$p/cmdline" | grep -q async_wrapper; then roots="$roots $p"; fi
done
[ -n "$roots" ] || exit 0
found=$(cat /proc/[0-9]*/stat | awk -v roots="$roots" -v spared="$$" '\''
  { pid = $1; sub(/^.*\) /, ""); state[pid] = $1; parent[pid] = $2 }
  function below(root, set,   p, more) {
    if (root in parent) set[root] = 1
    do { more = 0; for (p in parent) if (!(p in set) && parent[p] in set) { set[p] = 1; more = 1 } } while (more)
  }
  END {
    for (p = spared; p in parent; p = parent[p]) above[p] = 1
    n = split(roots, r, " ")
    for (i = 1; i <= n; i++) if (!(r[i] in above)) below(r[i], ended)
    below(spared, us)
    for (p in ended) if (!(p in us)) { all = all " " p; if (state[p] != "Z") alive = alive " " p }
    print alive; print all
  }'\'') || exit 1
alive=${found%%
*} all=${found##*
}
[ -n "$all" ] || exit 0
# Stopped first, all of them: a shell whose command alone is killed goes on to its next line.
kill -STOP $all
kill -9 $all
echo $alive
exit 0
'
# Ends them again and again until there is nothing left and the lock that is named can be had.
clear() {
  tries=0
  while :; do
    left=$($shell -c "$end_older" end "$d" "$name" "$token" 2>/dev/null 8>&-) || left=?
    [ -z "$left" ] && "$@" && return
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || refuse "held: what an older token runs on $(uname -n) can't be ended: $(echo $left)" 98
    sleep 0.05
  done
}
raise() {
  shell=sh
  [ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null || shell='sudo -n sh'
  writable "$d/raise.lock"
  exec 8>>"$d/raise.lock"
  # An older token's raise may stand still in here.
  flock -x -n 8 || clear flock -x -n 8
  look
  [ "$is" -lt "$token" ] || { exec 8>&-; return 0; }
  keep raising "$token"
  clear flock -x -n "$d/lock" true 8>&-
  keep token "$token"
  for h in "$d"/holders/*; do
    { read -r ht rest < "$h"; } 2>/dev/null && [ "$ht" -lt "$token" ] && rm -f "$h"
  done
  # What was ended has not tidied up: there may be secrets in its templates.
  if [ -e "$d/temporary" ]; then
    while read -r t; do
      case $t in */ansible-tmp-*) $shell -c 'rm -rf "$1"' rm "$t" 8>&- < /dev/null ;; esac
    done < "$d/temporary"
    rm -f "$d/temporary"
  fi
  rm -f "$d/raising"
  exec 8>&-
}
tell() { [ "$tell" != "$1" ] || echo "surefoot-$1: $name:$token:$id" >&2; }
look
read -r s < "/proc/$$/stat"
set -- ${s##*) }
{ echo "$token $$ ${20}" > "$holder"; } 2>/dev/null || unwritable
while :; do
  if [ "$token" != "$is" ]; then
    raise
    tell raised
  fi
  writable "$d/lock"
  exec 9>>"$d/lock"
  flock -s 9 || refuse "lock: $d/lock can't be locked" 96
  look
  [ "$token" != "$is" ] || break
  exec 9>&-
done
if [ -n "$makes" ]; then
  writable "$d/temporary"
  { eval "echo $(printf %b "$makes")" >> "$d/temporary"; } 2>/dev/null || unwritable
fi
tell held
SUREFOOT_FENCE="$name:$token:$id" /bin/sh -c "$command" 9>&-
code=$?
rm -f "$holder"
exit $code
