// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// language is one that the pages are written in.
type language uint8

const (
	english language = iota
	chinese
)

func (l language) tag() string {
	if l == chinese {
		return "zh-CN"
	}
	return "en"
}

func (l language) name() string {
	if l == chinese {
		return "中文"
	}
	return "English"
}

func languageOf(tag string) (language, bool) {
	primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
	switch primary {
	case "zh":
		return chinese, true
	case "en", "*":
		return english, true
	}
	return english, false
}

// accepted gives the language that an Accept-Language likes best.
func accepted(header string) language {
	best, weight := english, 0.
	for one := range strings.SplitSeq(header, ",") {
		tag, params, _ := strings.Cut(one, ";")
		l, known := languageOf(tag)
		if w := weightOf(params); known && w > weight {
			best, weight = l, w
		}
	}
	return best
}

// weightOf reads the q of an Accept header's item; 1 if it has none, 0 if that is none.
func weightOf(params string) float64 {
	q, given := strings.CutPrefix(strings.TrimSpace(params), "q=")
	if !given {
		return 1
	}
	w, err := strconv.ParseFloat(q, 64)
	if err != nil || !(w >= 0 && w <= 1) {
		return 0
	}
	return w
}

// The bounds of what may be asked for.
const (
	maxSearch = 200 // bytes
	maxPage   = 1_000_000
)

// A query is what all pages read of a request's address and header.
type query struct {
	Format string
	Lang   language
	Search string // in lower case
	Page   int    // from 1

	given    url.Values
	langSays string // ?lang= as it was given
}

func parseQuery(r *http.Request) (*query, error) {
	if len(r.URL.RawQuery) > 8<<10 {
		return nil, fail(http.StatusRequestURITooLong, "the query is %d bytes long: want at most %d", len(r.URL.RawQuery), 8<<10)
	}
	given, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "query: %w", err)
	}
	q := &query{Format: formatOf(r, given), Lang: accepted(r.Header.Get("Accept-Language")), Page: 1, given: given}
	if tag := given.Get("lang"); tag != "" {
		l, known := languageOf(tag)
		if !known {
			return nil, fail(http.StatusBadRequest, "lang: %q is none of the pages': want en or zh", cut(tag))
		}
		q.Lang, q.langSays = l, tag
	}
	q.Search = strings.ToLower(strings.TrimSpace(given.Get("q")))
	if len(q.Search) > maxSearch || !utf8.ValidString(given.Get("q")) {
		return nil, fail(http.StatusBadRequest, "q: want text to search for, at most %d bytes", maxSearch)
	}
	if text := given.Get("page"); text != "" {
		q.Page, err = strconv.Atoi(text)
		if err != nil || q.Page < 1 || q.Page > maxPage {
			return nil, fail(http.StatusBadRequest, "page: %q is none: want 1 to %d", cut(text), maxPage)
		}
	}
	return q, nil
}

// get gives a parameter of one page.
func (q *query) get(name string) string { return q.given.Get(name) }

// finds reports whether one of the texts has what is searched for.
func (q *query) finds(texts ...string) bool {
	if q.Search == "" {
		return true
	}
	for _, text := range texts {
		if strings.Contains(strings.ToLower(text), q.Search) {
			return true
		}
	}
	return false
}

// link gives an address with parameters, names and values in turn, that keeps the
// language that was asked for.
func (q *query) link(path string, params ...string) string {
	v := url.Values{}
	if q.langSays != "" {
		v.Set("lang", q.Lang.tag())
	}
	for i := 0; i+1 < len(params); i += 2 {
		if params[i+1] != "" {
			v.Set(params[i], params[i+1])
		}
	}
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

// again gives the address of this page with one parameter changed.
func (q *query) again(r *http.Request, name, value string) string {
	v := url.Values{}
	for key, all := range q.given {
		v[key] = all
	}
	v.Set(name, value)
	return r.URL.Path + "?" + v.Encode()
}

// formatOf reads ?format=, else Accept. Whoever names neither HTML nor JSON, as curl,
// gets text.
func formatOf(r *http.Request, given url.Values) string {
	if format := given.Get("format"); format != "" {
		return format
	}
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "text/html"):
		return "html"
	case strings.Contains(accept, "application/json"):
		return "json"
	}
	return "text"
}

func cut(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}

// perPage is how many rows of a list a page shows.
const perPage = 200

// A pager says which part of a long list a page shows.
type pager struct {
	Search     string
	Path       string
	Keep       []hidden // parameters that a search keeps
	First      int      // counted from 1
	Last, All  int
	Page       int
	Pages      int
	Prev, Next string // addresses; empty for none
}

// paged gives the part of the list that was asked for.
func paged[T any](r *http.Request, q *query, all []T) ([]T, *pager) {
	g := &pager{Search: q.get("q"), Path: r.URL.Path, All: len(all), Pages: max(1, (len(all)+perPage-1)/perPage)}
	g.Page = min(q.Page, g.Pages)
	from := (g.Page - 1) * perPage
	to := min(from+perPage, len(all))
	g.First, g.Last = min(from+1, to), to
	if g.Page > 1 {
		g.Prev = q.again(r, "page", strconv.Itoa(g.Page-1))
	}
	if g.Page < g.Pages {
		g.Next = q.again(r, "page", strconv.Itoa(g.Page+1))
	}
	for name := range q.given {
		if name != "q" && name != "page" {
			g.Keep = append(g.Keep, hidden{name, q.get(name)})
		}
	}
	return all[from:to], g
}

// Line says what a page shows.
func (g *pager) Line() phrase {
	return say("%d to %d of %d, page %d of %d", g.First, g.Last, g.All, g.Page, g.Pages)
}

// list is how JSON shows a part of a long list.
type list[T any] struct {
	Total int `json:"total"`
	Page  int `json:"page"`
	Pages int `json:"pages"`
	Items []T `json:"items"`
}

func listOf[T any](g *pager, items []T) list[T] {
	if items == nil {
		items = []T{}
	}
	return list[T]{g.All, g.Page, g.Pages, items}
}
