# claims.sh: how the demo speaks, and the checks behind its claims. Sourced by demo.sh.

failures=0
bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
tell() { printf '   %s\n' "$*"; }
indent() { sed 's/^/   /'; }

# claim TEXT COMMAND...: the command must come true within ten seconds.
claim() {
	local text=$1 i
	shift
	for i in $(seq 50); do
		if "$@" >"$T/claim.out" 2>&1; then
			printf '   %sok%s    %s\n' "$bold" "$plain" "$text"
			return
		fi
		sleep 0.2
	done
	printf '   %sFAILED %s%s\n' "$bold" "$text" "$plain"
	tail -n 20 "$T/claim.out" | indent
	failures=$((failures + 1))
}

b3() { printf 'blake3:%s' "$(b3sum --no-names)"; }

# armed takes the good content aside as soon as it is certain that it is protected.
armed() {
	kill -0 "$daemon" || return 1
	local code=0
	hf status --wait armed --timeout 60s >/dev/null || code=$?
	[ $code = 0 ] || [ $code = 5 ] || return 1 # 5: armed, with less than the best tier
	cp -p "$P/service.conf" "$T/service.conf.good" 2>/dev/null
}

recorded() {
	grep -q Owned "$O/index.html" && ! [ -e "$O/terms.txt" ] && [ -e "$O/dropped.php" ] &&
		[ "$(hf log --json --path "$O/" --kind change | jq -r .path | sort -u | wc -l)" -ge 4 ]
}

who_is() { hf who --json "$1" | tee "$T/who.json" | jq -e "$2" || { cat "$T/who.json"; return 1; }; }

# who_chain PATH NAME...: the names occur in this order from the session's first process to the acting one.
who_chain() {
	local path=$1 chain want=
	shift
	chain=$(hf who --json "$path" | jq -r '([.process.ancestors[].exe] | reverse) + [.process.exe] | map(split("/")[-1]) | join(" ")')
	for n in "$@"; do want="$want*$n"; done
	# shellcheck disable=SC2053
	[[ $chain == $want ]] || { echo "chain: $chain"; return 1; }
}

same_as() { diff "$1" <(picture "$2"); }

evidence() { grep -rqaF "$1" "$T/state/evidence"; }

# undone: the observed tree is as before, apart from the other person's file.
undone() { diff <(grep -v hours.txt "$T/observed.before" | grep -v '^# file') <(picture "$O" | grep -v hours.txt | grep -v '^# file'); }

# hf_exits CODE STATE VERB...
hf_exits() {
	local want=$1 state=$2 code=0
	shift 2
	"$holdfast" --state "$state" "$@" || code=$?
	[ $code = "$want" ] || { echo "exit code $code, want $want"; return 1; }
}

# flip_copy copies the state directory and flips one bit of a person's name in its journal.
# sed, not head: a reader that goes away before the end fails the whole pipe.
flip_copy() {
	cp -r "$T/state" "$T/flipped"
	local seg at byte
	seg=$(grep -laF $SCENE_ALICE "$T"/flipped/journal/*.seg | sed -n 1p)
	at=$(grep -aboF $SCENE_ALICE "$seg" | sed -n 1p | cut -d: -f1)
	byte=$(od -An -tu1 -j "$at" -N 1 "$seg")
	printf '%b' "\\x$(printf %x $((byte ^ 1)))" | dd of="$seg" bs=1 seek="$at" conv=notrunc status=none
}

finish() {
	echo
	if [ $failures != 0 ]; then
		echo "$failures of the claims FAILED."
		exit 1
	fi
	echo "Every claim held. All that the demo made on this machine is being removed."
}
