#!/bin/bash
# zoo.sh VERB DIR works on a directory of files of every kind.
#
#	make    one directory for each damage below, and in it one file of each kind
#	damage  do to each of these directories what its name says
#	list    print all that other programs know of the tree, in an order of its own
#
# What a file system lacks is left out by make: a kind that cannot be made is not there.
set -uo pipefail
export LC_ALL=C
cd "$2"
damages='appended overwritten truncated deleted renamed replaced linked directory fifo chmod chown touched attributes acl caps flags immutable emptied unharmed'
long=$(printf 'n%.0s' {1..255})

make() {
	mkdir $damages
	for d in $damages; do
		cd "$d"
		echo plain >plain; : >empty; echo mode0 >mode0; echo mode7777 >mode7777; echo old >old; echo late >late
		echo $'not UTF-8' >$'\xff\xfe'; echo newline >$'new\nline'; echo long >"$long"; echo dash >-dash; echo blank >' '; echo glob >'*?[]\x41'
		truncate -s 300K holes; printf middle | dd of=holes bs=1 seek=131072 conv=notrunc status=none
		truncate -s 3M hole; truncate -s 2M tail; printf end >>tail
		head -c 1500000 /bin/bash >long; cp /bin/true program
		echo xattr >xattr; echo bigxattr >bigxattr; echo acl >acl; echo group >group; echo time >time
		mkdir dir acldir sub full; echo in >full/a; echo in >full/b; mkdir full/deeper; echo in >full/deeper/c
		ln -s plain link; ln -s /nowhere/at/all dangling; ln -s "$(printf '/x%.0s' {1..1000})" longlink
		mkfifo fifo; mknod char c 1 3; mknod block b 7 200
		echo three >h1; ln h1 h2; ln h1 sub/h3; echo set >hx1; ln hx1 hx2; mkfifo hfifo1; ln hfifo1 hfifo2; ln -s to hlink1; ln -P hlink1 hlink2
		for f in A c C d j m s S t u x; do echo flag >"flag-$f"; done
		for f in D T C; do mkdir "dirflag-$f"; done
		echo still >flag-i; echo log >flag-a; echo both >flag-ia; mkdir dirflag-i; echo in >dirflag-i/in
		echo proj >project; mkdir projdir
		cd ..
	done
	chown 1:2 */plain; chmod 640 */plain; chmod 0 */mode0; chmod 7777 */mode7777 */dir; chown -h 5:6 */link */fifo */char
	chown 7:8 */program; chmod 6755 */program; setcap cap_net_raw,cap_net_admin=ep unharmed/program
	for d in $damages; do setcap cap_net_raw,cap_net_admin=ep "$d/program"; done
	setfacl -m u:33:r,g:34:rx */program */acl */hx1; setfacl -m u:33:rx,d:u:33:rwx,d:g:44:r */acldir
	setfattr -n user.a -v 1 */xattr */program */hx1 */dir; setfattr -n user.empty */xattr; setfattr -n user.bin -v 0x00ff0a00 */xattr
	setfattr -n trusted.b -v 22 */xattr */link */fifo */char -h; setfattr -n security.mine -v 3 */xattr
	setfattr -n user.big -v "$(head -c 2000 /dev/zero | tr '\0' x)" */bigxattr
	chmod 2750 */group */sub
	for f in A c C d j m s S t u x; do chattr "+$f" */"flag-$f" 2>/dev/null || rm -f */"flag-$f"; done
	for f in D T C; do chattr "+$f" */"dirflag-$f" 2>/dev/null || rm -rf */"dirflag-$f"; done
	chattr -p 77 */project 2>/dev/null && chattr -p 78 +P */projdir 2>/dev/null || rm -rf */project */projdir
	touch -h -d '2001-02-03 04:05:06.123456789' */plain */h1 */fifo */char */empty; touch -h -d 2002-02-02 */link */hlink1
	touch -d 1969-12-31T01:02:03.5Z */old; touch -d 2105-01-01T00:00:00.999999999Z */late; touch -d 2010-01-01 */holes */program
	touch -d 2011-11-11T11:11:11.111111111Z */full */full/deeper */dir */sub; touch -d 2012-12-12 $damages
	chattr +i */flag-i */dirflag-i 2>/dev/null; chattr +a */flag-a 2>/dev/null; chattr +ia */flag-ia 2>/dev/null
	return 0
}

