package attribute

import "strings"

// cgroup is what the path of a control group tells.
type cgroup struct{ path, unit, container string }

// cgroup returns what is known of a control group. A path is asked for until
// there is one: ids of the v2 hierarchy are never given twice
// (linux fs/kernfs/dir.c:__kernfs_new_node), and groups do not move in it.
func (t *Table) cgroup(id uint64) cgroup {
	if g := t.groups[id]; g != nil {
		return *g
	}
	if t.o.Cgroup == nil || id == 0 {
		return cgroup{}
	}
	p := t.o.Cgroup(id)
	if p == "" {
		return cgroup{}
	}
	if len(t.groups) >= maxGroups {
		clear(t.groups)
	}
	g := &cgroup{path: text(p), unit: text(unitOf(p)), container: text(containerOf(p))}
	t.groups[id] = g
	return *g
}

// unitOf returns the systemd unit of a control group: the first component below
// the slices that names one, and below a user's manager that manager's unit too,
// "user@1000.service/foo.service" (systemd src/basic/cgroup-util.c:cg_path_get_unit).
func unitOf(p string) string {
	rest := strings.TrimPrefix(p, "/")
	unit, rest := firstUnit(rest)
	if strings.HasPrefix(unit, "user@") && strings.HasSuffix(unit, ".service") {
		if u, _ := firstUnit(rest); u != "" {
			return unit + "/" + u
		}
	}
	return unit
}

func firstUnit(p string) (unit, rest string) {
	for p != "" {
		c, r, _ := strings.Cut(p, "/")
		p = r
		if strings.HasSuffix(c, ".slice") {
			continue
		}
		c = strings.TrimPrefix(c, "_")
		for _, suffix := range [...]string{".service", ".scope", ".socket", ".mount", ".swap"} {
			if len(c) > len(suffix) && strings.HasSuffix(c, suffix) {
				return c, p
			}
		}
		return "", p
	}
	return "", ""
}

// containerOf returns the id of the innermost container that a control group is
// part of: the id of docker, podman, containerd and cri-o, the name of lxc and
// systemd-nspawn.
func containerOf(p string) string {
	id, before := "", ""
	for c := range strings.SplitSeq(p, "/") {
		if x := containerName(before, c); x != "" {
			id = x
		}
		before = c
	}
	return id
}

func containerName(parent, c string) string {
	scope := strings.TrimSuffix(c, ".scope")
	for _, p := range [...]string{"docker-", "crio-", "cri-containerd-", "libpod-", "nerdctl-", "containerd-"} {
		if x, ok := strings.CutPrefix(scope, p); ok && isHex(x, 12) {
			return x
		}
	}
	if isHex(c, 32) && c == scope {
		switch {
		case parent == "docker", parent == "libpod_parent", parent == "buildkit", strings.HasPrefix(parent, "kubepods"),
			strings.HasPrefix(parent, "pod"), parent == "ecs", parent == "default", parent == "k8s.io", parent == "moby":
			return c
		}
		if isHex(parent, 32) { // /ecs/TASK/CONTAINER
			return c
		}
	}
	if x, ok := strings.CutPrefix(c, "lxc.payload."); ok {
		return x
	}
	if parent == "lxc" || parent == "lxc.payload" {
		return c
	}
	if x, ok := strings.CutPrefix(c, "systemd-nspawn@"); ok {
		return unescape(strings.TrimSuffix(x, ".service"))
	}
	if x, ok := strings.CutPrefix(scope, "machine-"); ok && scope != c {
		if x = unescape(x); !strings.HasPrefix(x, "qemu-") && !strings.HasPrefix(x, "lxc-") {
			return x
		} else if y, ok := strings.CutPrefix(x, "lxc-"); ok {
			return y
		}
	}
	return ""
}

// unescape undoes systemd's \xNN in unit names (systemd.unit(5)).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			h, l := hexDigit(s[i+2]), hexDigit(s[i+3])
			if h >= 0 && l >= 0 {
				b.WriteByte(byte(h<<4 | l))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

func isHex(s string, atLeast int) bool {
	for i := 0; i < len(s); i++ {
		if hexDigit(s[i]) < 0 {
			return false
		}
	}
	return len(s) >= atLeast
}
