// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth is how deep a body may nest: far more than any request needs, far
	// less than what costs memory.
	maxDepth = 16
	// maxMembers is how many members one object of a body may have.
	maxMembers = 64
)

// DecodeBody reads the request's body into v, a pointer to a struct, by the rules
// of DecodeJSON. The content type must be JSON.
func DecodeBody(r *http.Request, v any) error {
	if ct := r.Header.Get("Content-Type"); ct != "application/json" { // the common case, without parsing
		mediaType, _, err := mime.ParseMediaType(ct)
		if err != nil || mediaType != "application/json" {
			return &StatusError{
				Status: http.StatusUnsupportedMediaType, Type: "unsupported-media-type",
				Detail: "send the body as Content-Type: application/json",
			}
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if tl, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return tl
		}
		return badJSON("", "the body could not be read to its end")
	}
	return DecodeJSON(body, v)
}

// DecodeJSON reads exactly one JSON object into v, a pointer to a struct. It is
// stricter than encoding/json: the bytes must be valid UTF-8 with whole surrogate
// pairs, unknown and repeated members and nulls are refused, names match in case, and
// depth and number of members are bounded. Errors name the member.
func DecodeJSON(body []byte, v any) error {
	if !utf8.Valid(body) {
		return badJSON("", "the body is not valid UTF-8")
	}
	if err := checkShape(body); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return badJSON(te.Field, fmt.Sprintf("%s has the wrong type: it cannot be a JSON %s", te.Field, te.Value))
		}
		// encoding/json has no type for this error.
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			name = printable(strings.Trim(name, `"`))
			return badJSON(name, "there is no member "+name)
		}
		return badJSON("", "the body is not valid JSON")
	}
	return nil
}

func badJSON(field, detail string) error {
	return &StatusError{Status: http.StatusBadRequest, Type: "invalid-json", Detail: detail, Field: field}
}

// checkShape refuses what encoding/json would silently accept, and stops at the
// first excess, so that a hostile body costs no more than reading up to there.
func checkShape(body []byte) error {
	if !wholeSurrogates(body) {
		return badJSON("", "the body has half of a surrogate pair")
	}
	type level struct {
		names []string // the members so far; nil in an array
		value bool     // in an object: a value comes next
	}
	var stack []level
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	for first := true; ; first = false {
		tok, err := dec.Token()
		if err == io.EOF && !first && len(stack) == 0 {
			return nil
		}
		if err != nil {
			return badJSON("", "the body is not valid JSON")
		}
		switch {
		case first && tok != json.Delim('{'):
			return badJSON("", "the body must be one JSON object")
		case !first && len(stack) == 0:
			return badJSON("", "the body must be one JSON object, nothing after it")
		}
		if len(stack) > 0 {
			top := &stack[len(stack)-1]
			if name, isString := tok.(string); isString && top.names != nil && !top.value {
				if err := checkName(top.names, name); err != nil {
					return err
				}
				top.names = append(top.names, name)
				top.value = true
				continue
			}
			top.value = false
		}
		switch tok {
		case nil:
			var path []string
			for _, l := range stack {
				if len(l.names) > 0 {
					path = append(path, l.names[len(l.names)-1])
				}
			}
			field := strings.Join(path, ".")
			return badJSON(field, field+" is null: leave out what is not given")
		case json.Delim('{'):
			stack = append(stack, level{names: make([]string, 0, 8)})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		if len(stack) > maxDepth {
			return badJSON("", fmt.Sprintf("the body nests deeper than %d", maxDepth))
		}
	}
}

// checkName refuses a member that is repeated or can be none of ours: names are
// lower case, and encoding/json would match them whatever the case.
func checkName(before []string, name string) error {
	if len(before) >= maxMembers {
		return badJSON("", fmt.Sprintf("an object has more than %d members", maxMembers))
	}
	for i := range len(name) {
		if c := name[i]; c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return badJSON(printable(name), "there is no member "+printable(name))
		}
	}
	for _, other := range before {
		if other == name {
			return badJSON(name, "the member "+name+" is given twice")
		}
	}
	return nil
}

// wholeSurrogates reports whether every \uD800-\uDFFF escape is part of a pair;
// encoding/json would put U+FFFD in the place of half a pair.
func wholeSurrogates(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 || i+1 >= len(b) {
			return true
		}
		b = b[i:]
		unit, ok := escapedUnit(b)
		switch {
		case !ok:
			b = b[2:]
		case !utf16.IsSurrogate(unit):
			b = b[6:]
		default:
			low, _ := escapedUnit(b[6:])
			if utf16.DecodeRune(unit, low) == unicode.ReplacementChar {
				return false
			}
			b = b[12:]
		}
	}
}

// escapedUnit gives the code unit of b if b begins with a \uXXXX escape.
func escapedUnit(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(v), err == nil
}
