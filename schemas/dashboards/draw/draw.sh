#!/bin/bash
# draw.sh draws each dashboard, over a generated fleet in a real ClickHouse, with Grafana's own components (@grafana/ui) in
# headless Chromium, to docs/dashboards/NAME.png. Needs npm; Chromium and a font come by apt. Packages go to .cache/draw.
#
#	draw.sh [NAME...]    default: all
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
work=$top/.cache/draw
for p in chromium fonts-inter pngquant; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' $p 2>/dev/null)" = installed ] || lacking="${lacking:-} $p"
done
if [ -n "${lacking:-}" ]; then
	apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $lacking </dev/null >/dev/null
fi
mkdir -p "$work"
if ! cmp -s "$here/package.json" "$work/installed.json"; then
	cp "$here/package.json" "$work/package.json"
	(cd "$work" && npm install --silent --no-audit --no-fund)
	cp "$here/package.json" "$work/installed.json"
fi
cp "$here/draw.tsx" "$work/"
(cd "$work" && node_modules/.bin/esbuild draw.tsx --bundle --format=iife --jsx=automatic --loader:.svg=dataurl --loader:.ttf=empty \
	--define:process.env.NODE_ENV='"production"' --log-level=error --outfile=draw.js)
if [ -z "${KEEP:-}" ] || [ ! -s "$work/answers.js" ]; then
	(cd "$top" && go test ./schemas/dashboards -run '^$' -bench Panels -benchtime 1x -args -answers="$work/answers.js" >/dev/null)
fi
mkdir -p "$top/docs/dashboards"
[ $# -gt 0 ] || set -- fleet host people restores health expected
for name; do
	rows=$(node -p "Math.max(...require('$here/../$name.json').panels.map(p => p.gridPos.y + p.gridPos.h))")
	{
		echo '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="draw.css"><style>body { margin: 0 }</style><div id="root"></div><script src="answers.js"></script><script>'
		echo "window.answer = window.answers['$name.json']; window.dashboard ="
		cat "$here/../$name.json"
		echo '</script><script src="draw.js"></script>'
	} >"$work/$name.html"
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files --user-data-dir="$work/profile" \
		--window-size=1616,$((rows * 38 + 56)) --virtual-time-budget=20000 --enable-logging=stderr --v=0 \
		--screenshot="$work/$name.png" "file://$work/$name.html" 2>"$work/$name.log"
	! grep -E 'CONSOLE.*(Error|Uncaught)' "$work/$name.log" || { echo "draw: $name: see $work/$name.log" >&2; exit 1; }
	pngquant --force --strip --speed 1 64 --output "$top/docs/dashboards/$name.png" "$work/$name.png"
	echo "docs/dashboards/$name.png $(stat -c %s "$top/docs/dashboards/$name.png") bytes"
done
