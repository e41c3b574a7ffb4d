package window

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// ErrDamaged says that the file of the windows cannot be understood.
var ErrDamaged = errors.New("the file of the windows is damaged")

// file is the file as JSON. Paths are written as event.Text.
type file struct {
	Format  int      `json:"format"` // 1
	Next    uint64   `json:"next"`   // number of the next window
	Windows []stored `json:"windows"`
}

type stored struct {
	Number uint64     `json:"number"`
	Ticket string     `json:"ticket"`
	Path   string     `json:"path,omitempty"`
	User   string     `json:"user,omitempty"`
	Exe    string     `json:"exe,omitempty"`
	Opened event.Time `json:"opened"`
	Until  event.Time `json:"until"`
	Boot   string     `json:"boot"`
	From   int64      `json:"from"`
	Record string     `json:"record"`
	By     string     `json:"by"`
}

// maxFile bounds the file, in bytes: MaxOpen windows with the longest paths fit.
const maxFile = 4 << 20

// Read returns the windows of a file, and the number of the next one. A file that does
// not exist has none. The error of one that is damaged is ErrDamaged.
func Read(name string) (ws []Window, next uint64, err error) {
	f, err := regular.Open(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 1, nil
	}
	if errors.Is(err, regular.ErrNot) {
		return nil, 1, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, 1, fmt.Errorf("read windows: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, 1, fmt.Errorf("read windows: %w", err)
	}
	return parse(b)
}

func parse(b []byte) ([]Window, uint64, error) {
	damaged := func(cause string) ([]Window, uint64, error) { return nil, 1, fmt.Errorf("%w: %s", ErrDamaged, cause) }
	if len(b) > maxFile {
		return damaged("it is too long")
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return damaged(err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return damaged("something follows the windows")
	}
	if f.Format != 1 || f.Next == 0 || len(f.Windows) > MaxOpen {
		return damaged(fmt.Sprintf("format %d, next %d, %d windows", f.Format, f.Next, len(f.Windows)))
	}
	var out []Window
	last := uint64(0)
	for _, s := range f.Windows {
		w := Window{
			Number: s.Number, Ticket: s.Ticket, Path: string(event.Untext(s.Path)), User: s.User, Exe: string(event.Untext(s.Exe)),
			Opened: s.Opened, Until: s.Until, Boot: s.Boot, From: s.From, Record: s.Record, By: s.By,
		}
		if w.Number <= last || w.Number >= f.Next {
			return damaged(fmt.Sprintf("window %d is out of order", w.Number))
		}
		if err := w.Check(); err != nil {
			return damaged(fmt.Sprintf("window %d: %v", w.Number, err))
		}
		if w.From < 0 || w.Record == "" || w.Boot == "" {
			return damaged(fmt.Sprintf("window %d lacks where it comes from", w.Number))
		}
		last = w.Number
		out = append(out, w)
	}
	return out, f.Next, nil
}

func format(ws []Window, next uint64) ([]byte, error) {
	f := file{Format: 1, Next: next, Windows: []stored{}}
	for _, w := range ws {
		f.Windows = append(f.Windows, stored{
			Number: w.Number, Ticket: w.Ticket, Path: event.Text([]byte(w.Path)), User: w.User, Exe: event.Text([]byte(w.Exe)),
			Opened: w.Opened, Until: w.Until, Boot: w.Boot, From: w.From, Record: w.Record, By: w.By,
		})
	}
	b, err := json.MarshalIndent(f, "", " ")
	return append(b, '\n'), err
}

// write replaces the file, durably. step is called before each step, for tests.
func write(name string, data []byte, step func()) (err error) {
	dir := filepath.Dir(name)
	tmp := filepath.Join(dir, "."+filepath.Base(name)+".tmp")
	step()
	f, _, err := regular.Make(tmp, os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write windows: %w", err)
	}
	for _, part := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		step()
		if err == nil {
			_, err = f.Write(part)
		}
	}
	step()
	err = errors.Join(err, f.Sync(), f.Close())
	step()
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write windows: %w", err), os.Remove(tmp))
	}
	step()
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	step()
	if err != nil {
		return fmt.Errorf("write windows: %w", err)
	}
	return nil
}
