package digest

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

// names maps numeric ids to names as one file of the passwd(5) or group(5) form
// has them now. It looks at the file's identity at most every recheck, so that a
// scan of many files does not stat it for each.
type names struct {
	file    string
	recheck time.Duration

	mu     sync.Mutex
	looked time.Time
	stamp  fileStamp
	byID   map[uint32]string
}

type fileStamp struct {
	size  int64
	mtime time.Time
}

// accounts is the machine's two account files. The values are a cache of what
// is on disk: the package's answers do not depend on what was asked before.
var accounts = struct{ users, groups names }{
	users:  names{file: "/etc/passwd", recheck: 100 * time.Millisecond},
	groups: names{file: "/etc/group", recheck: 100 * time.Millisecond},
}

// UserName returns the name of uid in /etc/passwd, "" if it has none.
func UserName(uid uint32) string { return accounts.users.name(uid) }

// GroupName returns the name of gid in /etc/group, "" if it has none.
func GroupName(gid uint32) string { return accounts.groups.name(gid) }

func (n *names) name(id uint32) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); now.Sub(n.looked) >= n.recheck {
		n.looked = now
		n.refresh()
	}
	return n.byID[id]
}

// refresh reads the file if it is another one than last time. A file that
// cannot be read leaves no names: a number is better than a stale name.
func (n *names) refresh() {
	f, err := os.Open(n.file)
	if err != nil {
		n.byID, n.stamp = nil, fileStamp{}
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		n.byID, n.stamp = nil, fileStamp{}
		return
	}
	stamp := fileStamp{fi.Size(), fi.ModTime()}
	if n.byID != nil && stamp == n.stamp {
		return
	}
	n.byID, n.stamp = parseNames(f), stamp
}

// parseNames reads "name:password:id:..." lines; the first name of an id counts,
// as with getpwuid(3). Lines of another form are passed over.
func parseNames(r io.Reader) map[uint32]string {
	m := map[uint32]string{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := bytes.SplitN(s.Bytes(), []byte(":"), 4)
		if len(f) < 3 || len(f[0]) == 0 {
			continue
		}
		id, err := strconv.ParseUint(string(f[2]), 10, 32)
		if err != nil {
			continue
		}
		if _, ok := m[uint32(id)]; !ok {
			m[uint32(id)] = string(f[0])
		}
	}
	return m
}
