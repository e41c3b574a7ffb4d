# lib.sh is sourced before every script of scripts/. It runs the daemon, waits,
# and writes the truth about edits by ordinary programs, one JSON line each, in
# the form that acts prints (vmtests/acts).

STATE=/var/lib/holdfast
SOCKET=/run/holdfast.sock
DAEMON=
hf() { holdfast --state $STATE --socket $SOCKET "$@"; }
status() { hf status --json || test $? = 5; } # 5: degraded

# What linux 5.10 lacks is told, and so it is everywhere in status.
case $(uname -r) in 5.10.*) DEGRADED_IS_ARMED=yes ;; esac

# start_daemon WATCH... starts it, in the tier $TIER if that is set, and returns when
# every rule is armed; with $DEGRADED_IS_ARMED, though with less than was asked for.
start_daemon() {
	local args=(${TIER:+--tier "$TIER"}) w code=0
	for w in "$@"; do args+=(--watch "$w"); done
	holdfast --state $STATE --socket $SOCKET run "${args[@]}" >/out/daemon.log 2>&1 &
	DAEMON=$!
	trap finish EXIT
	hf status --wait armed --timeout 600s >/tmp/status || code=$?
	[ $code = 0 ] || [ "$code ${DEGRADED_IS_ARMED:-}" = "5 yes" ] || { echo "status --wait armed: exit code $code"; cat /tmp/status; tail -n 20 /out/daemon.log; return 1; }
}

# stop_daemon ends it, the way that an administrator does: it guards itself against
# signals in the tiers that can.
stop_daemon() {
	[ -n "$DAEMON" ] || return 0
	local pid=$DAEMON
	DAEMON=
	hf stop --reason "${1:-the script is over}" --wait && wait $pid || { echo "stop_daemon: exit code $?"; tail -n 20 /out/daemon.log; return 1; }
}

# settle returns when no record has been added for two seconds. It leaves the newest one
# in $newest: in an emulated machine each further program costs half a second.
settle() {
	local last=- n
	for n in $(seq 60); do
		newest=$(hf log --json --limit 1)
		[ "$newest" = "$last" ] && return
		last=$newest
		sleep 2
	done
	echo "settle: records keep coming: $last"
	return 1
}

# mark settles and leaves the number of the newest record in $since.
since=0
mark() {
	settle
	[[ $newest =~ ,\"seq\":([0-9]+), ]] || { echo "mark: no number in $newest"; return 1; }
	since=${BASH_REMATCH[1]}
}

# settle_all returns when everything that was done until now is recorded: nothing
# waits on the way to the log, and no tree is yet to be compared on account of it.
settle_all() {
	local now last= t n
	t=$(date +%s%N)
	for n in $(seq ${1:-300}); do
		now=$(status | jq -c --argjson t "$t" '[.pipeline.pipeline_waiting + (.queues | map(.len) | add),
			(.pipeline.pipeline_doubt | if . > $t then 0 else . end), .journal.seq]')
		case $now in '[0,0,'*) [ "$now" != "$last" ] || return 0 ;; esac
		last=$now
		[ $((n % 60)) != 0 ] || echo "settle_all: $last"
		sleep 1
	done
	echo "settle_all: still waiting: $last"
	return 1
}

# finish ends every script that started the daemon, however it ends: it keeps what
# the expectations read ($LAST records, all if that is 0 or unset), ends the daemon and
# verifies the log.
finish() {
	local code=$?
	trap - EXIT
	set +e
	${ATEXIT:-true}
	status >/out/status.json
	hf log --json --limit ${LAST:-0} >/out/log.ndjson || code=1
	stop_daemon || code=1
	hf verify >/out/verify.txt || { cat /out/verify.txt; code=1; }
	exit $code
}

# picture DIR prints content and metadata of a tree. picture DIR restored leaves out
# the times of directories: a restore changes entries, and that is a change of time.
picture() {
	(
		cd "$1"
		find . -mindepth 1 -type d -printf "%P %y %m %U:%G ${2:+-}${2:-%T@}\n" | sort
		find . -mindepth 1 ! -type d -printf '%P %y %m %U:%G %s %T@ %l\n' | sort
		find . -type f -print0 | sort -z | xargs -0r sha256sum
		find . -mindepth 1 -print0 | sort -z | xargs -0r getfacl -pn --physical
		find . -mindepth 1 -print0 | sort -z | xargs -0r getfattr -d -m - -h
	) 2>/dev/null
}

# await SECONDS COMMAND... repeats the command until it succeeds.
await() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { echo "await: never true: $*"; "$@"; return 1; }
		sleep 0.5
	done
}

