# SPDX-License-Identifier: Apache-2.0
# Starts a host: systemd as its first process, on a root of its own. Runs as the first process of new mount, pid, uts,
# ipc, cgroup namespaces as
#     sh boot.sh FOLDER NAME BOUND…
# FOLDER has the host's disk: `up` (what differs from the machine), `work`, `root`. BOUND are folders of the machine that
# are on other file systems than its root, or below a folder that each host has of its own.
#
# A systemd that started on the machine's own root would clean the machine's own /tmp, and change its settings. So: each
# line must succeed (-e), and the last one is reached only on a root that has the mark which only this host's disk has.
set -eu
[ $$ = 1 ]
folder=$1 name=$2
shift 2
hostname "$name"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/up,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# Or its systemd would set the machine's sysctls; those of the network are the host's own.
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t tmpfs -o mode=0755,size=64m run run
mount -t tmpfs -o mode=1777,size=64m tmp tmp
mount -t tmpfs -o mode=0755,size=1m dev dev
# After what would hide them: Surefoot may be in /tmp.
for bound; do mkdir -p ".$bound"; mount --rbind -o ro "$bound" ".$bound"; done
for device in null zero full random urandom tty; do
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
[ ! -e proc/sysrq-trigger ] || mount --bind dev/null proc/sysrq-trigger
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,size=64m shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mkdir run/machine
pivot_root . run/machine
cd /
umount -l /run/machine
rmdir /run/machine
[ "$(cat /etc/surefoot-lab-host)" = "$name" ]
exec env -i container=surefoot-lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=multi-user.target --show-status=0
