package clickhouse

import (
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// column is one column of the table records: what it must hold for a row.
type column struct {
	name string
	// slice returns the values of all rows as the driver takes them, a []T.
	slice func(vs []view) any
	// dest returns a new *T for the driver to scan into.
	dest func() any
	// holds reports whether the scanned *T is what v must have there.
	holds func(dest any, v *view) bool
}

func col[T any](name string, value func(v *view) T) column {
	return column{
		name: name,
		slice: func(vs []view) any {
			out := make([]T, len(vs))
			for i := range vs {
				out[i] = value(&vs[i])
			}
			return out
		},
		dest:  func() any { return new(T) },
		holds: func(dest any, v *view) bool { return same(*dest.(*T), value(v)) },
	}
}

// same compares a value that came back with the one that was meant: times by the
// moment, and an empty list or map is none.
func same(a, b any) bool {
	if t, ok := a.(time.Time); ok {
		return t.Equal(b.(time.Time))
	}
	v, w := reflect.ValueOf(a), reflect.ValueOf(b)
	switch v.Kind() {
	case reflect.Slice:
		if v.Len() != w.Len() {
			return false
		}
		for i := range v.Len() {
			if !same(v.Index(i).Interface(), w.Index(i).Interface()) {
				return false
			}
		}
		return true
	case reflect.Map:
		return v.Len() == 0 && w.Len() == 0 || reflect.DeepEqual(a, b)
	}
	return reflect.DeepEqual(a, b)
}

// columns lists what Insert writes, in no particular order: the statement names
// them. A test keeps them, the schema and event.Record in step.
func columns() []column {
	cs := []column{
		col("host", func(v *view) string { return v.Host }),
		col("host_id", func(v *view) string { return v.HostID }),
		col("boot", func(v *view) string { return v.Boot }),
		col("seq", func(v *view) uint64 { return v.Seq }),
		col("time", func(v *view) time.Time { return stamp(v.Time) }),
		col("time_end", func(v *view) time.Time { return stamp(v.TimeEnd) }),
		col("kind", func(v *view) string { return v.Kind }),
		col("op", func(v *view) string { return v.Op }),
		col("ops", func(v *view) []string { return v.Ops }),
		col("count", func(v *view) uint64 { return v.Count }),
		col("bytes", func(v *view) uint64 { return v.Bytes }),
		col("path", func(v *view) string { return v.Path }),
		col("path_to", func(v *view) string { return v.PathTo }),
		col("path_seen", func(v *view) string { return v.PathSeen }),
		col("file_type", func(v *view) string { return v.file.Type }),
		col("file_dev", func(v *view) uint64 { return v.file.Dev }),
		col("file_ino", func(v *view) uint64 { return v.file.Ino }),
		col("file_gen", func(v *view) uint32 { return v.file.Gen }),
		col("file_nlink", func(v *view) uint32 { return v.file.Nlink }),
		col("rule", func(v *view) string { return v.Rule }),
		col("mode", func(v *view) string { return v.Mode }),
		col("verdict", func(v *view) string { return v.Verdict }),
		col("reason", func(v *view) string { return v.Reason }),
		col("meaning", func(v *view) []string { return v.Meaning }),
		col("found", func(v *view) string { return v.Found }),
		col("response_action", func(v *view) string { return v.response.Action }),
		col("response_outcome", func(v *view) string { return v.response.Outcome }),
		col("response_took_ns", func(v *view) uint64 { return v.response.TookNS }),
		col("response_of", func(v *view) string { return v.response.Of }),
		col("response_evidence", func(v *view) string { return v.response.Evidence }),
		col("response_error", func(v *view) string { return v.response.Error }),
		col("gap_lost", func(v *view) uint64 { return v.gap.Lost }),
		col("gap_from", func(v *view) time.Time { return stamp(v.gap.From) }),
		col("gap_to", func(v *view) time.Time { return stamp(v.gap.To) }),
		col("gap_trees", func(v *view) []string { return v.gap.Trees }),
		col("gap_rescan", func(v *view) string { return v.gap.Rescan }),
		col("gap_causes", func(v *view) []string { return v.gap.Causes }),
		col("gap_of", func(v *view) string { return v.gap.Of }),
		col("gap_looked", func(v *view) uint64 { return v.gap.Looked }),
		col("gap_changes", func(v *view) uint64 { return v.gap.Changes }),
		col("sensor_tier", func(v *view) string { return v.sensor.Tier }),
		col("sensor_hook", func(v *view) string { return v.sensor.Hook }),
		col("detail", func(v *view) map[string]string { return v.Detail }),
		col("rec", func(v *view) string { return string(v.rec) }),
	}
	cs = append(cs, stateColumns("before_", func(v *view) (*event.State, bool) { return v.before, v.had })...)
	cs = append(cs, stateColumns("after_", func(v *view) (*event.State, bool) { return v.after, v.has })...)
	cs = append(cs, actorColumns()...)
	cs = append(cs, processColumns()...)
	cs = append(cs, factColumns()...)
	cs = append(cs, idColumns("credential_before_", func(v *view) *event.Ids { return &v.credential.Before })...)
	return append(cs, idColumns("credential_after_", func(v *view) *event.Ids { return &v.credential.After })...)
}

func stateColumns(prefix string, of func(*view) (*event.State, bool)) []column {
	s := func(v *view) *event.State { st, _ := of(v); return st }
	return []column{
		col(prefix+"exists", func(v *view) *bool { st, known := of(v); return existence(known, st.Exists) }),
		col(prefix+"type", func(v *view) string { return s(v).Type }),
		col(prefix+"hash", func(v *view) string { return digest(s(v).Hash) }),
		col(prefix+"size", func(v *view) uint64 { return s(v).Size }),
		col(prefix+"mode", func(v *view) uint16 { return uint16(s(v).Mode) }),
		col(prefix+"uid", func(v *view) uint32 { return owner(s(v), s(v).UID) }),
		col(prefix+"gid", func(v *view) uint32 { return owner(s(v), s(v).GID) }),
		col(prefix+"user", func(v *view) string { return s(v).User }),
		col(prefix+"group", func(v *view) string { return s(v).Group }),
		col(prefix+"mtime", func(v *view) time.Time { return stamp(s(v).Mtime) }),
		col(prefix+"target", func(v *view) string { return event.Text(s(v).Target) }),
		col(prefix+"rdev", func(v *view) uint64 { return s(v).Rdev }),
		col(prefix+"xattrs", func(v *view) map[string]string { return texts(s(v).Xattrs) }),
		col(prefix+"acl", func(v *view) string { return s(v).ACLText() }),
		col(prefix+"flags", func(v *view) string { return s(v).FlagsText() }),
		col(prefix+"caps", func(v *view) string { return s(v).CapsText() }),
		col(prefix+"project", func(v *view) uint32 { return s(v).Project }),
	}
}

// owner is id where there is something to own.
func owner(s *event.State, id uint32) uint32 {
	if !s.Exists {
		return event.Unset
	}
	return id
}

func actorColumns() []column {
	return []column{
		col("actor_user", func(v *view) string { return v.actor.User }),
		col("actor_loginuid", func(v *view) uint32 { return v.actor.Loginuid }),
		col("actor_uid", func(v *view) uint32 { return v.actor.UID }),
		col("actor_euid", func(v *view) uint32 { return v.actor.EUID }),
		col("actor_suid", func(v *view) uint32 { return v.actor.SUID }),
		col("actor_fsuid", func(v *view) uint32 { return v.actor.FSUID }),
		col("actor_gid", func(v *view) uint32 { return v.actor.GID }),
		col("actor_egid", func(v *view) uint32 { return v.actor.EGID }),
		col("actor_fsgid", func(v *view) uint32 { return v.actor.FSGID }),
		col("actor_via", func(v *view) []string { return v.actor.Via }),
		col("actor_session", func(v *view) string { return v.actor.Session }),
		col("actor_origin", func(v *view) string { return v.actor.Origin }),
		col("actor_tty", func(v *view) string { return v.actor.TTY }),
		col("actor_source_ip", func(v *view) netip.Addr { return sourceIP(v.actor.SourceIP) }),
		col("actor_source_port", func(v *view) uint16 { return v.actor.SourcePort }),
		col("actor_evidence", func(v *view) string { return v.actor.Evidence }),
		col("actor_peers", func(v *view) []string { return v.actor.Peers }),
	}
}

func processColumns() []column {
	return []column{
		col("process_pid", func(v *view) uint32 { return v.process.PID }),
		col("process_tid", func(v *view) uint32 { return v.process.TID }),
		col("process_exec_id", func(v *view) string { return v.process.ExecID }),
		col("process_comm", func(v *view) string { return v.process.Comm }),
		col("process_exe", func(v *view) string { return v.process.Exe }),
		col("process_exe_hash", func(v *view) string { return digest(v.process.ExeHash) }),
		col("process_script", func(v *view) string { return v.process.Script }),
		col("process_argv", func(v *view) []string { return v.process.Argv }),
		col("process_cwd", func(v *view) string { return v.process.Cwd }),
		col("process_start", func(v *view) time.Time { return stamp(v.process.Start) }),
		col("process_unit", func(v *view) string { return v.process.Unit }),
		col("process_cgroup", func(v *view) string { return v.process.Cgroup }),
		col("process_container", func(v *view) string { return v.process.Container }),
		col("process_mnt_ns", func(v *view) string { return v.process.MntNS }),
		col("process_evidence", func(v *view) string { return v.process.Evidence }),
		col("process_ancestors_pid", ancestors(func(a *event.Ancestor) uint32 { return a.PID })),
		col("process_ancestors_exec_id", ancestors(func(a *event.Ancestor) string { return a.ExecID })),
		col("process_ancestors_exe", ancestors(func(a *event.Ancestor) string { return a.Exe })),
		col("process_ancestors_argv", ancestors(func(a *event.Ancestor) []string { return a.Argv })),
		col("process_ancestors_user", ancestors(func(a *event.Ancestor) string { return a.User })),
	}
}

// factColumns are those of sessions, ends, credentials and targets.
func factColumns() []column {
	return []column{
		col("session_state", func(v *view) string { return v.session.State }),
		col("session_processes", func(v *view) uint64 { return v.session.Processes }),
		col("session_execs", func(v *view) uint64 { return v.session.Execs }),
		col("exit_code", func(v *view) *uint8 { return exitCode(v.Exit) }),
		col("exit_signal", func(v *view) string { return either(v.Exit, &event.Exit{}).Signal }),
		col("exit_core", func(v *view) bool { return either(v.Exit, &event.Exit{}).Core }),
		col("credential_how", func(v *view) string { return v.credential.How }),
		col("target_pid", func(v *view) uint32 { return v.target.PID }),
		col("target_exec_id", func(v *view) string { return v.target.ExecID }),
		col("target_comm", func(v *view) string { return v.target.Comm }),
		col("target_exe", func(v *view) string { return v.target.Exe }),
		col("target_user", func(v *view) string { return v.target.User }),
		col("target_uid", func(v *view) uint32 { return v.target.UID }),
		col("target_session", func(v *view) string { return v.target.Session }),
	}
}

func idColumns(prefix string, of func(*view) *event.Ids) []column {
	return []column{
		col(prefix+"uid", func(v *view) uint32 { return of(v).UID }),
		col(prefix+"euid", func(v *view) uint32 { return of(v).EUID }),
		col(prefix+"suid", func(v *view) uint32 { return of(v).SUID }),
		col(prefix+"fsuid", func(v *view) uint32 { return of(v).FSUID }),
		col(prefix+"gid", func(v *view) uint32 { return of(v).GID }),
		col(prefix+"egid", func(v *view) uint32 { return of(v).EGID }),
		col(prefix+"sgid", func(v *view) uint32 { return of(v).SGID }),
		col(prefix+"fsgid", func(v *view) uint32 { return of(v).FSGID }),
		col(prefix+"caps", func(v *view) string { return of(v).Caps }),
		col(prefix+"user_ns", func(v *view) string { return of(v).UserNS }),
	}
}

// exitCode is NULL where nothing ended.
func exitCode(e *event.Exit) *uint8 {
	if e == nil {
		return nil
	}
	return &e.Code
}

func ancestors[T any](value func(a *event.Ancestor) T) func(*view) []T {
	return func(v *view) []T {
		out := make([]T, len(v.process.Ancestors))
		for i := range v.process.Ancestors {
			out[i] = value(&v.process.Ancestors[i])
		}
		return out
	}
}

// names joins the names of cs for a statement.
func names(cs []column) string {
	n := make([]string, len(cs))
	for i, c := range cs {
		n[i] = c.name
	}
	return strings.Join(n, ", ")
}
