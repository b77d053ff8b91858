package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/daisi/daisi-ws/bench/view"
)

// live shows a run on log: drawn over itself in a terminal, else a line a
// second.
func live(log io.Writer, title string) *view.Live {
	o := view.LiveOptions{Title: title}
	if f, ok := log.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			o.Width, o.Color = int(size.Col), os.Getenv("NO_COLOR") == ""
		}
	}
	return view.NewLive(log, o)
}
