package main

import (
	"fmt"
	"strconv"
	"strings"
)

// size is a number of bytes, written 512, 32KiB, 16MiB or 1GiB; KB, MB and GB
// count in thousands.
type size int

var units = []struct {
	suffix string
	bytes  int
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"B", 1},
}

// UnmarshalText reads a size.
func (s *size) UnmarshalText(text []byte) error {
	digits, unit := strings.TrimSpace(string(text)), 1
	for _, u := range units {
		if rest, ok := strings.CutSuffix(digits, u.suffix); ok {
			digits, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return fmt.Errorf("%q is no size", text)
	}
	if n > int(^uint(0)>>1)/unit || n < 0 {
		return fmt.Errorf("%q is out of range", text)
	}
	*s = size(n * unit)
	return nil
}

// String writes the largest binary unit that divides s.
func (s size) String() string {
	for i := 2; i >= 0; i-- {
		if u := units[i]; s != 0 && int(s)%u.bytes == 0 {
			return strconv.Itoa(int(s)/u.bytes) + u.suffix
		}
	}
	return strconv.Itoa(int(s))
}
