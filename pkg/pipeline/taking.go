package pipeline

import "sync"

// taking are the paths that Holdfast itself is changing on somebody's request. A look
// at what it left there waits until Took has made that known: the sync of many
// files takes longer than SelfDelay, and each has a record of its own already.
type taking struct {
	mu    sync.Mutex
	paths map[string]int // by how many requests
}

func (t *taking) has(path string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.paths[path] > 0
}

// Taking tells that Holdfast itself is about to change paths on somebody's request.
// The returned function is to be called after Took.
func (p *Pipeline) Taking(paths []string) (done func()) {
	t := &p.taking
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paths == nil {
		t.paths = make(map[string]int)
	}
	for _, path := range paths {
		t.paths[path]++
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, path := range paths {
			if t.paths[path]--; t.paths[path] == 0 {
				delete(t.paths, path)
			}
		}
	}
}
