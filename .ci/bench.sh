#!/bin/bash
# bench.sh runs every Go benchmark, one package at a time, then lets b3sum hash
# files like those of pkg/digest's benchmarks, for comparison. It prints, it keeps nothing.
set -euo pipefail
for peer in restic aide b3sum; do
	command -v $peer >/dev/null || { echo "bench: $peer is not installed: apt-get install restic aide b3sum"; exit 1; }
done
cd "$(dirname "$0")/.."
lscpu | awk -F': +' '/^(Model name|CPU\(s\))/ { print $1 ": " $2 }'
uname -srm
packages=$(grep -rlE --include='*_test.go' '^func Benchmark' . | xargs -r dirname | sort -u || true)
for p in $packages; do
	go test -run '^$' -bench . -benchmem "$p" | grep -vE '^(PASS|goos|goarch)'
done

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# files SIZE COUNT: COUNT files of SIZE bytes, hashed by one thread of b3sum from the page cache.
files() {
	mkdir "$tmp/$1"
	head -c $(($1 * $2)) /dev/urandom | split -a 5 -b "$1" - "$tmp/$1/f"
	cat "$tmp/$1"/* >/dev/null
	local t0 t1
	t0=$(date +%s%N)
	find "$tmp/$1" -type f -print0 | xargs -0 b3sum --num-threads 1 >/dev/null
	t1=$(date +%s%N)
	awk -v b=$(($1 * $2)) -v ns=$((t1 - t0)) -v s="$1" -v n="$2" 'BEGIN { printf "b3sum %8d files of %9d bytes %10.0f MB/s\n", n, s, b * 1000 / ns }'
	rm -r "${tmp:?}/$1"
}
echo
files 4096 16384
files 65536 2048
files 1048576 256
files 268435456 1
