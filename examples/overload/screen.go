// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// screen shows the demo: on a terminal it draws over itself, elsewhere it writes a
// line a second. It is one goroutine's.
type screen struct {
	out     io.Writer
	live    bool
	style   style
	typed   <-chan byte // nil without a keyboard
	restore func() error
	drawn   bool // there is a picture on the terminal
}

const (
	enterPicture = "\x1b[?1049h\x1b[?25l\x1b[?7l" // another page, no cursor, long lines are cut
	leavePicture = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	topOfPicture = "\x1b[H"
	restOfLine   = "\x1b[K"
	restOfPage   = "\x1b[J"
)

// newScreen shows on out, and reads keys from in if both are terminals.
func newScreen(in *os.File, out io.Writer) (*screen, error) {
	s := &screen{out: out, restore: func() error { return nil }}
	file, ok := out.(*os.File)
	s.live = ok && os.Getenv("TERM") != "dumb" && isTerminal(file)
	s.style = style(s.live && os.Getenv("NO_COLOR") == "")
	if s.live && isTerminal(in) {
		keys, restore, err := readKeys(in)
		if err != nil {
			return nil, fmt.Errorf("read keys of the terminal: %w", err)
		}
		s.typed, s.restore = keys, restore
	}
	return s, nil
}

// keys gives what is typed.
func (s *screen) keys() <-chan byte { return s.typed }

// say writes a line that is not a second.
func (s *screen) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if s.drawn {
		text = topOfPicture + cut(text, 79) + restOfLine
	} else {
		text += "\n"
	}
	_, _ = io.WriteString(s.out, text) // who has closed it does not want to know
}

func (s *screen) draw(v *view) {
	if !s.live {
		_, _ = io.WriteString(s.out, v.line()+"\n")
		return
	}
	var b strings.Builder
	if !s.drawn {
		s.drawn = true
		b.WriteString(enterPicture)
	}
	b.WriteString(topOfPicture)
	for _, line := range v.lines(s.style) {
		b.WriteString(line + restOfLine + "\r\n")
	}
	b.WriteString(restOfPage)
	_, _ = io.WriteString(s.out, b.String())
}

// leave gives the terminal its page back.
func (s *screen) leave() {
	if s.drawn {
		s.drawn = false
		_, _ = io.WriteString(s.out, leavePicture)
	}
}

// close gives the terminal back as it was.
func (s *screen) close() error {
	s.leave()
	return s.restore()
}
