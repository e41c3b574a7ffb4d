// Package holdtest is a process that holds a file open or mapped and does to it
// what it is told: for tests of what was there before a rule. It shares no code
// with what is tested.
package holdtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Run is the holder: it opens the file args[0] and obeys the words that follow,
// and then the lines of in, with "ok" or an error for each. The words are
//
//	map         map the first page shared, writable
//	map-ro      the same without PROT_WRITE
//	protect     make it writable
//	store=TEXT  put TEXT at the start of the mapping
//	write=TEXT  put TEXT at the start of the file, through the descriptor
//	unmap, close, sync (fsync)
//	end
func Run(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no file is named")
	}
	h := holder{}
	var err error
	if h.file, err = os.OpenFile(args[0], os.O_RDWR, 0); err != nil {
		return err
	}
	for _, w := range args[1:] {
		if err := h.do(w); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	fmt.Fprintln(out, "ok")
	for sc := bufio.NewScanner(in); sc.Scan() && sc.Text() != "end"; {
		if err := h.do(sc.Text()); err != nil {
			fmt.Fprintln(out, err)
			continue
		}
		fmt.Fprintln(out, "ok")
	}
	return nil
}

type holder struct {
	file *os.File
	page []byte
}

const pageSize = 4096

func (h *holder) do(word string) (err error) {
	verb, text, _ := strings.Cut(word, "=")
	switch verb {
	case "map":
		h.page, err = syscall.Mmap(int(h.file.Fd()), 0, pageSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	case "map-ro":
		h.page, err = syscall.Mmap(int(h.file.Fd()), 0, pageSize, syscall.PROT_READ, syscall.MAP_SHARED)
	case "protect":
		err = syscall.Mprotect(h.page, syscall.PROT_READ|syscall.PROT_WRITE)
	case "store":
		copy(h.page, text)
	case "write":
		_, err = h.file.WriteAt([]byte(text), 0)
	case "unmap":
		err = syscall.Munmap(h.page)
		h.page = nil
	case "close":
		err = h.file.Close()
	case "sync":
		err = h.file.Sync()
	default:
		err = errors.New("no such word")
	}
	return err
}

// Holder is a running holder.
type Holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// asked makes a test binary a holder: the file that it holds, and words.
const asked = "HOLDFAST_TEST_HOLDS"

// Main ends the program as a holder if Hold has started it. A TestMain calls it first.
func Main() {
	text := os.Getenv(asked)
	if text == "" {
		return
	}
	if err := Run(strings.Fields(text), os.Stdin, os.Stdout); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// T is what Hold needs of a test.
type T interface {
	Helper()
	Fatal(...any)
	Cleanup(func())
}

// Hold starts this test binary as a holder of a file, until the test ends.
func Hold(t T, path string, words ...string) *Holder {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), asked+"="+path+" "+strings.Join(words, " "))
	h, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Kill)
	return h
}

// Start starts cmd, which must end up in Run, and returns when it holds.
func Start(cmd *exec.Cmd) (*Holder, error) {
	h := &Holder{cmd: cmd}
	var err error
	if h.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	h.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return h, h.answer()
}

// PID is its process id.
func (h *Holder) PID() int { return h.cmd.Process.Pid }

// Do has it obey a word.
func (h *Holder) Do(word string) error {
	if _, err := fmt.Fprintln(h.in, word); err != nil {
		return err
	}
	return h.answer()
}

func (h *Holder) answer() error {
	line, err := h.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("holder: %w", err)
	}
	if line != "ok\n" {
		return errors.New(strings.TrimSpace(line))
	}
	return nil
}

// End ends it and returns how it ended.
func (h *Holder) End() error {
	return errors.Join(h.in.Close(), h.cmd.Wait())
}

// Kill ends it by force, also when it was stopped or has ended.
func (h *Holder) Kill() {
	h.cmd.Process.Kill() // has ended: fine
	h.cmd.Wait()
}
