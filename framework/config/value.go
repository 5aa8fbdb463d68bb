// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written with its unit: 512B, 64KiB, 1.5GiB.
type Size int64

var sizeUnits = []struct {
	name string
	size Size
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String gives the size in the largest unit that needs no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return "0B"
}

// MarshalText gives String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a number with a unit of 1,024s.
func (s *Size) UnmarshalText(text []byte) error {
	in := strings.TrimSpace(string(text))
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(in, u.name)
		if !ok {
			continue
		}
		number = strings.TrimSpace(number)
		if whole, err := strconv.ParseInt(number, 10, 64); err == nil && whole >= 0 && whole <= math.MaxInt64/int64(u.size) {
			*s = Size(whole) * u.size
			return nil
		}
		value, err := strconv.ParseFloat(number, 64)
		if bytes := value * float64(u.size); err == nil && bytes >= 0 && bytes < math.MaxInt64 && bytes == math.Trunc(bytes) {
			*s = Size(bytes)
			return nil
		}
		break
	}
	return fmt.Errorf(`%q is no size: write a number with B, KiB, MiB, GiB or TiB, as in "64MiB"`, in)
}

// Secret is a string that is never shown: printed, logged or encoded it is only a
// mark. Convert it to a string to use it.
type Secret string

const hidden = "(hidden)"

// String gives a mark in place of a secret, nothing in place of none.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString gives String, for %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue gives String, for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText gives String, for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the text as it is. It refuses the mark, which a printed
// configuration that is read again would hold.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == hidden {
		return errors.New("this is the mark of a secret that was not shown: write the secret itself")
	}
	*s = Secret(text)
	return nil
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textReader   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func isScalar(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textReader) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	default:
		return false
	}
}

func isStruct(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isScalar(t) }

// typeName names a type as an operator thinks of it, or refuses it.
func typeName(t reflect.Type) (string, error) {
	switch {
	case t == durationType:
		return "duration", nil
	case t == reflect.TypeFor[Size]():
		return "size", nil
	case t == reflect.TypeFor[Secret]():
		return "secret", nil
	case isScalar(t):
		if reflect.PointerTo(t).Implements(textReader) {
			return strings.ToLower(t.Name()), nil
		}
		return t.Kind().String(), nil
	case isStruct(t):
		_, err := settings(reflect.New(t).Elem(), "")
		return "settings", err
	case t.Kind() == reflect.Slice:
		item, err := typeName(t.Elem())
		return "list of " + item, err
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && isScalar(t.Elem()):
		item, err := typeName(t.Elem())
		return "names with " + item, err
	}
	return "", fmt.Errorf("a %v cannot be a setting", t)
}

// parseScalar sets v, which is settable and of a scalar type.
func parseScalar(v reflect.Value, text string) error {
	if reader, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return reader.UnmarshalText([]byte(text))
	}
	if v.Type() == durationType {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf(`%q is no duration: write a number with ns, us, ms, s, m or h, as in "150ms"`, text)
		}
		v.SetInt(int64(d))
		return nil
	}
	bits := 0
	if kind := v.Kind(); kind != reflect.String && kind != reflect.Bool {
		bits = v.Type().Bits()
	}
	switch {
	case v.Kind() == reflect.String:
		v.SetString(text)
		return nil
	case v.Kind() == reflect.Bool:
		if text == "true" || text == "false" {
			v.SetBool(text == "true")
			return nil
		}
		return fmt.Errorf("%q is neither true nor false", text)
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, bits)
		if err == nil {
			v.SetInt(n)
			return nil
		}
		return notNumber(text, "whole number", err)
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, bits)
		if err == nil {
			v.SetUint(n)
			return nil
		}
		return notNumber(text, "whole number, 0 or more", err)
	default:
		n, err := strconv.ParseFloat(text, bits)
		if err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
			v.SetFloat(n)
			return nil
		}
		return notNumber(text, "number", err)
	}
}

func notNumber(text, want string, err error) error {
	if errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%s is too large for this setting", text)
	}
	return fmt.Errorf("%q is no %s; the setting has its own unit, write the number alone", text, want)
}

func formatScalar(v reflect.Value) string {
	if writer, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := writer.MarshalText(); err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v.Interface())
}

// formatValue gives a setting's value in one line: a list of structs and a map as they
// could stand in a file.
func formatValue(v reflect.Value) string {
	switch {
	case isScalar(v.Type()):
		return formatScalar(v)
	case v.Len() == 0:
		return ""
	case v.Kind() == reflect.Slice && isScalar(v.Type().Elem()):
		return strings.Join(formatItems(v), ",")
	}
	return flow(v)
}

func formatItems(v reflect.Value) []string {
	items := make([]string, v.Len())
	for i := range items {
		items[i] = flow(v.Index(i))
	}
	return items
}

// flow gives a value in the flow style of YAML.
func flow(v reflect.Value) string {
	switch {
	case isScalar(v.Type()):
		return formatScalar(v)
	case v.Kind() == reflect.Slice:
		return "[" + strings.Join(formatItems(v), ", ") + "]"
	}
	var pairs []string
	if v.Kind() == reflect.Map {
		for key, value := range v.Seq2() {
			pairs = append(pairs, formatScalar(key)+": "+flow(value))
		}
		slices.Sort(pairs)
	} else {
		for _, f := range fieldsOf(v.Type()) {
			pairs = append(pairs, f.name+": "+flow(v.FieldByIndex(f.index)))
		}
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}
