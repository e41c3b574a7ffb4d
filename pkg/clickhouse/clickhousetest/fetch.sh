#!/bin/sh
# fetch.sh puts the ClickHouse engine that the tests run against to
# .cache/clickhouse/libchdb.so below the top of the repository (or to $1) and
# prints that path. If this version is already there it only prints.
#
# The engine is a shared library from an npm package, version and digest pinned
# below; its command-line entry point can serve since 26.7. Needs npm, tar and
# sha512sum, and 1.1 GiB of disk while it unpacks (543 MiB stay). The processor
# needs AVX2.
set -eu

package=@chdb/lib-linux-x64-gnu@26.7.3-stable.1
sha512=5cff7b98caa7739b59a4a432c11f0dedc2d3b073624e61ebdf4a42e66ce8de35a6ba48ca9f62016bad1cd81fe059435cb858ce3235a8a2b408082a81563e70a7

top=$(cd "$(dirname "$0")/../../.." && pwd)
lib=${1:-$top/.cache/clickhouse/libchdb.so}
dir=$(dirname "$lib")

# The stamp is written after the library is complete: an interrupted run starts again.
if [ -s "$lib" ] && [ "$(cat "$lib.version" 2>/dev/null)" = "$package" ]; then
	echo "$lib"
	exit 0
fi
for tool in npm tar sha512sum; do
	command -v $tool >/dev/null || { echo "fetch.sh: $tool is missing: install it, then run make engine again" >&2; exit 1; }
done

mkdir -p "$dir" "$top/.cache"
echo '*' >"$top/.cache/.gitignore"
tmp=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

echo "fetch.sh: $package (178 MB)" >&2
npm pack --silent --cache "$tmp/npm" --pack-destination "$tmp" "$package" >/dev/null || {
	echo "fetch.sh: npm pack $package: no answer from the package registry that npm is set up with" >&2
	exit 1
}
echo "$sha512  $(ls "$tmp"/*.tgz)" | sha512sum --check --quiet >&2 || {
	echo "fetch.sh: $package: the digest is not the pinned one; nothing was kept" >&2
	exit 1
}
tar -xzf "$tmp"/*.tgz -C "$tmp" package/libchdb.so
mv "$tmp/package/libchdb.so" "$lib"
echo "$package" >"$lib.version"
echo "$lib"
