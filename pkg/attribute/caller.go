package attribute

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// LiveInfo is what /proc tells of a process at one moment and an event would.
type LiveInfo struct {
	Ticks          uint64 // as ProcInfo
	ExeDev, ExeIno uint64 // as kernel dev_t
	Creds          event.Creds
	Login, Audit   uint32
	MntNS          uint32
	Comm, TTY      string // TTY as the kernel names it
}

// Caller tells who is behind a living process, as Who does for an event of it at
// the moment now. It is false while the program that the process runs is another
// than the table knows: its exec may still be on its way here.
func (t *Table) Caller(pid uint32, now uint64) (event.Actor, event.Process, bool) {
	n := t.pids[pid]
	if n == nil || n.exited != 0 || n.image == nil || t.o.Live == nil {
		return event.Actor{}, event.Process{}, false
	}
	p, err := t.o.Live(pid)
	if err != nil || p.Ticks != n.key.Start/nsPerTick || n.image.ino != 0 && !sameInode(p.ExeDev, p.ExeIno, n.image.dev, n.image.ino) {
		return event.Actor{}, event.Process{}, false
	}
	ev := event.Event{
		Time: now, Key: n.key, TID: pid, Creds: p.Creds, Login: p.Login, Audit: p.Audit, Cgroup: n.cgroup, MntNS: p.MntNS,
		ExeDev: n.image.dev, ExeIno: n.image.ino,
	}
	copy(ev.Comm[:len(ev.Comm)-1], p.Comm)
	copy(ev.TTY[:len(ev.TTY)-1], p.TTY)
	a, proc := t.Who(&ev)
	return a, proc, true
}

// readLive reads /proc/PID through one descriptor of the directory, as readProc.
func readLive(pid uint32) (LiveInfo, error) {
	var p LiveInfo
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10)
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(d)
	files := make(map[string][]byte)
	for _, name := range []string{"stat", "status", "loginuid", "sessionid"} {
		if files[name], err = readAt(d, name, 1<<16); err != nil {
			return p, fmt.Errorf("read %s/%s: %w", dir, name, err)
		}
	}
	st, err := exeInode(d)
	if err != nil {
		return p, fmt.Errorf("stat %s/exe: %w", dir, err)
	}
	p.ExeDev, p.ExeIno = kernelDev(st.Dev), st.Ino
	if err := unix.Fstatat(d, "ns/mnt", &st, 0); err != nil {
		return p, fmt.Errorf("stat %s/ns/mnt: %w", dir, err)
	}
	p.MntNS = uint32(st.Ino)
	if err := p.parse(files); err != nil {
		return p, fmt.Errorf("read %s: %w", dir, err)
	}
	return p, nil
}

// parse takes in the text of the files (proc(5)).
func (p *LiveInfo) parse(files map[string][]byte) (err error) {
	if p.Ticks, err = startTicks(files["stat"]); err != nil {
		return err
	}
	open, end := bytes.IndexByte(files["stat"], '('), bytes.LastIndexByte(files["stat"], ')')
	p.Comm = string(files["stat"][open+1 : end])
	nr, err := strconv.ParseUint(string(bytes.Fields(files["stat"][end+1:])[4]), 10, 32) // field 7
	if err != nil {
		return err
	}
	p.TTY = ttyName(uint32(nr))
	for name, n := range map[string]*uint32{"loginuid": &p.Login, "sessionid": &p.Audit} {
		v, err := strconv.ParseUint(strings.TrimSpace(string(files[name])), 10, 32)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		*n = uint32(v)
	}
	c := &p.Creds
	for line := range strings.Lines(string(files["status"])) {
		var err error
		switch {
		case strings.HasPrefix(line, "Uid:"):
			_, err = fmt.Sscan(line[4:], &c.UID, &c.EUID, &c.SUID, &c.FSUID)
		case strings.HasPrefix(line, "Gid:"):
			_, err = fmt.Sscan(line[4:], &c.GID, &c.EGID, &c.SGID, &c.FSGID)
		}
		if err != nil {
			return fmt.Errorf("status: %w", err)
		}
	}
	return nil
}

// ttyName is the kernel's name of a terminal's device number (linux
// Documentation/admin-guide/devices.txt), "" for none and for rare ones.
func ttyName(nr uint32) string {
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	switch {
	case major == 136:
		return fmt.Sprintf("pts%d", minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return ""
}
