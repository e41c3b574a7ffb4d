package pipeline

import (
	"context"
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// Known compares what is known of a tree with what is there and describes each
// difference: none, when nothing happens and everything that happened was told of.
func (p *Pipeline) Known(root string) []string {
	var out []string
	states := make(map[string]event.State)
	p.states.Known().Walk(root, func(path string, s *event.State) { states[path] = *s })
	err := p.states.Scan(context.Background(), p.tree(root), func(path string, s event.State, err error) {
		k, ok := states[path]
		delete(states, path)
		switch {
		case err != nil:
			out = append(out, err.Error())
		case !ok:
			out = append(out, fmt.Sprintf("%q is not known", path))
		case !k.Same(&s):
			out = append(out, fmt.Sprintf("%q differs: %s", path, strings.Join(k.Diff(&s), ", ")))
		}
	})
	if err != nil {
		out = append(out, err.Error())
	}
	for path := range states {
		out = append(out, fmt.Sprintf("%q is known and not there", path))
	}
	return out
}