regular() { find "$1" -type f -print0; }

damage() {
	chattr -R -ia $damages 2>/dev/null
	regular appended | xargs -0 sh -c 'for f; do printf evil >>"$f"; done' sh
	regular overwritten | xargs -0 sh -c 'for f; do t=$(stat -c %y "$f"); printf X | dd of="$f" bs=1 conv=notrunc status=none; touch -d "$t" "$f"; done' sh
	regular truncated | xargs -0 truncate -s 1
	find deleted -mindepth 1 -delete
	for d in renamed; do (cd $d; for f in * ' '; do mv -- "$f" "gone${#f}$RANDOM$RANDOM"; done) 2>/dev/null; done
	(cd replaced; for f in *; do [ -f "$f" ] && { echo evil >.new; mv -T .new "./$f"; }; done)
	(cd linked; for f in *; do rm -rf "./$f"; ln -s /etc/passwd "./$f"; done)
	(cd directory; for f in *; do rm -rf "./$f"; mkdir -p "./$f/evil"; echo evil >"./$f/evil/file"; done; chattr +i plain/evil 2>/dev/null)
	(cd fifo; for f in *; do rm -rf "./$f"; mkfifo "./$f"; done)
	find chmod ! -type l -exec chmod 4777 {} +
	find chown -exec chown -h 1234:4321 {} +
	find touched -exec touch -h -d 2020-02-20 {} +
	find attributes -exec setfattr -h -n trusted.evil -v 1 {} + ; find attributes ! -type l -exec setfattr -x user.a {} + 2>/dev/null
	find acl ! -type l -exec setfacl -m u:666:rwx,g:34:- {} + ; find acl -type d -exec setfacl -k {} +
	regular caps | xargs -0 -n1 setcap cap_sys_admin=ep
	find flags \( -type f -o -type d \) -exec chattr -f -A -d -S -j -t +d {} + 2>/dev/null; find flags -type f -exec chattr -f -p 5 {} + 2>/dev/null
	find immutable -type f -exec sh -c 'echo evil >>"$1"; chattr +ia "$1"' sh {} \; 2>/dev/null; chattr +i immutable/sub immutable/full immutable 2>/dev/null
	rm -r emptied
	echo evil >unharmed/new; mkdir -p new/deep; echo evil >new/deep/file; mkfifo new/fifo; ln unharmed/plain unharmed/another
	touch -d '2001-02-03 04:05:06.123456789' unharmed/plain
	return 0
}

# list leaves out what is the file system's affair: how data is laid out (e) and
# directories are indexed (I), sizes of directories, link counts of these, and
# inode numbers, of which it tells only who shares one.
list() {
	find . ! -type d -print0 | sort -z | xargs -0 stat -c '%N %F %a %u:%g %y %s %t:%T %h'
	find . -type d -print0 | sort -z | xargs -0 stat -c '%N %F %a %u:%g %y'
	find . ! -type d -links +1 -printf '%i %p\0' | sort -zn | awk 'BEGIN { RS = "\0" } { i = $1; sub(/^[0-9]+ /, ""); m[i] = m[i] " " $0 } END { for (i in m) print "one inode:" m[i] }' | sort
	find . -type f -print0 | sort -z | xargs -0 b3sum
	find . \( -type f -o -type d \) -print0 | sort -z | xargs -0 lsattr -dp 2>/dev/null | awk '{ p = $1; f = $2; gsub(/[-eI]/, "", f); $1 = $2 = ""; print "project " p, "flags " f, $0 }'
	getfattr -Rhd -m - -e hex -P . 2>/dev/null | awk 'BEGIN { RS = ""; FS = "\n" } { n = $1; for (i = 2; i <= NF; i++) print n, $i }' | sort
	find . ! -type l -print0 | sort -z | xargs -0 getfacl -pn
	getcap -r . | sort
	return 0
}

"$1"
