# coverage.sh is what a run of the coverage does in the guest, after lib.sh:
# every act, on file systems of the kind $FS, in the tier $TIER, in an observed tree
# and, in a tier that can block, in a blocked one. It leaves in /out: MODE.truth (what
# the acts say); block.before and block.after (pictures by the acts' own code, the
# second after a new mount); and the daemon's log.

# The trees of a mode: /srv/MODE is the mount, MODE/top/tree is watched.
declare -A DEVICE BELOW
tree_of() { echo "/srv/$1/top/tree"; }
outside_of() { echo "/srv/$1/outside"; }

# make_fs MODE mounts a new file system at /srv/MODE and makes the fixture in it.
# Below an overlay, where the fixture is all in the lower directory, is ext4.
make_fs() {
	local mode=$1 image=/var/coverage.$1.img
	BELOW[$mode]=/srv/$mode
	mkdir -p "/srv/$mode" "/below/$mode"
	[ $FS != overlay ] || BELOW[$mode]=/below/$mode
	[ $FS = tmpfs ] || truncate -s 600M "$image"
	case $FS in
	tmpfs) mount -t tmpfs -o size=128m coverage "/srv/$mode" ;;
	ext4 | overlay) mkfs.ext4 -q -F -O verity,encrypt,project -I 256 "$image" ;;
	xfs) mkfs.xfs -q "$image" ;;
	btrfs) mkfs.btrfs -q "$image" ;;
	esac
	if [ $FS != tmpfs ]; then
		DEVICE[$mode]=$(losetup --find --show "$image")
		mount "${DEVICE[$mode]}" "${BELOW[$mode]}"
	fi
	if [ $FS = overlay ]; then
		mkdir "${BELOW[$mode]}/upper" "${BELOW[$mode]}/work"
		acts fixture "${BELOW[$mode]}/lower/top/tree" "${BELOW[$mode]}/lower/outside"
		over_it "$mode"
	else
		acts fixture "$(tree_of "$mode")" "$(outside_of "$mode")"
	fi
}

over_it() {
	mount -t overlay -o "lowerdir=${BELOW[$1]}/lower,upperdir=${BELOW[$1]}/upper,workdir=${BELOW[$1]}/work" overlay "/srv/$1"
}

# mount_again MODE mounts it anew, so that nothing of it is remembered.
mount_again() {
	local d
	sync
	echo 3 >/proc/sys/vm/drop_caches
	[ $FS != tmpfs ] || return 0
	for d in "/srv/$1" "${BELOW[$1]}"; do
		while mountpoint -q "$d"; do umount -R "$d" || { umount -l "$d"; echo "mount_again: somebody held $d"; }; done
	done
	mount "${DEVICE[$1]}" "${BELOW[$1]}"
	[ $FS != overlay ] || over_it "$1"
}

# coverage MODE... does everything. What there is but one of on a machine, such as
# the file of process accounting, is held for the first mode.
coverage() {
	local mode watches=() i
	for mode in "$@"; do
		make_fs "$mode"
		watches+=("$(tree_of "$mode")=$mode")
	done
	stage "the file systems are made"
	for ((i = $#; i > 0; i--)); do acts hold "$(tree_of "${!i}")" "$(outside_of "${!i}")" "/run/coverage.${!i}"; done
	[[ " $* " != *" block "* ]] || acts picture "$(tree_of block)" >/out/block.before
	stage "what begins before the rule has begun"
	DEGRADED_IS_ARMED=yes # mappings that are held keep a blocked tree degraded
	start_daemon "${watches[@]}"
	stage "the daemon is armed"
	export DAEMON
	for mode in "$@"; do
		acts matrix "$(tree_of "$mode")" "$(outside_of "$mode")" "/run/coverage.$mode" >"/out/$mode.truth"
		stage "every act is done in mode $mode"
	done
	settle_all # what a tier does not see of a change may be found only by comparing
	settle
	stage "everything is recorded"
	status >/out/status.json
	hf log --json --limit 0 >/out/log.ndjson
	stop_daemon
	trap - EXIT
	hf verify
	stage "the log is verified"
	if [[ " $* " == *" block "* ]]; then
		mount_again block
		acts picture "$(tree_of block)" >/out/block.after
	fi
	stage "the end"
}

stage() { echo "after $SECONDS s: $*"; }