# hold NAME FILE WORD... starts a process that holds a file (vmtests/holdtest); its
# pid is ${pid[NAME]}. tell NAME WORD has it do something and prints its answer.
declare -A in pid
hold() {
	local name=$1 fd
	shift
	mkfifo /tmp/$name.in
	holder "$@" </tmp/$name.in >/tmp/$name.out &
	pid[$name]=$!
	exec {fd}>/tmp/$name.in
	in[$name]=$fd
	await 60 lines /tmp/$name.out 1
}
tell() {
	local n
	n=$(wc -l </tmp/$1.out)
	echo "$2" >&${in[$1]}
	await 60 lines /tmp/$1.out $((n + 1))
	tail -n 1 /tmp/$1.out
}
finished() {
	echo end >&${in[$1]}
	wait ${pid[$1]} || true
}
lines() { test "$(wc -l <"$1")" -ge "$2"; }

# sums FILE... prints hashes of what is on the device, past the page cache; where a
# file system cannot be read so, of what is in it.
sums() {
	local f
	for f in "$@"; do echo "$({ dd if="$f" bs=4096 iflag=direct 2>/dev/null || cat "$f"; } | sha256sum | cut -c1-64)  $f"; done
}

# told FILTER: there is such a record. says FILTER: status says so.
told() { hf log --json --limit 0 | jq -es "any(.[]; $1)" >/dev/null; }
says() { status | jq -e "$1" >/dev/null; }

# is_as FILE DIR: the tree is, restored, as the picture in FILE.
is_as() { diff "$1" <(picture "$2" restored); }

# state PATH prints what is there, in the names of the record.
state() {
	if [ -L "$1" ]; then
		jq -nc --arg t "$(readlink "$1")" '{exists: true, target: $t}'
	elif [ -f "$1" ]; then
		jq -nc --arg h "blake3:$(b3sum --no-names "$1")" --arg m "$(stat -c %04a "$1")" --argjson u "$(stat -c %u "$1")" '{exists: true, hash: $h, mode: $m, uid: $u}'
	elif [ -e "$1" ]; then
		jq -nc --arg m "$(stat -c %04a "$1")" '{exists: true, mode: $m}'
	else
		echo '{"exists": false}'
	fi
}

