#!/bin/sh
# Process 1 of the guest: finishes the mounts, runs the script, packs /out on to
# the disk called out, says how it ended and turns the machine off. Where systemd is
# process 1, it starts this again as vm.service.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8
if [ "$1" != script ]; then
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm /out /run/lock
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -sf /proc/self/fd /dev/fd
hostname "$(cat /run/vm/hostname)"
printf "127.0.0.1 localhost %s\n" "$(hostname)" >/etc/hosts
ip link set lo up
[ ! -e /run/systemd/system/vm.service ] || exec /lib/systemd/systemd
else
exec >/dev/console 2>&1
fi
echo; echo "@@BEGIN $(uname -r)"
cd /root && setsid /run/vm/script </dev/null 2>&1
rc=$?
for d in /sys/block/vd*; do
	[ "$(cat "$d/serial")" = out ] && tar -C /out -cf "/dev/${d##*/}" .
done
sync
echo
echo "@@EXIT $rc"
exec /run/vm/busybox poweroff -f
