// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// contract is an OpenAPI document that requests and answers are held against.
type contract struct {
	operations map[string]*operation // by pattern, as in http.ServeMux
	mux        *http.ServeMux        // finds the pattern
	schemas    map[string]*jsonschema.Schema
}

// What a contract says, with references resolved. A schema is the name of its place.
type (
	pathItem struct {
		Parameters []value
		Operations map[string]*operation `yaml:",inline"`
	}
	operation struct {
		ID          string `yaml:"operationId"`
		Tags        []string
		Security    []map[string]any
		Parameters  []value
		RequestBody struct {
			Required bool
			Content  map[string]media
		} `yaml:"requestBody"`
		Responses map[string]response
	}
	response struct {
		Headers map[string]value
		Content map[string]media
	}
	value struct { // a parameter, or a header of an answer
		Name, In string
		Required bool
		Schema   string
	}
	media struct{ Schema string }
)

// loadContract reads a document, and refuses one that is no sound OpenAPI 3.1.
func loadContract(text []byte) (*contract, error) {
	var source any
	if err := yaml.Unmarshal(text, &source); err != nil {
		return nil, err
	}
	asJSON, err := json.Marshal(source)
	if err != nil {
		return nil, err
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON)) // the types the compiler knows
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020) // the dialect of OpenAPI 3.1
	compiler.AssertFormat()
	form, err := compiler.Compile("testdata/openapi-3.1.schema.json") // from spec.openapis.org
	if err != nil {
		return nil, err
	}
	if err := form.Validate(root); err != nil {
		return nil, err
	}
	c := &contract{operations: map[string]*operation{}, mux: http.NewServeMux(), schemas: map[string]*jsonschema.Schema{}}
	resolved, err := c.resolve(compiler, root)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Security   []map[string]any
		Tags       []struct{ Name string }
		Paths      map[string]pathItem
		Components struct {
			SecuritySchemes map[string]any `yaml:"securitySchemes"`
		}
	}
	if asJSON, err = json.Marshal(resolved); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(asJSON, &doc); err != nil {
		return nil, err
	}
	ids := map[string]bool{"": true}
	var errs []error
	for path, item := range doc.Paths {
		for method, op := range item.Operations {
			pattern := strings.ToUpper(method) + " " + path
			c.operations[pattern] = op
			c.mux.Handle(pattern, http.NotFoundHandler())
			op.Parameters = append(op.Parameters, item.Parameters...)
			if op.Security == nil {
				op.Security = doc.Security
			}
			wrong := func(format string, args ...any) {
				errs = append(errs, fmt.Errorf(pattern+": "+format, args...))
			}
			if ids[op.ID] {
				wrong("operationId %q: want one of its own", op.ID)
			}
			ids[op.ID] = true
			if len(op.Responses) == 0 {
				wrong("no responses")
			}
			for _, tag := range op.Tags {
				if !slices.Contains(doc.Tags, struct{ Name string }{tag}) {
					wrong("no tag %q", tag)
				}
			}
			for _, way := range op.Security {
				for name := range way {
					if doc.Components.SecuritySchemes[name] == nil {
						wrong("no security scheme %q", name)
					}
				}
			}
			left := path
			for _, v := range op.Parameters {
				if in := "{" + v.Name + "}"; v.In == "path" {
					if !strings.Contains(left, in) {
						wrong("parameter %q is not in the path", v.Name)
					}
					left = strings.ReplaceAll(left, in, "")
				}
			}
			if strings.Contains(left, "{") {
				wrong("the path has more parameters than are declared")
			}
		}
	}
	return c, errors.Join(errs...)
}

