package accounts

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/holdfast/holdfast/pkg/event"
)

// Side is a path before or after a change.
type Side struct {
	Exists  bool
	Target  string // of a symlink
	Data    []byte // content of a regular file
	Missing string // why Data is not at hand, "" if it is
}

// SideOf makes a Side of a state; content gives what is behind a hash.
func SideOf(s *event.State, content func(event.Hash) ([]byte, error)) Side {
	switch {
	case s == nil:
		return Side{Exists: true, Missing: "the state is not known"}
	case !s.Exists:
		return Side{}
	case s.Type == event.TypeSymlink:
		return Side{Exists: true, Target: string(s.Target)}
	case s.Type != event.TypeRegular && s.Type != "":
		return Side{Exists: true}
	case s.Unread != "":
		return Side{Exists: true, Missing: s.Unread}
	case s.Size > MaxSize:
		return Side{Exists: true, Missing: "it is too long"}
	}
	b, err := content(s.Hash)
	if err != nil || b == nil && s.Size > 0 {
		return Side{Exists: true, Missing: "the content is not kept"}
	}
	return Side{Exists: true, Data: b}
}

// The limits of what is read and said.
const (
	MaxSize      = 4 << 20 // bytes of a file
	maxSentences = 40
	maxText      = 240 // characters of a text that a sentence quotes
)

// Meaning tells what a change of path did, one sentence for each fact. It is nil for a
// file that is not known, or in which nothing differs; where something differs that
// means nothing (a comment), and where a content is not at hand, it says so.
func Meaning(path string, before, after Side) []string {
	f, ok := parsePath(path)
	if !ok || before.Exists == after.Exists && before.Missing == "" && after.Missing == "" &&
		before.Target == after.Target && bytes.Equal(before.Data, after.Data) {
		return nil
	}
	var t told
	switch {
	case f.kind == unit && (before.Target != "" || after.Target != ""):
		t.unitLink(&f, &before, &after)
		if before.Data == nil && after.Data == nil && before.Missing == "" && after.Missing == "" {
			return t.all()
		}
	case after.Target != "":
		t.say("it is a symlink to %s now", quote(after.Target))
	case before.Target != "":
		t.say("it was a symlink to %s", quote(before.Target))
	}
	switch {
	case after.Missing != "":
		t.say("what it means is not known, the content after the change cannot be read: %s", after.Missing)
	case before.Missing != "":
		t.say("what it means is not known, the content before the change cannot be read: %s", before.Missing)
	default:
		if before.Exists && !after.Exists {
			t.say("the whole file was removed")
		}
		n := len(t.out)
		t.compare(&f, before.Data, after.Data)
		if len(t.out) == n && n == 0 {
			t.say("only comments, blanks or the order of lines changed")
		}
		if f.mute != "" {
			t.say("%s", f.mute)
		}
	}
	return t.all()
}

func (t *told) compare(f *file, before, after []byte) {
	switch f.kind {
	case passwd:
		t.passwd(before, after)
	case shadow:
		t.shadow(before, after)
	case group:
		t.group(before, after)
	case gshadow:
		t.gshadow(before, after)
	case subids:
		t.subids(f, before, after)
	case sudoers:
		t.sudoers(before, after)
	case keys:
		t.keys(f, before, after)
	case pam:
		t.pam(f, before, after)
	case crontab, crond:
		t.cron(f, before, after)
	case script:
		every := strings.TrimPrefix(f.dir, "cron.")
		switch {
		case len(before) == 0:
			t.say("script %s added, which cron runs %s", quote(f.name), every)
		case len(after) == 0:
			t.say("script %s taken away, which cron ran %s", quote(f.name), every)
		default:
			t.say("script %s changed, which cron runs %s", quote(f.name), every)
		}
	case unit:
		t.unit(f, before, after)
	}
}

// told collects sentences.
type told struct {
	out  []string
	more int
}

func (t *told) say(format string, args ...any) {
	if len(t.out) >= maxSentences {
		t.more++
		return
	}
	t.out = append(t.out, fmt.Sprintf(format, args...))
}

// full reports whether enough was said, and counts what is not: it need not be put in words.
func (t *told) full() bool {
	if len(t.out) < maxSentences {
		return false
	}
	t.more++
	return true
}

func (t *told) all() []string {
	if t.more > 0 {
		return append(t.out, fmt.Sprintf("and %d more", t.more))
	}
	return t.out
}

// quote writes a name or a text of the file, without what steers a terminal and not longer
// than a person reads.
func quote(s string) string { return "`" + text(s) + "`" }

func text(s string) string {
	s = event.Text([]byte(hide(s)))
	if utf8.RuneCountInString(s) > maxText {
		s = string([]rune(s)[:maxText-1]) + "…"
	}
	return s
}

func quoteAll(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quote(n)
	}
	return strings.Join(out, ", ")
}

// or gives s, or what to say where there is none.
func or(s, nothing string) string {
	if s == "" {
		return nothing
	}
	return s
}
