# lib.sh of the cases: people who can log in from addresses of their own, on a machine
# with systemd, and the words that the cases are written in. scripts/lib.sh is before it.
#
#	namespace away                          this machine
#	10.77.0.2 alice  .3 bob  .4 carol  -->  10.77.0.1 sshd (ssh.service), fd77::1
#	10.79.0.2        -->  10.79.0.1 namespace jump 10.78.0.2  -->  10.78.0.1
#
# Every case has a directory $D with the file $F, writable for everybody, and a file $T
# that it writes what only it knows to: session and port of each login.

declare -A ADDRESS=([alice]=10.77.0.2 [bob]=10.77.0.3 [carol]=10.77.0.4 [root]=10.77.0.5)
KEYS=/root/keys
PASSWORD=correct-horse

away() { ip netns exec away "$@"; }

network() {
	local a
	ip netns add away
	ip netns add jump
	ip link add h0 type veth peer name c0 netns away
	ip link add h1 type veth peer name j1 netns jump
	ip -n away link add c2 type veth peer name j2 netns jump
	ip addr add 10.77.0.1/24 dev h0
	ip addr add fd77::1/64 dev h0 nodad
	ip addr add fe80::77:1/64 dev h0 nodad
	ip addr add 10.78.0.1/24 dev h1
	for a in "${ADDRESS[@]}"; do ip -n away addr add $a/24 dev c0; done
	ip -n away addr add fd77::2/64 dev c0 nodad
	ip -n away addr add fe80::77:2/64 dev c0 nodad
	ip -n away addr add 10.79.0.2/24 dev c2
	ip -n jump addr add 10.79.0.1/24 dev j2
	ip -n jump addr add 10.78.0.2/24 dev j1
	ip link set h0 up
	ip link set h1 up
	for a in "away lo" "away c0" "away c2" "jump lo" "jump j1" "jump j2"; do ip -n ${a% *} link set ${a#* } up; done
}

people() {
	local u n=2001
	mkdir -p $KEYS /root/.ssh
	for u in alice bob carol; do
		useradd --uid $n --create-home --shell /bin/bash --user-group $u
		n=$((n + 1))
	done
	for u in alice bob carol root; do
		ssh-keygen -q -t ed25519 -N '' -C $u -f $KEYS/$u
		install -D -o $u -m 0600 $KEYS/$u.pub "$(getent passwd $u | cut -d: -f6)/.ssh/authorized_keys"
		chown $u "$(getent passwd $u | cut -d: -f6)/.ssh"
		echo "$u:$PASSWORD"
	done | chpasswd
	usermod -aG staff alice
	printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\n' alice bob >/etc/sudoers.d/people
	chmod 0440 /etc/sudoers.d/people
	printf 'permit nopass alice as root\n' >/etc/doas.conf
	chmod 0400 /etc/doas.conf
	printf '#!/bin/bash\nread -r s </proc/self/sessionid\nset -- "$1" "$2" $SSH_CONNECTION\necho "$2.session=$s" >>"$1"\n[ -z "$4" ] || echo "$2.port=$4" >>"$1"\n' >/usr/local/bin/mark
	chmod 0755 /usr/local/bin/mark
}

daemons() {
	cat >/etc/ssh/sshd_config <<-EOF
		PermitRootLogin yes
		PasswordAuthentication yes
		KbdInteractiveAuthentication no
		UsePAM yes
		UseDNS no
		PrintMotd no
		AllowTcpForwarding yes
		MaxStartups 100
		Subsystem sftp /usr/lib/openssh/sftp-server
	EOF
	cat >/root/ssh_config <<-EOF
		Host *
			BatchMode no
			IdentitiesOnly yes
			StrictHostKeyChecking no
			UserKnownHostsFile /dev/null
			GlobalKnownHostsFile none
			LogLevel ERROR
			AddressFamily any
	EOF
	systemctl restart ssh
}

# start_daemon WATCH... is that of scripts/lib.sh, but that systemd runs it: a case that
# restarts it is a shell of its own.
start_daemon() {
	local args=(--tier $TIER) w
	for w in "$@"; do args+=(--watch "$w"); done
	cat >/run/systemd/system/holdfast.service <<-EOF
		[Service]
		Type=notify
		TimeoutStartSec=600
		ExecStart=/usr/local/bin/holdfast --state $STATE --socket $SOCKET run ${args[*]}
		StandardError=append:/out/daemon.log
	EOF
	systemctl daemon-reload
	trap finish EXIT
	systemctl start holdfast || { tail -n 20 /out/daemon.log; return 1; }
	hf status --wait armed --timeout 600s >/tmp/status || { cat /tmp/status; return 1; }
}
stop_daemon() { hf stop --reason "${1:-the script is over}" --wait; }

# restart_daemon [COMMAND] ends the daemon, runs the command, and starts the daemon again.
restart_daemon() {
	stop_daemon "a restart"
	eval "${1:-}"
	[ -z "${1:-}" ] || await 60 grep -q session= $T
	systemctl start holdfast
	hf status --wait armed --timeout 600s >/dev/null
}

# fixture NAME makes the directory of a case.
fixture() {
	mkdir -p /srv/who/$1 /srv/truth
	chmod 0777 /srv/who/$1 /srv/truth
	echo one >/srv/who/$1/file
	chmod 0666 /srv/who/$1/file
}

# from USER OPTION... prints the arguments with which ssh and its like come from the user's address.
from() {
	local u=$1
	shift
	echo "-F /root/ssh_config -i $KEYS/$u -o BindAddress=${ADDRESS[$u]} $*"
}

# as USER COMMAND: logs in with the user's key and runs it; what the session is goes to $T.
as() {
	local u=$1
	shift
	away ssh -n $(from $u) $u@10.77.0.1 "mark $T $u; $*"
}

# changed [FILE] returns when the file is no more as the fixture made it.
changed() { await 60 different "${1:-$F}"; }
different() { [ "$(cat "$1")" != one ]; }

# run_case NAME runs one case in a shell of its own.
run_case() {
	local start=$SECONDS code=0
	NAME=$1 D=/srv/who/$1 F=/srv/who/$1/file T=/srv/truth/$1
	: >$T
	chmod 0666 $T
	set +e # or the shell of the case would go on after what fails
	(trap - EXIT; set -e; . /run/vm/who/$1.sh) </dev/null >/tmp/$1.out 2>&1
	code=$?
	set -e
	echo "case $1: exit code $code, $((SECONDS - start)) s"
	[ $code = 0 ] || { cat /tmp/$1.out; echo "failed=$code" >>$T; }
}

# run_cases CASE... runs the cases, with the daemon watching.
run_cases() {
	local c
	network
	people
	daemons
	for c in "$@"; do fixture $c; done
	echo "ready after $SECONDS s"
	start_daemon /srv/who=observe /etc/passwd=observe /etc/shadow=observe
	echo "armed after $SECONDS s"
	for c in "$@"; do run_case $c; done
	settle_all
	mkdir -p /out/truth /out/said
	cp /srv/truth/* /out/truth/
	for c in "$@"; do cp /tmp/$c.out /out/said/$c; done
	/usr/sbin/sshd -V 2>/out/sshd || ssh -V 2>/out/sshd
}
