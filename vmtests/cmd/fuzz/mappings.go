package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// mappings are operations on files by shared mappings.
func mappings() []op {
	return []op{
		{"mapstore", 4, func(f *fuzzer) error {
			m, err := f.mapFile()
			if err != nil {
				return err
			}
			err = m.store(f)
			if f.r.IntN(2) == 0 {
				err = errors.Join(err, unix.Msync(m.at, unix.MS_SYNC))
			}
			return errors.Join(err, m.end())
		}},
		{"maphold", 2, func(f *fuzzer) error {
			if len(f.maps) > 4 {
				return unix.EMFILE
			}
			m, err := f.mapFile()
			if err == nil {
				f.maps = append(f.maps, m)
			}
			return err
		}},
		{"storeheld", 3, func(f *fuzzer) error {
			if len(f.maps) == 0 {
				return unix.EBADF
			}
			return f.maps[f.r.IntN(len(f.maps))].store(f)
		}},
		{"unmap", 2, func(f *fuzzer) error {
			if len(f.maps) == 0 {
				return unix.EBADF
			}
			m := f.maps[0]
			f.maps = f.maps[1:]
			return m.end()
		}},
	}
}

// mapping is the first page of a file, mapped shared.
type mapping struct {
	at []byte
	by [2]int // a pipe: what comes out of it is stored
}

// mapFile maps a file and closes it.
func (f *fuzzer) mapFile() (m mapping, err error) {
	err = f.with(f.file(), unix.O_RDWR, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < 1 {
			return unix.ENODATA
		}
		late := f.r.IntN(3) == 0
		prot := unix.PROT_READ | unix.PROT_WRITE
		if late {
			prot = unix.PROT_READ
		}
		if m.at, err = unix.Mmap(fd, 0, int(min(st.Size, 4096)), prot, unix.MAP_SHARED); err != nil {
			return err
		}
		if late {
			err = unix.Mprotect(m.at, unix.PROT_READ|unix.PROT_WRITE)
		}
		return errors.Join(err, unix.Pipe2(m.by[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	})
	return m, err
}

// store changes one byte. Others may truncate the file meanwhile: a store through a
// system call fails where one of our own would be a bus error.
func (m mapping) store(f *fuzzer) error {
	if _, err := unix.Write(m.by[1], []byte{byte(f.r.Uint32())}); err != nil {
		return err
	}
	at := f.r.IntN(len(m.at))
	n, err := unix.Read(m.by[0], m.at[at:at+1])
	if err != nil {
		var b [1]byte
		_, _ = unix.Read(m.by[0], b[:]) // what was not stored
	}
	return some(n, err)
}

func (m mapping) end() error {
	return errors.Join(unix.Munmap(m.at), unix.Close(m.by[0]), unix.Close(m.by[1]))
}
