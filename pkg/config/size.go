package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is a number of bytes, written like 64KiB, 16MiB or 1GiB.
type Size int64

type unit struct {
	name  string
	bytes int64
}

func units() []unit {
	return []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// ParseSize reads a size: a number with KiB, MiB, GiB or TiB, or one of bytes.
func ParseSize(s string) (Size, error) {
	num, mult := strings.TrimSpace(s), int64(1)
	for _, u := range units() {
		if n, ok := strings.CutSuffix(num, u.name); ok {
			num, mult = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)/mult {
		return 0, fmt.Errorf("size %q: want a number of bytes, or one with KiB, MiB or GiB", s)
	}
	return Size(n * mult), nil
}

// String writes the size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range units() {
		if n := int64(s); n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalYAML reads a size from a number or from text.
func (s *Size) UnmarshalYAML(read func(any) error) error {
	var t string
	if err := read(&t); err != nil {
		return err
	}
	v, err := ParseSize(t)
	*s = v
	return err
}
