package attribute

import (
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestWho(t *testing.T) {
	const addr = "10.0.0.1:5555"
	for _, c := range []struct {
		name string
		run  func(m *machine, init *task) *task // returns who writes
		want string
	}{
		{"a person who comes over ssh and becomes root by sudo stays the person",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				sudo := sh.run("/usr/bin/sudo", "sed")
				return sudo.fork().become(0).exec("/usr/bin/sed", "-i", "s/a/b/", "/etc/x")
			},
			"alice 0/0 [sudo] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/sed -i s/a/b/ /etc/x < sudo < bash < sshd < sshd"},
		{"a plain command over ssh is by the person and through nothing",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/usr/bin/touch", "x")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/touch x < bash < sshd < sshd"},
		{"the split sshd-session of OpenSSH 10 is ssh too",
			func(m *machine, init *task) *task {
				mon := m.sshd(init).run("/usr/lib/openssh/sshd-session", "-R").opens(9, 1000, "[::ffff:192.0.2.7]:40000", event.HowHeld)
				return mon.fork().become(1000).fork().exec("/usr/bin/bash", "-c", "x").run("/usr/bin/tee", "x")
			},
			"alice 1000/1000 login-9 ssh 192.0.2.7:40000 accepted_socket | /usr/bin/tee x < bash < sshd-session < sshd-session"},
		{"sudo itself writes as sudo",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/usr/bin/sudo", "ls")
			},
			"alice 1000/0 [sudo] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/sudo ls < bash < sshd < sshd"},
		{"su to a second user keeps the first",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/usr/bin/su", "-", "bob").fork().become(1001).exec("/usr/bin/bash", "-l").run("/usr/bin/vi", "f")
			},
			"alice 1001/1001 [su] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/vi f < bash < su < bash < sshd < sshd"},
		{"sudo and then su are both named in order",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				su := sh.run("/usr/bin/sudo", "su", "bob").fork().become(0).exec("/usr/bin/su", "bob")
				return su.fork().become(1001).exec("/usr/bin/bash")
			},
			"alice 1001/1001 [sudo su] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/bash < su < sudo < bash < sshd < sshd"},
		{"doas which executes in place is a step of the chain",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/usr/bin/doas", "sed").become(0).exec("/usr/bin/sed", "-i")
			},
			"alice 0/0 [doas] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/sed -i < doas < bash < sshd < sshd"},
		{"sudo to oneself changes nothing and is not a way to credentials",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/usr/bin/sudo", "-u", "alice", "id").fork().become(1000).exec("/usr/bin/id")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/id < sudo < bash < sshd < sshd"},
		{"root who logs in and runs su has come by su",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(8, 0, addr)
				return sh.run("/usr/bin/su", "bob").fork().become(1001).exec("/usr/bin/bash")
			},
			"root 1001/1001 [su] login-8 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/bash < su < bash < sshd < sshd"},
		{"a setuid program is named by its path",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/usr/bin/passwd")
			},
			"alice 1000/0 [setuid:/usr/bin/passwd] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/passwd < bash < sshd < sshd"},
		{"what a setuid program starts keeps its name",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/tmp/rootsh").become(0).exec("/usr/bin/bash", "-p").run("/usr/bin/tee")
			},
			"alice 0/0 [setuid:/tmp/rootsh] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/tee < bash < rootsh < bash < sshd < sshd"},
		{"a setuid program that calls itself sudo outside the system's directories is named by its path",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/home/alice/sudo").become(0).exec("/usr/bin/sed")
			},
			"alice 0/0 [setuid:/home/alice/sudo] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/sed < sudo < bash < sshd < sshd"},
		{"a setgid program is named by its path",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/usr/bin/crontab", "-e")
			},
			"alice 1000/1000 [setgid:/usr/bin/crontab] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/crontab -e < bash < sshd < sshd"},
		{"a setuid program that has dropped its rights again is no way to them",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/tmp/rootsh").become(1000).exec("/usr/bin/bash").run("/usr/bin/tee")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/tee < bash < rootsh < bash < sshd < sshd"},
		{"sudo after a setuid program that dropped its rights is the only way",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/tmp/rootsh").become(1000).fork().exec("/usr/bin/sudo", "id").fork().become(0).exec("/usr/bin/id")
			},
			"alice 0/0 [sudo] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/id < sudo < rootsh < bash < sshd < sshd"},
		{"a setuid program that passes on only its effective id is a way",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/tmp/rootsh").exec("/usr/bin/tee")
			},
			"alice 1000/0 [setuid:/tmp/rootsh] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/tee < rootsh < bash < sshd < sshd"},
		{"sftp inside sshd writes as the person",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.parent
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/sbin/sshd -D -R < sshd"},
		{"root that nothing explains is unknown and not silent",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/tmp/exploit").become(0)
			},
			"alice 0/0 [unknown] login-7 ssh 10.0.0.1:5555 accepted_socket | /tmp/exploit < bash < sshd < sshd"},
		{"work that goes on after the logout is still the person's",
			func(m *machine, init *task) *task {
				mon, sh := m.sshd(init).accept(7, 1000, addr)
				job := sh.run("/usr/bin/nohup", "job").exec("/home/alice/job")
				sh.exit()
				sh.parent.exit()
				mon.exit()
				job.parent = init
				return job.fork().fork().exec("/usr/bin/tee", "x")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/tee x < job < job < nohup < bash < sshd < sshd"},
		{"a shell that redirects is the forked copy with the shell's program",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.fork()
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/bash -l < bash < sshd < sshd"},
		{"a program that executes itself through a mount that is nowhere keeps its name",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				return sh.run("/usr/bin/crun", "create").clones().run("/bin/busybox")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /bin/busybox < crun < crun < bash < sshd < sshd"},
		{"a program in a mount that is nowhere, and that nobody executed elsewhere, has no name",
			func(m *machine, init *task) *task {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				p := sh.run("/usr/bin/crun", "create")
				p.ino++
				return p.clones()
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | unknown create (none) < crun < bash < sshd < sshd"},
		{"an inherited connection is evidence of its own",
			func(m *machine, init *task) *task {
				return m.sshd(init).run("/usr/sbin/sshd", "-R").opens(7, 1000, addr, event.HowInherited)
			},
			"alice 0/0 login-7 ssh 10.0.0.1:5555 inherited | /usr/sbin/sshd -R"},
		{"a login over the network that is not ssh is not called ssh",
			func(m *machine, init *task) *task {
				return init.run("/usr/sbin/telnetd").run("/usr/bin/login").opens(7, 1000, addr, event.HowInherited)
			},
			"alice 0/0 login-7 unknown 10.0.0.1:5555 inherited | /usr/bin/login"},
		{"a login on the console has no address",
			func(m *machine, init *task) *task {
				l := init.run("/sbin/agetty", "tty1").exec("/usr/bin/login", "-p").opens(3, 1000, "", event.HowNone)
				return l.fork().become(1000).exec("/usr/bin/bash").run("/usr/bin/vi")
			},
			"alice 1000/1000 login-3 console - login | /usr/bin/vi < bash < login"},
		{"a cron job is cron's, whoever restarted cron over ssh",
			func(m *machine, init *task) *task {
				cron := init.run("/usr/sbin/cron", "-f")
				job := cron.fork().opens(12, 1000, addr, event.HowInherited)
				return job.fork().become(1000).exec("/bin/sh", "-c", "backup").run("/usr/bin/tar")
			},
			"alice 1000/1000 login-12 cron - login | /usr/bin/tar < sh < cron"},
		{"cron without logins is known by its unit",
			func(m *machine, init *task) *task {
				cron := init.fork().group(5, "/system.slice/cron.service").exec("/usr/sbin/cron", "-f")
				return cron.fork().fork().exec("/bin/sh", "-c", "backup")
			},
			"unknown 0/0 svc-100 cron - unit | /bin/sh -c backup < cron < cron"},
		{"cron on a machine without units is known by the ancestor",
			func(m *machine, init *task) *task {
				cron := init.fork().group(1, "/").exec("/usr/sbin/crond")
				return cron.fork().fork().exec("/bin/sh")
			},
			"unknown 0/0 svc-100 cron - ancestor | /bin/sh < crond < crond"},
		{"an at job is at's",
			func(m *machine, init *task) *task {
				return init.run("/usr/sbin/atd").fork().opens(4, 1001, "", event.HowNone).fork().become(1001).exec("/bin/sh")
			},
			"bob 1001/1001 login-4 at - login | /bin/sh < atd"},
		{"a service is its unit and nobody's",
			func(m *machine, init *task) *task {
				ng := init.fork().group(6, "/system.slice/nginx.service").exec("/usr/sbin/nginx")
				return ng.fork().become(33)
			},
			"unknown 33/33 svc-100 systemd - unit | /usr/sbin/nginx < nginx"},
		{"a user's own unit is the user's session of systemd",
			func(m *machine, init *task) *task {
				um := init.fork().group(7, "/user.slice/user-1000.slice/user@1000.service/init.scope").opens(5, 1000, "", event.HowNone)
				um.become(1000).exec("/usr/lib/systemd/systemd", "--user")
				return um.fork().group(8, "/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service").exec("/usr/bin/sync-it")
			},
			"alice 1000/1000 login-5 systemd - login | /usr/bin/sync-it < systemd"},
		{"what runs in a container is the container's, from its first process",
			func(m *machine, init *task) *task {
				id := "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
				shim := init.fork().group(9, "/system.slice/containerd.service").exec("/usr/bin/containerd-shim-runc-v2")
				first := shim.run("/usr/bin/runc", "init").group(10, "/system.slice/docker-"+id+".scope").exec("/entrypoint.sh")
				return first.run("/usr/bin/tee", "x")
			},
			"unknown 0/0 svc-101 container - cgroup | /usr/bin/tee x < entrypoint.sh < runc < containerd-shim-runc-v2"},
		{"a kernel thread is the kernel's",
			func(m *machine, init *task) *task {
				k := &task{m: m, key: event.ProcKey{PID: 2, Start: 11}, login: event.Unset, audit: event.Unset, kthread: true, comm: "kthreadd", cgroup: 1}
				k.scan()
				w := k.fork()
				w.comm = "kworker/0:1"
				return w
			},
			"unknown 0/0 kernel kernel - kernel | "},
		{"a program that the kernel starts is the kernel's",
			func(m *machine, init *task) *task {
				k := &task{m: m, key: event.ProcKey{PID: 2, Start: 11}, login: event.Unset, audit: event.Unset, kthread: true, comm: "kthreadd", cgroup: 1}
				k.scan()
				h := k.fork().fork()
				h.kthread = false
				return h.exec("/sbin/modprobe", "x")
			},
			"unknown 0/0 svc-101 kernel - ancestor | /sbin/modprobe x"},
		{"without a login, unit or cron nothing is claimed",
			func(m *machine, init *task) *task {
				return init.fork().group(1, "/").exec("/opt/thing").run("/opt/other")
			},
			"unknown 0/0 svc-100 unknown - none | /opt/other < thing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, Options{})
			p := c.run(m, m.init())
			if got := says(p.writes()); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}
