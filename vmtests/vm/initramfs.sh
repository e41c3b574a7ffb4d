#!/bin/busybox sh
# First program of the guest: loads the modules, mounts the root disk, lays the
# files of this run over it and hands over to run/vm/init there.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
for m in $($bb cat /modules/order); do
	$bb insmod "/modules/$m" || echo "@@FATAL insmod $m"
done
# disk NAME prints the device whose serial is NAME, waiting for it to appear.
disk() {
	n=0
	while [ $n -lt 100 ]; do
		for d in /sys/block/vd*; do
			[ "$($bb cat "$d/serial" 2>/dev/null)" = "$1" ] && echo "/dev/${d##*/}" && return
		done
		$bb sleep 0.1
		n=$((n + 1))
	done
	echo "@@FATAL no disk $1" >/dev/console
}
$bb mount -t ext4 "$(disk root)" /newroot || echo "@@FATAL mount root"
$bb mount -t tmpfs run /newroot/run
$bb tar -C /newroot -xf "$(disk in)" || echo "@@FATAL unpack files"
$bb cp $bb /newroot/run/vm/busybox
$bb mkdir -p /newroot/lib/modules
$bb cp -r /lib/modules/* /newroot/lib/modules/
for m in dev proc sys; do $bb mount --move /$m /newroot/$m; done
exec $bb switch_root /newroot /run/vm/init
