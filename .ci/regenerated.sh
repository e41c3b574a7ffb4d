#!/bin/bash
# regenerated.sh fails unless the committed objects and Go types of bpf/ are, byte
# for byte, what the pinned clang makes of the sources. It works on a copy.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp -r go.mod go.sum bpf "$tmp"
find "$tmp/bpf" \( -name '*_bpfel.o' -o -name '*_bpfel.go' \) -delete
(cd "$tmp" && go generate ./bpf) || { echo "regenerated.sh: go generate ./bpf does not run" >&2; exit 1; }
diff -r bpf "$tmp/bpf" || { echo "regenerated.sh: bpf/ differs from its sources: run make generate and commit" >&2; exit 1; }
