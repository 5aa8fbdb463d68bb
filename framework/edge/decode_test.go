// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-rpc/sluice/framework/edge"
)

type body struct {
	Text  string   `json:"text"`
	Count int      `json:"count"`
	List  []string `json:"list"`
	In    *body    `json:"in"`
}

func TestDecodeJSON(t *testing.T) {
	tests := []struct {
		name  string
		in    string
		field string // of the error; "-" means that there is none
	}{
		{"good", `{"text":"a","count":3,"list":["x"],"in":{"text":"b"}}`, "-"},
		{"empty object", ` {} `, "-"},
		{"null member", `{"text":null}`, "text"},
		{"null inside", `{"in":{"text":null}}`, "in.text"},
		{"null in a list", `{"list":[null]}`, "list"},
		{"emoji pair", `{"text":"\ud83d\ude00"}`, "-"},
		{"escaped backslash before u", `{"text":"\\ud83d"}`, "-"},
		{"nothing", ``, ""},
		{"array", `[]`, ""},
		{"null", `null`, ""},
		{"string", `"x"`, ""},
		{"two values", `{}{}`, ""},
		{"tail", `{} x`, ""},
		{"unclosed", `{"text":"a"`, ""},
		{"mismatched", `{"list":[}`, ""},
		{"comma", `{"text":"a",}`, ""},
		{"unknown member", `{"txt":"a"}`, "txt"},
		{"case", `{"Text":"a"}`, "Text"},
		{"Kelvin sign folds to k", `{"\u212a":"a"}`, "\u212a"},
		{"repeated", `{"text":"a","text":"b"}`, "text"},
		{"repeated by escape", `{"text":"a","\u0074ext":"b"}`, "text"},
		{"repeated inside", `{"in":{"text":"a","text":"b"}}`, "text"},
		{"number for string", `{"text":5}`, "text"},
		{"string for number", `{"count":"5"}`, "count"},
		{"fraction for number", `{"count":1.5}`, "count"},
		{"huge number", `{"count":1e999}`, "count"},
		{"object for string", `{"text":{}}`, "text"},
		{"wrong type inside", `{"in":{"count":true}}`, "in.count"},
		{"invalid UTF-8", "{\"text\":\"\xff\"}", ""},
		{"half pair", `{"text":"\ud83d"}`, ""},
		{"half pair and other", `{"text":"\ud83d\u0041"}`, ""},
		{"low first", `{"text":"\ude00\ud83d"}`, ""},
		{"raw control", "{\"text\":\"a\nb\"}", ""},
		{"deep arrays", `{"list":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`, ""},
		{"deep objects", strings.Repeat(`{"in":`, 10_000) + "1" + strings.Repeat("}", 10_000), ""},
		{"many members", `{` + strings.Repeat(`"a":1,`, 70) + `"b":1}`, "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var v body
			err := edge.DecodeJSON([]byte(tt.in), &v)
			if tt.field == "-" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			se, ok := errors.AsType[*edge.StatusError](err)
			if !ok || se.Status != 400 || se.Type != "invalid-json" || se.Field != tt.field || se.Detail == "" {
				t.Errorf("error = %#v, want field %q", err, tt.field)
			}
		})
	}
}

func TestDecodeBodyNeedsJSON(t *testing.T) {
	for contentType, status := range map[string]int{
		"application/json": 0, "application/json; charset=utf-8": 0,
		"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, ";": 415,
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{"text":"a"}`))
		r.Header.Set("Content-Type", contentType)
		err := edge.DecodeBody(r, &body{})
		se, _ := errors.AsType[*edge.StatusError](err)
		if (status == 0) != (err == nil) || (status != 0 && se.Status != status) {
			t.Errorf("%q: error = %v", contentType, err)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{`{"text":"a","in":{"list":["\ud83d\ude00"]}}`, `{"text":"\ud83d"}`, `{"a":1,"a":2}`, `[[[[`, `{}{}`, "{\"text\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var v body
		err := edge.DecodeJSON(in, &v)
		if err != nil {
			if _, ok := errors.AsType[*edge.StatusError](err); !ok {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if !json.Valid(in) || !bytes.HasPrefix(bytes.TrimSpace(in), []byte("{")) {
			t.Fatalf("accepted %q", in)
		}
		if !utf8.ValidString(v.Text) {
			t.Fatalf("text is not UTF-8: %q", v.Text)
		}
		// What was taken means the same when written and read again.
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &body{}); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	})
}
