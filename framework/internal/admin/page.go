// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A page is what one address shows, before it is written as HTML, text or JSON. Whatever
// is a string in it may come from anybody; what the pages say themselves are phrases.
type page struct {
	Title phrase
	State phrase // one word for it, beside the title
	Mark  mark   // of the state
	Says  phrase // the state in a sentence
	Parts []part
	Pager *pager // of a list that is longer than a page
	Back  string // where the page's parent is

	Data any // what JSON shows of it
}

// A part is a piece of a page under a heading of its own; the first one needs none.
type part struct {
	Title   phrase
	Note    phrase
	Facts   []fact
	Links   []link
	Table   *table
	Forms   []form
	Picture string // address
	Pre     string
}

type fact struct {
	Name  phrase
	Value cell
}

type table struct {
	Columns []column
	Rows    [][]cell
	Empty   phrase // what is said when there are no rows
}

type column struct {
	Name phrase
	Kind columnKind
}

// columnKind is the look of a column. It is the class of its cells.
type columnKind string

const (
	right columnKind = ""  // numbers
	left  columnKind = "w" // words, in one line
	prose columnKind = "p" // sentences, in as many as it takes
)

// A cell is a value of a table or fact.
type cell struct {
	Text any // a phrase, or else a string
	Href string
	Mark mark
	Code bool
	Bar  *bar
}

// A bar is a stretch of a line, in thousandths of it.
type bar struct {
	From, Length int
	Mark         mark
}

// mark says how a value is to be seen. It never stands alone: the text says the same.
type mark string

const (
	good mark = "good"
	warn mark = "warn"
	bad  mark = "bad"
	soft mark = "soft"
)

// A form asks for a change. Every form asks for a reason, and for the token if there is
// one.
type form struct {
	Label  any
	Hidden []hidden
	Area   *area
	Select *choice
	Number *number
	Reason string // as it was given
	Button phrase
}

// An area is a field of several lines.
type area struct {
	Label       phrase
	Name, Value string
	Rows        int
	Focus       bool // it is what the page is opened for
}

type hidden struct{ Name, Value string }

type choice struct {
	Label       phrase // its name, if it has none
	Name, Value string
	Options     []string
}

type number struct {
	Label    phrase
	Name     string
	Min, Max int
	Value    string
}

// A phrase is something that the pages say, in English, with what stands in it.
type phrase struct {
	format string
	args   []any
}

// say makes a phrase. A format must have its Chinese in words.
func say(format string, args ...any) phrase { return phrase{format, args} }

// Given reports whether there is anything to say.
func (p phrase) Given() bool { return p.format != "" }

// String gives the phrase in English.
func (p phrase) String() string { return p.in(english) }

