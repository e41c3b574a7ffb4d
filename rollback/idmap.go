package rollback

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// idMap gives the numbers that the names of owners have where files are restored
// to: in the account files of another root, or in those of this host, which need
// not be where the versions were taken.
type idMap struct {
	users, groups map[string]uint32
}

// idsFor reads the account files of a root directory, or of this host if it has none.
func idsFor(root string) (idMap, error) {
	if _, err := os.Stat(filepath.Join(root, "etc/passwd")); err != nil {
		root = "/"
	}
	users, err := idsOf(filepath.Join(root, "etc/passwd"))
	if err != nil {
		return idMap{}, err
	}
	groups, err := idsOf(filepath.Join(root, "etc/group"))
	return idMap{users, groups}, err
}

// idsOf reads name and number of each line of passwd(5) or group(5) form; the
// first line of a name counts. No file has no names.
func idsOf(file string) (map[string]uint32, error) {
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	defer f.Close()
	ids := map[string]uint32{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		fields := strings.SplitN(s.Text(), ":", 4)
		if len(fields) < 3 || fields[0] == "" {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if _, known := ids[fields[0]]; err == nil && !known {
			ids[fields[0]] = uint32(id)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return ids, nil
}

// apply gives the state the numbers of its owner's names. A name that is not known
// there keeps the number, and so do the ids in an ACL, of which no names are kept.
// what says in words what was changed, "" for nothing.
func (m idMap) apply(st *event.State) (what string) {
	if id, ok := m.users[st.User]; ok && st.User != "" && id != st.UID {
		what = fmt.Sprintf("user %s is %d here, was %d", st.User, id, st.UID)
		st.UID = id
	}
	if id, ok := m.groups[st.Group]; ok && st.Group != "" && id != st.GID {
		if what != "" {
			what += ", "
		}
		what += fmt.Sprintf("group %s is %d here, was %d", st.Group, id, st.GID)
		st.GID = id
	}
	return what
}
