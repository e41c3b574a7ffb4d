# guest.sh runs in the guest: one column after the other, each starting from where
# nothing of the one before is left. The runner sets COLUMNS, OPERATIONS, ROUNDS,
# TIER and PROFILE in front of it.
#
# The files are on a file system of their own: the daemon guards its own places and
# so always has marks on that of the root.

mkdir -p /srv/cost /sys/fs/cgroup/reader /run/reader /run/elsewhere/tree
truncate -s 256M /run/disk
mkfs.ext4 -q /run/disk
mount -o loop /run/disk /srv/cost
D3=/srv/cost/here D13=/srv/cost/deep/4/5/6/7/8/9/10/11/12/13
mkdir -p $D3 $D13 /srv/cost/elsewhere
# The tools that read the programs' clocks are refused while the daemon guards itself.
cat >/run/reader/holdfast.yaml <<-END
	tier: $TIER
	guard: $([ -z "$PROFILE" ] && echo true || echo false)
	limits: {ring: 128MiB}
END
hf=(holdfast --config /run/reader/holdfast.yaml)

wanted() { [[ " $COLUMNS " = *" $1 "* ]]; }

# measure COLUMN DIR prints the figures of a column. The directory is a new one: what had
# many names is larger and has an index, which costs more.
measure() {
	local op
	rmdir "$2"
	mkdir "$2"
	if [ -z "$PROFILE" ]; then
		if [ -n "${LOGIN:-}" ]; then
			# loginuid can be set once where it is unset: it makes a login
			bash -c 'echo 65534 >/proc/self/loginuid; exec cost "$@"' - "$1" "$2" "$ROUNDS" $OPERATIONS
		else
			cost "$1" "$2" "$ROUNDS" $OPERATIONS
		fi
		return
	fi
	for op in ${OPERATIONS:-$(cost names)}; do
		programs >/tmp/before
		cost "$1" "$2" "$ROUNDS" "$op"
		programs | join -a 1 -e 0 -o 0,1.2,1.3,2.2,2.3 - /tmp/before |
			awk -v c="$1" -v op="$op" '$3 > $5 { printf "profile %s %s %s %d %.0f\n", c, op, $1, $3 - $5, ($2 - $4) / ($3 - $5) }'
	done
}

# programs prints name, run time and runs of each BPF program.
programs() { bpftool prog show -j | jq -r '.[] | select(.run_cnt) | "\(.name) \(.run_time_ns) \(.run_cnt)"' | sort; }

# still holds the reader of the events, so that what is measured is the kernel's part
# alone; moving ends that. What a held reader has not taken waits in a buffer that is
# large enough for all of it.
still() {
	echo "$1" >/sys/fs/cgroup/reader/cgroup.procs
	echo 1 >/sys/fs/cgroup/reader/cgroup.freeze
	until grep -q 'frozen 1' /sys/fs/cgroup/reader/cgroup.events; do sleep 0.1; done
}
moving() { echo 0 >/sys/fs/cgroup/reader/cgroup.freeze; }

# watched VALUE returns when the program that sees each write is attached (true) or not
# (false): the daemon attaches it while watched files are open for writing.
watched() {
	local n
	for n in $(seq 60); do
		"${hf[@]}" status --json >/tmp/status.json || [ $? = 5 ]
		jq -e "all(.on_demand[]?; .name != \"file_permission\" or .attached == $1)" /tmp/status.json >/dev/null && return
		sleep 1
	done
	echo "file_permission: attached is never $1"
	exit 1
}

# watching PATH COLUMN DIR [COLUMN DIR]... measures with Holdfast watching PATH; in the
# columns called ...writer a file there is open for writing all the time.
watching() {
	local pid path=$1
	shift
	any "$@" || return 0
	"${hf[@]}" run --watch "$path=observe" >/tmp/daemon.log 2>&1 &
	pid=$!
	"${hf[@]}" status --wait armed --timeout 120s >/tmp/status || [ $? = 5 ] || { cat /tmp/status /tmp/daemon.log; exit 1; }
	while [ $# -gt 0 ]; do
		if wanted "$1"; then
			exec 9>&-
			LOGIN=
			[ "$1" != login ] || LOGIN=1
			case $1 in
			*writer) exec 9>>"$path/log" && watched true ;;
			*) watched false ;;
			esac
			still $pid
			measure "$1" "$2"
			moving
		fi
		shift 2
	done
	exec 9>&-
	"${hf[@]}" status --json | jq -r --arg c "$path" '.events | "events \($c) seen \(.seen) sent \(.sent) lost \(.lost) failed \(.failed)"'
	[ "$path" = /srv/cost ] && return	# it would first work off all that it was not let see
	"${hf[@]}" stop --reason measured --wait >/dev/null
	wait $pid
}

any() {
	while [ $# -gt 0 ]; do
		if wanted "$1"; then return 0; fi
		shift 2
	done
	return 1
}

sysctl -qw kernel.bpf_stats_enabled=${PROFILE:-0}
if wanted bare; then measure bare $D3; fi
if wanted bare13; then measure bare13 $D13; fi
watching /run/elsewhere/tree idle $D3 login $D3 idlewriter $D3
watching /srv/cost/elsewhere elsewhere $D3 elsewhere13 $D13 elsewherewriter $D3
watching /srv/cost here $D3 herewriter $D3

# auditd with the rule that sees the same operations: its reader is held, too, and its
# socket takes what it does not read. In a boot of its own: a task that was audited once
# stays so.
if wanted audit || wanted audithere || wanted auditexec; then
	sysctl -qw net.core.rmem_default=1000000000
	auditd
	auditctl -b 1000000 >/dev/null
	auditctl -w /srv/cost/elsewhere -p wa >/dev/null
	still "$(pidof auditd)"
	if wanted audit; then measure audit $D3; fi
	auditctl -D >/dev/null
	auditctl -w /srv/cost -p wa >/dev/null
	if wanted audithere; then measure audithere $D3; fi
	auditctl -D >/dev/null
	auditctl -a always,exit -F arch=b64 -S execve,execveat >/dev/null
	if wanted auditexec; then measure auditexec $D3; fi
	auditctl -s | awk '$1 == "lost" { print "events auditd lost", $2 }'
fi
