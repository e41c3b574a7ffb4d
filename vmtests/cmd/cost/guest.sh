# guest.sh runs in the guest: one column after the other, in the order that lets
# each start from where nothing of the one before is left. The runner sets COLUMNS,
# OPERATIONS, ROUNDS, TIER and PROFILE in front of it.

D3=/srv/cost/here D13=/srv/cost/here/4/5/6/7/8/9/10/11/12/13
mkdir -p $D13 /srv/elsewhere /sys/fs/cgroup/reader /run/reader /run/elsewhere/tree
cat >/run/reader/holdfast.yaml <<-END
	state: /run/reader/state
	socket: /run/reader/socket
	tier: $TIER
	limits: {ring: 128MiB}
END
hf=(holdfast --config /run/reader/holdfast.yaml)

wanted() { [ -z "$COLUMNS" ] || [[ " $COLUMNS " = *" $1 "* ]]; }

# measure COLUMN DIR prints the figures of a column.
measure() {
	local op
	if [ -z "$PROFILE" ]; then
		cost "$1" "$2" "$ROUNDS" $OPERATIONS
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
# alone; moving ends that. What a stopped reader has not taken waits in a buffer that
# is large enough for all of it.
still() {
	echo "$1" >/sys/fs/cgroup/reader/cgroup.procs
	echo 1 >/sys/fs/cgroup/reader/cgroup.freeze
	until grep -q 'frozen 1' /sys/fs/cgroup/reader/cgroup.events; do sleep 0.1; done
}
moving() { echo 0 >/sys/fs/cgroup/reader/cgroup.freeze; }

# watching PATH COLUMN DIR [COLUMN DIR] measures with Holdfast watching PATH.
watching() {
	local pid path=$1
	shift
	"${hf[@]}" run --watch "$path=observe" >/tmp/daemon.log 2>&1 &
	pid=$!
	"${hf[@]}" status --wait armed --timeout 120s >/tmp/status || { cat /tmp/status /tmp/daemon.log; exit 1; }
	still $pid
	while [ $# -gt 0 ]; do
		if wanted "$1"; then measure "$1" "$2"; fi
		shift 2
	done
	bpftool map dump -j name stats | jq -r --arg c "$path" '[.[].formatted.values[].value] | "events \($c) seen \(map(.seen)|add) sent \(map(.sent)|add) lost \(map(.lost)|add) failed \(map(.failed)|add)"'
	moving
	kill -9 $pid
	wait $pid 2>/dev/null || true
	rm -rf /run/reader/state
}

sysctl -qw kernel.bpf_stats_enabled=${PROFILE:-0}
if wanted bare; then measure bare $D3; fi
if wanted bare13; then measure bare13 $D13; fi
if wanted idle; then watching /run/elsewhere/tree idle $D3; fi
if wanted elsewhere || wanted elsewhere13; then watching /srv/elsewhere elsewhere $D3 elsewhere13 $D13; fi
if wanted here; then watching /srv/cost here $D3; fi

# auditd MODE... measures with auditd and the rule that sees the same operations: its
# reader is held, too, and its socket takes what it does not read.
if wanted audit || wanted audithere; then
	sysctl -qw net.core.rmem_default=1000000000
	auditd
	auditctl -b 1000000 >/dev/null
	auditctl -w /srv/elsewhere -p wa >/dev/null
	still "$(pidof auditd)"
	if wanted audit; then measure audit $D3; fi
	auditctl -D >/dev/null
	auditctl -w /srv/cost -p wa >/dev/null
	if wanted audithere; then measure audithere $D3; fi
	auditctl -s | awk '$1 == "lost" || $1 == "backlog" { printf "events auditd %s %s\n", $1, $2 }'
fi
