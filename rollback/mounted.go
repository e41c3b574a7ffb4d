package rollback

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// A file that is bind-mounted somewhere, as container runtimes do with single
// files, stays mounted when a restore displaces it: the mount goes on showing the
// displaced inode. Mounts name their root by its present path (linux v6.1
// fs/proc_namespace.c:show_mountinfo), which after the exchange has the token of
// the restore in it, in each mount namespace.

// namespaces remembers one process of each mount namespace for a moment.
type namespaces struct {
	mu     sync.Mutex
	looked time.Time
	procs  []string // their directories in /proc
}

// namespacesFor is how long a list of them is good for.
const namespacesFor = time.Second

// list returns the directory in /proc of one process of each mount namespace,
// our own first.
func (n *namespaces) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); n.procs == nil || now.Sub(n.looked) > namespacesFor {
		n.looked, n.procs = now, mountNamespaces()
	}
	return n.procs
}

func mountNamespaces() []string {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	seen, procs := map[string]bool{own: true}, []string{"/proc/self"}
	d, err := os.Open("/proc")
	if err != nil {
		return procs
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		dir := filepath.Join("/proc", name)
		if ns, err := os.Readlink(dir + "/ns/mnt"); err == nil && !seen[ns] {
			seen[ns] = true
			procs = append(procs, dir)
		}
	}
	return procs
}

// stillMounted lists where the inode with token in its name is mounted, at most a few.
func (s *Store) stillMounted(token string) []string {
	var out []string
	for _, dir := range s.namespaces.list() {
		b, err := os.ReadFile(dir + "/mountinfo")
		if err != nil {
			continue // the process has ended
		}
		for _, line := range strings.Split(string(b), "\n") {
			f := strings.Fields(line) // id parent device root point …
			if len(f) < 5 || !strings.Contains(f[3], token) || len(out) == maxMounted {
				continue
			}
			where := event.Text([]byte(f[4]))
			if dir != "/proc/self" {
				where += " of process " + filepath.Base(dir)
			}
			out = append(out, where)
		}
	}
	return out
}

// maxMounted bounds the mounts that a result names.
const maxMounted = 8

// noteMounts says where the displaced inode is still mounted.
func (j *job) noteMounts() {
	if j.kept == "" && !j.stuck || j.have.Type == "" || j.token == "" {
		return
	}
	if at := j.s.stillMounted(j.token[:8]); len(at) > 0 {
		j.note("mounted at " + strings.Join(at, ", ") + ", which goes on showing the displaced file: mount it again")
	}
}
