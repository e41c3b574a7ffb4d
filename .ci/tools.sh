#!/bin/bash
# tools.sh installs what the build, the tests and the demo need and this Debian 12
# machine lacks: packages by apt, Go by the module proxy. Nothing lacking: no-op.
#
#	tools.sh [build|demo|test]   default: test, which is everything
set -euo pipefail
cd "$(dirname "$0")/.."

build='ca-certificates git make'
demo='openssh-server openssh-client sudo iproute2 acl attr jq b3sum procps passwd'
test='clang-19 llvm-19 libbpf-dev linux-libc-dev
	qemu-system-x86 busybox-static cpio kmod xz-utils zstd e2fsprogs xfsprogs btrfs-progs mmdebstrap debian-archive-keyring
	libcap2-bin stress-ng ed vim sshpass rsync sqlite3'
case ${1:-test} in
build) want=$build ;;
demo) want="$build $demo" ;;
test) want="$build $demo $test" ;;
*) echo "tools.sh: unknown set $1: want build, demo or test" >&2; exit 2 ;;
esac

lacking=
for p in $want; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || lacking="$lacking $p"
done
# npm comes from Debian only if the machine has none: the ClickHouse engine is an npm package.
if [ "${1:-test}" = test ] && ! command -v npm >/dev/null; then lacking="$lacking npm"; fi

# go_works: any Go since 1.21 fetches the version that go.mod names by itself.
export PATH=$PWD/.cache/go/bin:$PATH:/usr/local/go/bin
version=$(awk '$1 == "go" { print $2 }' go.mod)
go_works() { printf '%s\n' "go$version" "$(go env GOVERSION 2>/dev/null)" | sort -VC; }
go_works || lacking="$lacking golang-go"

if [ -n "$lacking" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "tools.sh: lacking:$lacking" >&2
		echo "tools.sh: run make tools as root, or install these" >&2
		exit 1
	fi
	echo "tools: installing$lacking"
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	# A service that a package brings (sshd) must not start because of us.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod +x /usr/sbin/policy-rc.d
		trap 'rm -f "$log" /usr/sbin/policy-rc.d' EXIT
	fi
	# The lists may be absent or older than the archive: refresh them only if that is so.
	install() { apt-get install -y -q --no-install-recommends $lacking </dev/null; }
	if ! install >"$log" 2>&1; then
		apt-get update -q >>"$log" 2>&1 && install >>"$log" 2>&1 || { cat "$log" >&2; exit 1; }
	fi
fi

# Debian 12's own Go is too old to read go.mod, but it can fetch a newer one
# from the module proxy, checked against the checksum database like any module.
if ! go_works; then
	echo "tools: fetching Go $version"
	tmp=$(mktemp -d)
	dir=$(cd "$tmp" && GOFLAGS=-modcacherw GOMODCACHE=$tmp/mod go mod download -json "golang.org/toolchain@v0.0.1-go$version.linux-amd64" |
		sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	chmod -R u+w "$dir"
	chmod a+x "$dir"/bin/* "$dir"/pkg/tool/*/*
	mkdir -p .cache
	rm -rf .cache/go
	mv "$dir" .cache/go
	rm -rf "$tmp"
	go_works
fi
