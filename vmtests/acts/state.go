package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// outcome is what an act knows about the state that it left.
type outcome struct {
	gone    bool   // nothing is at the path any more
	content []byte // what the file holds, nil if the act did not touch it
	mode    int    // permission bits that it set, -1 if it did not
	uid     int    // owner that it set, -1 if it did not
	target  string // where the symlink that it made points
}

// same is the outcome of an act that leaves content, mode and owner alone.
func same() outcome { return outcome{mode: -1, uid: -1} }

func holds(b []byte) outcome {
	o := same()
	o.content = append([]byte{}, b...)
	return o
}

func (o outcome) fields() (map[string]any, error) {
	if o.gone {
		return map[string]any{"exists": false}, nil
	}
	m := map[string]any{"exists": true}
	if o.content != nil {
		h, err := b3sum(o.content)
		if err != nil {
			return nil, err
		}
		m["hash"], m["size"] = h, len(o.content)
	}
	if o.mode >= 0 {
		m["mode"] = modeText(uint32(o.mode))
	}
	if o.uid >= 0 {
		m["uid"] = o.uid
	}
	if o.target != "" {
		m["target"] = o.target
	}
	return m, nil
}

// stateOf tells what is at path before an act, and its content.
func stateOf(path string) (map[string]any, []byte, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]any{"exists": false}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, nil, fmt.Errorf("stat %s: no owner in the answer", path)
	}
	m := map[string]any{"exists": true, "mode": modeText(st.Mode & 0o7777), "uid": st.Uid, "gid": st.Gid}
	if !fi.Mode().IsRegular() {
		return m, nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	h, err := b3sum(b)
	m["hash"], m["size"] = h, len(b)
	return m, b, err
}

func modeText(m uint32) string { return fmt.Sprintf("%04o", m) }

// b3sum hashes b by the reference implementation.
func b3sum(b []byte) (string, error) {
	cmd := exec.Command("b3sum", "--no-names")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("hash by b3sum: %w", err)
	}
	return "blake3:" + strings.TrimSpace(string(out)), nil
}