// MarshalText gives the phrase in English: JSON is for programs.
func (p phrase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (p phrase) in(l language) string {
	format := p.format
	if l == chinese {
		if zh, ok := words[format]; ok {
			format = zh
		}
	}
	if len(p.args) == 0 {
		return format
	}
	args := make([]any, len(p.args))
	for i, a := range p.args {
		args[i] = a
		if inner, ok := a.(phrase); ok {
			args[i] = inner.in(l)
		}
	}
	return fmt.Sprintf(format, args...)
}

// say gives a value of a page as text without what could steer a terminal or turn its
// text around.
func (l language) say(v any) string {
	switch v := v.(type) {
	case phrase:
		return clean(v.in(l))
	case string:
		return clean(v)
	case nil:
		return ""
	}
	return clean(fmt.Sprint(v))
}

//go:embed page.html
var pageHTML string

// pageOf holds the one template of all pages, in each language.
var pageOf = func() map[language]*template.Template {
	all := map[language]*template.Template{}
	for _, l := range []language{english, chinese} {
		all[l] = template.Must(template.New("page").Funcs(template.FuncMap{
			"t":   l.say,
			"say": func(format string, args ...any) string { return say(format, args...).in(l) },
		}).Parse(pageHTML))
	}
	return all
}()

// pagePolicy allows pages their own style, forms and pictures, and nothing else.
var pagePolicy = func() string {
	_, rest, _ := strings.Cut(pageHTML, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

// framed is a page with what stands around every page.
type framed struct {
	*page
	Lang       string
	Service    string
	Process    phrase
	Now        string
	Nav        []link
	Switch     []link // the same page in another language or format
	NeedsToken bool
}

type link struct {
	Href    string
	Text    any
	Current bool
}

// write sends a page in the format that was asked for.
func (d *Dashboard) write(w http.ResponseWriter, r *http.Request, q *query, p *page) {
	d.writeAs(w, r, q, p, http.StatusOK)
}

func (d *Dashboard) writeAs(w http.ResponseWriter, r *http.Request, q *query, p *page, status int) {
	switch q.Format {
	case "json":
		body, err := json.MarshalIndent(p.Data, "", "  ")
		if err != nil {
			sendError(w, r, q.Format, http.StatusInternalServerError, fmt.Errorf("the page cannot be written: %w", err))
			return
		}
		send(w, r, status, "application/json", append(body, '\n'))
	case "text":
		send(w, r, status, "text/plain; charset=utf-8", p.text())
	case "html":
		var body bytes.Buffer
		if err := pageOf[q.Lang].Execute(&body, d.frame(r, q, p)); err != nil {
			sendError(w, r, q.Format, http.StatusInternalServerError, fmt.Errorf("the page cannot be written: %w", err))
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Language", q.Lang.tag())
		h.Add("Vary", "Accept-Language")
		send(w, r, status, "text/html; charset=utf-8", body.Bytes())
	default:
		sendError(w, r, "text", http.StatusBadRequest, fmt.Errorf("format %q is none: want html, text or json", q.Format))
	}
}

func (d *Dashboard) frame(r *http.Request, q *query, p *page) *framed {
	f := &framed{
		page: p, Lang: q.Lang.tag(), Service: d.Service, Process: d.processLine(), Now: time.Now().UTC().Format(time.DateTime) + "Z",
		NeedsToken: d.token() != "",
	}
	if f.Service == "" {
		f.Service = "sluice"
	}
	for _, s := range d.sheets() {
		f.Nav = append(f.Nav, link{Href: q.link(s.path), Text: s.title, Current: s.path == r.URL.Path})
	}
	for _, l := range []language{english, chinese} {
		f.Switch = append(f.Switch, link{Href: q.again(r, "lang", l.tag()), Text: l.name(), Current: l == q.Lang})
	}
	f.Switch = append(f.Switch, link{Href: q.again(r, "format", "text"), Text: say("text")}, link{Href: q.again(r, "format", "json"), Text: "JSON"})
	return f
}

// sendError tells why a page cannot be had.
func sendError(w http.ResponseWriter, r *http.Request, format string, status int, err error) {
	if format == "json" {
		body, _ := json.Marshal(map[string]string{"error": err.Error()}) // a string is always written
		send(w, r, status, "application/json", append(body, '\n'))
		return
	}
	send(w, r, status, "text/plain; charset=utf-8", []byte(clean(err.Error())+"\n"))
}

// A failure is an error with the status that says so.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Errorf(format, args...)}
}

func statusOf(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status
	}
	return http.StatusInternalServerError
}

// text is the page for terminals.
func (p *page) text() []byte {
	var b bytes.Buffer
	switch {
	case p.State.Given() && p.Says.Given():
		fmt.Fprintf(&b, "%s: %s\n", clean(p.State.String()), clean(p.Says.String()))
	case p.State.Given():
		fmt.Fprintf(&b, "%s: %s\n", clean(p.Title.String()), clean(p.State.String()))
	default:
		fmt.Fprintf(&b, "%s\n", clean(p.Title.String()))
		if p.Says.Given() {
			fmt.Fprintf(&b, "%s\n", clean(p.Says.String()))
		}
	}
	for i := range p.Parts {
		p.Parts[i].text(&b)
	}
	if g := p.Pager; g != nil {
		fmt.Fprintf(&b, "\n%s\n", clean(g.Line().String()))
	}
	return b.Bytes()
}

func (p *part) text(b *bytes.Buffer) {
	if len(p.Facts) == 0 && p.Table == nil && p.Pre == "" && (len(p.Forms) > 0 || p.Picture != "" || len(p.Links) > 0) {
		return // there is nothing in it for a terminal
	}
	if p.Title.Given() {
		fmt.Fprintf(b, "\n%s:\n", clean(p.Title.String()))
	} else {
		b.WriteByte('\n')
	}
	if p.Note.Given() {
		fmt.Fprintf(b, "%s\n", clean(p.Note.String()))
	}
	if len(p.Facts) > 0 {
		rows := make([][]string, len(p.Facts))
		for i, f := range p.Facts {
			rows[i] = []string{clean(f.Name.String()), f.Value.text()}
		}
		align(b, rows, []bool{true, true})
	}
	if t := p.Table; t != nil {
		if len(t.Rows) == 0 {
			fmt.Fprintf(b, "%s\n", clean(t.Empty.String()))
		} else {
			t.text(b)
		}
	}
	for line := range strings.Lines(p.Pre) {
		b.WriteString(clean(strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", "    ")))
		b.WriteByte('\n')
	}
}

func (t *table) text(b *bytes.Buffer) {
	head, toLeft := make([]string, len(t.Columns)), make([]bool, len(t.Columns))
	for i, c := range t.Columns {
		head[i], toLeft[i] = clean(c.Name.String()), c.Kind != right
	}
	rows := make([][]string, 0, len(t.Rows)+1)
	rows = append(rows, head)
	for _, cells := range t.Rows {
		row := make([]string, len(cells))
		for i := range cells {
			row[i] = cells[i].text()
		}
		rows = append(rows, row)
	}
	align(b, rows, toLeft)
}

const barWidth = 40 // characters

func (c *cell) text() string {
	text := english.say(c.Text)
	if c.Bar == nil {
		return text
	}
	from := min(c.Bar.From, 1000) * barWidth / 1000
	length := max(1, min(c.Bar.Length, 1000)*barWidth/1000)
	from = min(from, barWidth-1)
	length = min(length, barWidth-from)
	line := "|" + strings.Repeat(" ", from) + strings.Repeat("=", length) + strings.Repeat(" ", barWidth-from-length) + "|"
	return strings.TrimSuffix(line+" "+text, " ")
}

// align writes rows as columns, two spaces apart.
func align(b *bytes.Buffer, rows [][]string, toLeft []bool) {
	widths := make([]int, len(toLeft))
	for _, row := range rows {
		for i, s := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(s))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, s := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(s))
			if toLeft[i] {
				line.WriteString(s + pad)
			} else {
				line.WriteString(pad + s)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
}

// clean replaces what could steer a terminal or turn its text around.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			return '\uFFFD'
		}
		return r
	}, s)
}
