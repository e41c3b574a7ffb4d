# scene.sh: two people who can log in by ssh from addresses of their own, for the
# demo and for the VM tests. Source it, call scene_up DIR, then scene_login; call
# scene_down however the script ends. It adds and removes again: the users below,
# one network namespace with a veth pair, a sudo rule, and an sshd that listens on
# the pair only. It ends no process that it did not start.
#
#	this machine                          namespace
#	10.203.N.1:2222 sshd  <-- veth -->    10.203.N.2 (alice)  10.203.N.3 (bob)

SCENE_ALICE=hf-demo-alice
SCENE_BOB=hf-demo-bob

scene_up() {
	SCENE_DIR=$1
	SCENE_NS=hf-demo-$$
	SCENE_SUDO=/etc/sudoers.d/hf-demo-$$
	scene_network
	scene_people
	scene_sshd
}

scene_network() {
	local n
	for n in $(seq 0 250); do
		ip -4 route show table all | grep "10\.203\.$n\." >/dev/null || break
	done
	SCENE_NET=10.203.$n
	ip netns add "$SCENE_NS"
	ip link add "hfd$$" type veth peer name "hfc$$" netns "$SCENE_NS"
	ip addr add "$SCENE_NET.1/29" dev "hfd$$"
	ip link set "hfd$$" up
	ip -n "$SCENE_NS" addr add "$SCENE_NET.2/29" dev "hfc$$"
	ip -n "$SCENE_NS" addr add "$SCENE_NET.3/29" dev "hfc$$"
	ip -n "$SCENE_NS" link set "hfc$$" up
}

scene_people() {
	local u
	mkdir -p "$SCENE_DIR/home" "$SCENE_DIR/keys"
	for u in $SCENE_ALICE $SCENE_BOB; do
		# Left over from a run that could not clean up? Only then may it go.
		if getent passwd "$u" >/dev/null; then
			case $(getent passwd "$u" | cut -d: -f6) in
			*/holdfast-demo.*) userdel "$u" ;;
			*) echo "scene: a user $u exists and is not ours" >&2; return 1 ;;
			esac
		fi
		useradd --home-dir "$SCENE_DIR/home/$u" --create-home --shell /bin/bash --user-group "$u" 2>/dev/null
		ssh-keygen -q -t ed25519 -N '' -C "$u" -f "$SCENE_DIR/keys/$u"
		install -D -o "$u" -g "$u" -m 0600 "$SCENE_DIR/keys/$u.pub" "$SCENE_DIR/home/$u/.ssh/authorized_keys"
	done
	printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\n' $SCENE_ALICE $SCENE_BOB >"$SCENE_DIR/sudoers"
	visudo -q -c -f "$SCENE_DIR/sudoers"
	install -m 0440 "$SCENE_DIR/sudoers" "$SCENE_SUDO"
}

scene_sshd() {
	local i
	SCENE_RUNDIR=
	[ -d /run/sshd ] || { mkdir -m 0755 /run/sshd; SCENE_RUNDIR=/run/sshd; } # where sshd confines its unprivileged part
	ssh-keygen -q -t ed25519 -N '' -f "$SCENE_DIR/keys/host"
	cat >"$SCENE_DIR/sshd_config" <<-EOF
		ListenAddress $SCENE_NET.1:2222
		HostKey $SCENE_DIR/keys/host
		AuthorizedKeysFile .ssh/authorized_keys
		AllowUsers $SCENE_ALICE $SCENE_BOB
		UsePAM yes
		PasswordAuthentication no
		KbdInteractiveAuthentication no
		PrintMotd no
		UseDNS no
		PidFile none
	EOF
	echo "[$SCENE_NET.1]:2222 $(cut -d' ' -f1,2 "$SCENE_DIR/keys/host.pub")" >"$SCENE_DIR/known_hosts"
	/usr/sbin/sshd -D -e -f "$SCENE_DIR/sshd_config" >"$SCENE_DIR/sshd.log" 2>&1 &
	SCENE_SSHD=$!
	for i in $(seq 100); do
		grep -q 'Server listening' "$SCENE_DIR/sshd.log" && return
		kill -0 $SCENE_SSHD 2>/dev/null || break
		sleep 0.1
	done
	echo "scene: sshd does not start:" >&2
	cat "$SCENE_DIR/sshd.log" >&2
	return 1
}

# scene_address USER prints the address that the user comes from.
scene_address() {
	case $1 in
	"$SCENE_ALICE") echo "$SCENE_NET.2" ;;
	*) echo "$SCENE_NET.3" ;;
	esac
}

# scene_login USER COMMAND runs the command in a login session of the user.
scene_login() {
	local user=$1
	shift
	ip netns exec "$SCENE_NS" ssh -n -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
		-o UserKnownHostsFile="$SCENE_DIR/known_hosts" -o GlobalKnownHostsFile=none -i "$SCENE_DIR/keys/$user" \
		-b "$(scene_address "$user")" -p 2222 "$user@$SCENE_NET.1" "$@"
}

# scene_tree PID prints the processes below it, deepest first, and itself.
scene_tree() {
	local c
	for c in $(cat /proc/"$1"/task/*/children 2>/dev/null); do scene_tree "$c"; done
	echo "$1"
}

scene_down() {
	local p u
	if [ -n "${SCENE_SSHD:-}" ]; then
		for p in $(scene_tree "$SCENE_SSHD"); do kill "$p" 2>/dev/null || true; done
		wait "$SCENE_SSHD" 2>/dev/null || true
	fi
	[ -z "${SCENE_RUNDIR:-}" ] || rmdir "$SCENE_RUNDIR" 2>/dev/null || true
	[ -z "${SCENE_SUDO:-}" ] || rm -f "$SCENE_SUDO"
	if [ -n "${SCENE_NS:-}" ] && ip netns list | grep "^$SCENE_NS\b" >/dev/null; then
		ip link del "hfd$$" 2>/dev/null || true
		ip netns del "$SCENE_NS"
	fi
	for u in $SCENE_ALICE $SCENE_BOB; do
		case "$(getent passwd "$u" | cut -d: -f6)" in
		"${SCENE_DIR:-/none}"/*) userdel "$u" >/dev/null 2>&1 ;;
		esac
	done
}
