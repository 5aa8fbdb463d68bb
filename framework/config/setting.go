// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
)

// Setting describes one setting for who operates the program.
type Setting struct {
	Name    string // in the file, "limits.queue"
	Env     string // variable that sets it; empty if none does
	Flag    string // flag that sets it, without its dash; empty if none does
	Type    string // "duration", "size", "string", "list of string" ...
	Default string // secrets are not shown
	Unit    string // of a number, for example "calls"; empty if the value has its own
	Doc     string

	field field
	value reflect.Value
}

// Describe lists the settings of a struct in the order of its fields.
func Describe[T any](defaults T, envPrefix string) ([]Setting, error) {
	all, err := settings(reflect.ValueOf(&defaults).Elem(), envPrefix)
	for i := range all {
		all[i].value = reflect.Value{}
	}
	return all, err
}

// settings lists all settings below a struct. It refuses, as mistakes of the
// programmer, fields that cannot be settings and names that meet in one variable.
func settings(root reflect.Value, envPrefix string) ([]Setting, error) {
	if !isStruct(root.Type()) {
		return nil, fmt.Errorf("configuration is a struct, not a %v", root.Type())
	}
	var all []Setting
	byFlag := map[string]string{}
	var walk func(v reflect.Value, path string) error
	walk = func(v reflect.Value, path string) error {
		for _, f := range fieldsOf(v.Type()) {
			name, value := join(path, f.name), v.FieldByIndex(f.index)
			if isStruct(value.Type()) {
				if err := walk(value, name); err != nil {
					return err
				}
				continue
			}
			kind, err := typeName(value.Type())
			if err != nil {
				return fmt.Errorf("%v, setting %s: %w", v.Type(), name, err)
			}
			if err := f.inRange(value); err != nil && !value.IsZero() {
				return fmt.Errorf("%v, default of setting %s: %w", v.Type(), name, err)
			}
			s := Setting{Name: name, Type: kind, Unit: f.unit, Doc: f.doc, Default: formatValue(value), field: f, value: value}
			if isScalar(value.Type()) || value.Kind() == reflect.Slice && isScalar(value.Type().Elem()) {
				s.Flag = strings.ReplaceAll(name, "_", "-")
				if envPrefix != "" {
					s.Env = envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
				}
				key := strings.NewReplacer(".", "_", "-", "_").Replace(strings.ToUpper(name))
				if other, ok := byFlag[key]; ok {
					return fmt.Errorf("%v: the settings %s and %s have one name in the environment", root.Type(), other, name)
				}
				byFlag[key] = name
			}
			all = append(all, s)
		}
		return nil
	}
	return all, walk(root, "")
}

// field is one tagged field of a struct.
type field struct {
	name, doc, unit string
	min, max        string // limits as text, empty for none
	index           []int
}

// fieldsOf gives the settings that stand directly in a struct; those of an
// embedded struct count as its own.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for _, sf := range reflect.VisibleFields(t) {
		if name := sf.Tag.Get("config"); name != "" && sf.IsExported() {
			fields = append(fields, field{
				name: name, doc: sf.Tag.Get("doc"), unit: sf.Tag.Get("unit"),
				min: sf.Tag.Get("min"), max: sf.Tag.Get("max"), index: sf.Index,
			})
		}
	}
	return fields
}

// inRange says whether a value keeps the limits of its field. A list is judged by
// its items, when those are read.
func (f field) inRange(v reflect.Value) error {
	if !isScalar(v.Type()) {
		return nil
	}
	for _, limit := range []struct {
		text, problem string
		sign          int
	}{{f.min, "below the least", -1}, {f.max, "above the most", 1}} {
		if limit.text == "" {
			continue
		}
		bound := reflect.New(v.Type()).Elem()
		if err := parseScalar(bound, limit.text); err != nil {
			return fmt.Errorf("limit in the struct's tag: %w", err)
		}
		if compare(v, bound)*limit.sign > 0 {
			return fmt.Errorf("%s is %s allowed, %s", formatScalar(v), limit.problem, limit.text)
		}
	}
	return nil
}

func compare(a, b reflect.Value) int {
	switch {
	case a.CanInt():
		return cmp.Compare(a.Int(), b.Int())
	case a.CanUint():
		return cmp.Compare(a.Uint(), b.Uint())
	case a.CanFloat():
		return cmp.Compare(a.Float(), b.Float())
	}
	return 0
}

func join(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "." + name
}