# edits TREE HOW runs every edit of people's lives below TREE, each in a folder of
# its own. HOW is plain (nobody watches: keep the outcome as the truth), done (the
# edits succeed: write the truth), restored (the same, but what a program makes beside the
# file may be put away before it is done: then it says so) or refused (they fail: write that).
edits() {
	TREE=$1 HOW=$2
	# edit OPS FILE PROGRAM COMMAND...
	edit write,create,rename vim/conf /usr/bin/vim.tiny vim.tiny -u NONE -es -c '%s/old/new/' -c wq vim/conf
	edit write,truncate ed/conf /usr/bin/ed sh -c 'printf ",s/old/new/\nw\nq\n" | ed -s ed/conf'
	edit rename,write sed/conf /usr/bin/sed sed -i s/old/new/ sed/conf
	edit write,truncate cp/conf /usr/bin/cp cp cp.source cp/conf
	edit create cp-new/fresh /usr/bin/cp cp cp.source cp-new/fresh
	edit rename mv/moved /usr/bin/mv mv mv/conf mv/moved
	edit rename mv-over/conf /usr/bin/mv mv mv-over/other mv-over/conf
	edit write tee/conf /usr/bin/tee sh -c 'echo more | tee -a tee/conf'
	edit write,truncate shell/conf /usr/bin/bash bash -c 'echo all new >shell/conf'
	edit truncate truncate/conf /usr/bin/truncate truncate -s 3 truncate/conf
	edit unlink rm/conf /usr/bin/rm rm rm/conf
	edit chmod chmod/conf /usr/bin/chmod chmod 4711 chmod/conf
	edit chown chown/conf /usr/bin/chown chown 1234:1234 chown/conf
	edit create touch-new/fresh /usr/bin/touch touch touch-new/fresh
	edit utimes touch/conf /usr/bin/touch touch -d 2001-02-03 touch/conf
	edit link ln/second /usr/bin/ln ln ln/conf ln/second
	edit symlink ln-s/soft /usr/bin/ln ln -s conf ln-s/soft
	edit mkdir mkdir/sub /usr/bin/mkdir mkdir mkdir/sub
	edit rmdir rmdir/sub /usr/bin/rmdir rmdir rmdir/sub
	edit setxattr setfattr/conf /usr/bin/setfattr setfattr -n user.note -v new setfattr/conf
	edit setacl,setxattr setfacl/conf /usr/bin/setfacl setfacl -m u:1234:rw setfacl/conf
	edit rename,create,write,link dpkg/tool.conf /usr/bin/dpkg dpkg -i /root/"${TREE##*/}".deb
}

# fixture TREE makes what edits needs, and the package that dpkg installs into TREE.
fixture() {
	local d pkg=/root/${1##*/}
	mkdir -p "$1"
	for d in vim ed sed cp cp-new mv mv-over tee shell truncate rm chmod chown touch-new touch ln ln-s mkdir rmdir setfattr setfacl dpkg; do
		mkdir "$1/$d"
		printf 'an old line of %s\nand one more\n' $d >"$1/$d/conf"
	done
	mkdir "$1/rmdir/sub"
	echo 'from elsewhere' >"$1/cp.source"
	echo 'the other' >"$1/mv-over/other"
	echo 'version 0' >"$1/dpkg/tool.conf"
	mkdir -p "$pkg/DEBIAN" "$pkg$1/dpkg"
	printf 'Package: hf-edit-%s\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: one file\n' "${1##*/}" >"$pkg/DEBIAN/control"
	echo 'version 1' >"$pkg$1/dpkg/tool.conf"
	dpkg-deb --build "$pkg" "$pkg.deb" >/dev/null
}

edit() {
	local ops=$1 file=$2 exe=$3 code=0 known
	shift 3
	(cd "$TREE" && "$@") >/tmp/edit.out 2>&1 || code=$?
	known=/tmp/outcome/$file
	case $HOW in
	plain)
		[ $code = 0 ] || { echo "edit $*: exit code $code"; cat /tmp/edit.out; return 1; }
		mkdir -p "$(dirname "$known")"
		state "$TREE/$file" >"$known"
		;;
	done | restored)
		if [ $code != 0 ]; then
			echo "edit $*: exit code $code"
			cat /tmp/edit.out
			[ $HOW = restored ] && grep -q 'No such file or directory' /tmp/edit.out
			return
		fi
		jq -c --arg a "$1" --arg o "$ops" --arg p "$TREE/$file" --arg e "$exe" --argjson u "$(id -u)" \
			'{act: $a, op: $o, path: $p, exe: $e, uid: $u, after: .}' "$known" >>"/out/truth-${TREE##*/}.ndjson"
		;;
	refused)
		[ $code != 0 ] || { echo "edit $*: was not refused"; return 1; }
		grep -q 'Operation not permitted\|E212\|E166' /tmp/edit.out || { echo "edit $*: refused otherwise:"; cat /tmp/edit.out; }
		# Which name below its folder a program tries first is its own business.
		jq -nc --arg a "$1" --arg p "$TREE/${file%/*}/" --arg e "$exe" --argjson u "$(id -u)" \
			'{act: $a, under: $p, exe: $e, uid: $u, errno: "EPERM"}' >>"/out/truth-${TREE##*/}.ndjson"
		;;
	esac
}
