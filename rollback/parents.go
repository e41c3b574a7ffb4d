package rollback

import (
	"context"
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// makeParents makes the directories above path that are missing, top down. Each
// gets what its trusted version says; one without a version gets owner and
// permissions of the directory it is in. Something else in the place of a
// directory gives way only if a trusted version says that it was a directory.
func (s *Store) makeParents(ctx context.Context, path string) error {
	above, err := digest.StatPath("/")
	if err != nil {
		return err
	}
	for i := 1; i < len(path); i++ {
		end := strings.IndexByte(path[i:], '/')
		if end < 0 {
			return nil
		}
		i += end
		dir := path[:i]
		st, err := digest.StatPath(dir)
		if err != nil {
			return err
		}
		if st.Type == event.TypeDir {
			above = st
			continue
		}
		v, known := s.Trusted(dir)
		known = known && v.State.Type == event.TypeDir
		switch {
		case known:
		case st.Exists:
			return fmt.Errorf("%q is a %s, not a directory", dir, st.Type)
		default:
			v = Version{Path: dir, State: event.State{Exists: true, Type: event.TypeDir,
				Mode: above.Mode & 0o777, UID: above.UID, GID: above.GID, Mtime: event.TimeOf(s.now())}}
		}
		r, err := s.RestorePath(ctx, dir, v)
		if err != nil {
			return err
		}
		above = r.After
	}
	return nil
}
