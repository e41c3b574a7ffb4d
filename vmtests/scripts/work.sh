# work.sh is sourced: mixed work of every kind in a tree, for the completeness oracle.
# Nothing here knows what Holdfast makes of it.

# mixed_work TREE OUTSIDE ROUNDS SEED [MINUTES]: OUTSIDE is a directory on the same file
# system. With MINUTES it goes on for rounds until they are over. It takes the programs
# fuzz, git, dpkg, tar, rsync, sqlite3 and stress-ng.
mixed_work() {
	local tree=$1 outside=$2 rounds=$3 seed=$4 end=$((SECONDS + 60 * ${5:-0})) n=0 w pids
	mkdir -p "$tree"/{fuzz,git,dpkg,tar,rsync,sqlite,stress} "$outside"/{fuzz,src,pkg}
	some_files "$outside/src"
	some_packages "$outside/pkg"
	while [ $((++n)) -le "$rounds" ] || [ $SECONDS -lt $end ]; do
		echo "round $n, seed $((seed + n))"
		fuzz -seed $((seed + n)) -procs 8 -ops "${FUZZ_OPS:-400}" "$tree/fuzz" "$outside/fuzz" >"$outside/fuzz.$n" &
		pids=($!)
		for w in git dpkg tar rsync sqlite stress; do
			"work_$w" "$tree/$w" "$outside" "$n" >"$outside/$w.log" 2>&1 &
			pids+=($!)
			# Two at a time: they come in each other's way, and no more than that.
			[ ${#pids[@]} -lt 2 ] || { await_work "${pids[0]}" "$outside"; pids=("${pids[@]:1}"); }
		done
		for w in "${pids[@]}"; do await_work "$w" "$outside"; done
		echo "round $n is over after $SECONDS s"
	done
}

await_work() {
	wait "$1" || { echo "mixed_work: a part of it failed ($?)"; tail -n 5 "$2"/*.log; return 1; }
}

some_files() {
	local i
	for i in $(seq 24); do
		mkdir -p "$1/a$((i % 5))/b$((i % 3))"
		seq $((i * 37)) >"$1/a$((i % 5))/b$((i % 3))/file $i"
	done
	ln -s a0 "$1/soft"
	ln "$1/a1/b1/file 1" "$1/hard"
	chmod 4755 "$1/a2/b2/file 2"
	mkfifo "$1/fifo"
	truncate -s 3M "$1/sparse"
}

# Two packages with a configuration file, a link and a directory; the first one in
# two versions.
some_packages() {
	local p v d
	for p in one-1 one-2 two-1; do
		d=$1/$p v=${p#*-}
		mkdir -p "$d/DEBIAN" "$d/etc/${p%-*}" "$d/usr/bin"
		printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: for a test\n' "${p%-*}" "$v" >"$d/DEBIAN/control"
		echo "/etc/${p%-*}/conf" >"$d/DEBIAN/conffiles"
		echo "version $v" >"$d/etc/${p%-*}/conf"
		seq "$v" 300 >"$d/usr/bin/${p%-*}"
		ln -s "${p%-*}" "$d/usr/bin/${p%-*}-link"
		dpkg-deb --build "$d" "$d.deb" >/dev/null
	done
}

work_git() {
	local g="git -c user.name=x -c user.email=x@localhost -c gc.auto=0" i
	rm -rf "$1/origin" "$1/clone"
	$g init -q "$1/origin"
	cp -r "$2/src/a0" "$2/src/a1" "$1/origin"
	for i in 1 2 3; do
		echo "line $i of $3" >>"$1/origin/a1/log"
		mkdir -p "$1/origin/dir$i" && echo $i >"$1/origin/dir$i/file"
		$g -C "$1/origin" add -A
		$g -C "$1/origin" commit -q -m "commit $i"
	done
	$g clone -q "$1/origin" "$1/clone"
	$g -C "$1/clone" checkout -q -b other HEAD~2
	$g -C "$1/clone" mv a1/log a1/moved
	$g -C "$1/clone" commit -q -a -m moved
	$g -C "$1/clone" checkout -q HEAD~1
	$g -C "$1/clone" checkout -q -
	$g -C "$1/clone" gc -q
}

work_dpkg() {
	local d="dpkg --root=$1 --force-script-chrootless --force-not-root --log=/dev/null"
	mkdir -p "$1/var/lib/dpkg/info" "$1/var/lib/dpkg/updates" "$1/var/lib/dpkg/triggers"
	touch "$1/var/lib/dpkg/status"
	$d -i "$2/pkg/one-1.deb" "$2/pkg/two-1.deb"
	echo changed >>"$1/etc/two/conf"
	$d -i "$2/pkg/one-2.deb"
	$d -r two
	[ $(($3 % 2)) = 1 ] || $d -P two one
}

work_tar() {
	tar -C "$2/src" -cf "$2/src.tar" .
	mkdir -p "$1/$(($3 % 2))"
	tar -C "$1/$(($3 % 2))" -xpf "$2/src.tar" # over what an earlier round left
	rm -rf "$1/$((($3 + 1) % 2))"
}

work_rsync() {
	rsync -aHX "$2/src/" "$1/copy"
	date +%N >>"$2/src/a0/b0/file 15"
	rm -f "$2/src/a3/b0/file 3"
	rsync -aHX --delete "$2/src/" "$1/copy"
	rsync -aX --inplace "$2/src/" "$1/inplace"
	rsync -aX --backup --suffix=.was "$2/src/" "$1/inplace"
}

work_sqlite() {
	local mode db
	for mode in wal delete truncate persist; do
		db=$1/$mode.db
		{
			echo "PRAGMA journal_mode=$mode;"
			echo 'CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b TEXT);'
			echo 'BEGIN;'
			seq -f "INSERT INTO t(b) VALUES('row %g');" 200
			echo 'COMMIT;'
			echo 'UPDATE t SET b = b || b WHERE a % 3 = 0; DELETE FROM t WHERE a % 5 = 0;'
			echo 'INSERT INTO t(b) SELECT hex(randomblob(100)) FROM t LIMIT 50; VACUUM;'
		} | sqlite3 "$db"
	done
}

work_stress() {
	local ops=${STRESS_OPS:-40}
	stress-ng --quiet --temp-path "$1" --timeout "${STRESS_TIME:-8}" --no-rand-seed \
		--chattr 1 --chattr-ops "$ops" --chmod 1 --chmod-ops "$ops" --chown 1 --chown-ops "$ops" --copy-file 1 --copy-file-ops 6 --hdd 1 --hdd-ops 200 --hdd-bytes 1M
	stress-ng --quiet --temp-path "$1" --timeout "${STRESS_TIME:-8}" --no-rand-seed \
		--dentry 1 --dentry-ops 200 --dentries 50 --dir 1 --dir-ops 200 --dir-dirs 64 --fallocate 1 --fallocate-ops 6 --fallocate-bytes 1M --filename 1 --filename-ops "$ops" --fpunch 1 --fpunch-ops 4
	stress-ng --quiet --temp-path "$1" --timeout "${STRESS_TIME:-8}" --no-rand-seed \
		--iomix 1 --iomix-bytes 1M --iomix-ops 100 --mknod 1 --mknod-ops 4 --rename 1 --rename-ops 200
	stress-ng --quiet --temp-path "$1" --timeout "${STRESS_TIME:-8}" --no-rand-seed \
		--touch 1 --touch-ops "$ops" --utime 1 --utime-ops "$ops" --xattr 1 --xattr-ops 2 --fsize 1 --fsize-ops 4 --inode-flags 1 --inode-flags-ops 4 --dirmany 1 --dirmany-ops 100 --open 1 --open-ops "$ops"
	[ -z "${STRESS_HEAVY:-}" ] || stress-ng --quiet --temp-path "$1" --timeout "${STRESS_TIME:-8}" --no-rand-seed \
		--link 1 --link-ops 1 --symlink 1 --symlink-ops 1 # thousands of names each
}