// resolve gives root with what is referred to put in its place, and each schema,
// which may refer to itself, compiled and its place put instead.
func (c *contract) resolve(compiler *jsonschema.Compiler, root any) (any, error) {
	const base = "moments://contract/openapi.yaml" // of no scheme that could be fetched
	if err := compiler.AddResource(base, root); err != nil {
		return nil, err
	}
	escape, unescape := strings.NewReplacer("~", "~0", "/", "~1"), strings.NewReplacer("~1", "/", "~0", "~")
	var walk func(at, key string, v any) (any, error)
	walk = func(at, key string, v any) (_ any, err error) {
		if key == "schema" || strings.TrimSuffix(at, key) == "#/components/schemas/" {
			c.schemas[at], err = compiler.Compile(base + at)
			return at, err
		}
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				target := root
				for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					m, _ := target.(map[string]any)
					target = m[unescape.Replace(step)]
				}
				if m, _ := target.(map[string]any); m == nil || m["$ref"] != nil {
					return nil, fmt.Errorf("%s: %s leads nowhere", at, ref)
				}
				return walk(ref, "", target)
			}
			out := map[string]any{}
			for key, child := range v {
				if out[key], err = walk(at+"/"+escape.Replace(key), key, child); err != nil {
					return nil, err
				}
			}
			return out, nil
		case []any:
			out := make([]any, len(v))
			for i, child := range v {
				if out[i], err = walk(at+"/"+strconv.Itoa(i), "", child); err != nil {
					return nil, err
				}
			}
			return out, nil
		}
		return v, nil
	}
	return walk("#", "", root)
}

// check tells how a request and its answer break the contract. The request is held
// against it only if it had success: the suite sends wrong ones on purpose.
func (c *contract) check(r *http.Request, body []byte, res *http.Response, text []byte) error {
	_, pattern := c.mux.Handler(r)
	op := c.operations[pattern]
	if op == nil {
		if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusMethodNotAllowed {
			return nil
		}
		return errors.New("the operation is not documented")
	}
	var errs []error
	answer, ok := op.Responses[strconv.Itoa(res.StatusCode)]
	if !ok && res.StatusCode >= 400 { // default is what did not work; success is spelt out
		answer, ok = op.Responses["default"]
	}
	if !ok {
		return fmt.Errorf("status %d is not documented", res.StatusCode)
	}
	for name, h := range answer.Headers {
		errs = append(errs, c.text("header "+name, h, res.Header.Values(name)))
	}
	errs = append(errs, c.body("answer", answer.Content, true, res.Header, text))
	if res.StatusCode < 400 {
		_, path, _ := strings.Cut(pattern, " ")
		errs = append(errs, c.parameters(op, path, r), c.body("request", op.RequestBody.Content, op.RequestBody.Required, r.Header, body))
		if len(op.Security) > 0 && r.Header.Get("Authorization") == "" {
			errs = append(errs, errors.New("success without a token"))
		}
	}
	return errors.Join(errs...)
}

func (c *contract) parameters(op *operation, path string, r *http.Request) error {
	given := map[string]http.Header{"query": {}, "header": r.Header.Clone(), "path": {}}
	for _, name := range []string{"Authorization", "Content-Type", "Accept"} {
		given["header"].Del(name) // OpenAPI says these by other means
	}
	for name, texts := range r.URL.Query() {
		given["query"][name] = texts
	}
	segments := strings.Split(r.URL.Path, "/")
	for i, s := range strings.Split(path, "/") {
		if strings.HasPrefix(s, "{") {
			given["path"][strings.Trim(s, "{}")] = segments[i : i+1]
		}
	}
	var errs []error
	for _, v := range op.Parameters {
		name := v.Name
		if v.In == "header" {
			name = http.CanonicalHeaderKey(name)
		}
		errs = append(errs, c.text(v.In+" parameter "+name, v, given[v.In][name]))
		delete(given[v.In], name)
	}
	for in, rest := range given {
		for name := range rest {
			errs = append(errs, fmt.Errorf("%s parameter %s is not documented", in, name))
		}
	}
	return errors.Join(errs...)
}

// text checks what is given for a parameter or header.
func (c *contract) text(what string, v value, given []string) error {
	if len(given) == 0 && !v.Required {
		return nil
	}
	if len(given) != 1 {
		return fmt.Errorf("%s is there %d times", what, len(given))
	}
	err := c.schemas[v.Schema].Validate(given[0])
	if literal, bad := jsonschema.UnmarshalJSON(strings.NewReader(given[0])); err != nil && bad == nil {
		err = c.schemas[v.Schema].Validate(literal) // a number, true or false
	}
	if err != nil {
		return fmt.Errorf("%s: %q: %w", what, given[0], err)
	}
	return nil
}

func (c *contract) body(what string, content map[string]media, required bool, h http.Header, text []byte) error {
	if len(text) == 0 && (len(content) == 0 || !required) {
		return nil
	}
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	m, ok := content[kind]
	if !ok {
		return fmt.Errorf("%s: a body of type %q is not documented", what, kind)
	}
	if kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return nil // bytes
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = c.schemas[m.Schema].Validate(v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
