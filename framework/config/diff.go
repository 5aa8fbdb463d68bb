// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"reflect"
)

// A Change is a setting that two configurations have different. Secrets are not shown.
type Change struct {
	Name     string // in the file, "limits.queue"
	Old, New string
}

// String gives the change as a log shows it.
func (c Change) String() string { return fmt.Sprintf("%s: %q -> %q", c.Name, c.Old, c.New) }

// Diff lists the settings in which two configurations differ, in the order of the fields.
func Diff[T any](before, after T) ([]Change, error) {
	was, err := settings(reflect.ValueOf(&before).Elem(), "")
	if err != nil {
		return nil, err
	}
	is, err := settings(reflect.ValueOf(&after).Elem(), "")
	if err != nil {
		return nil, err
	}
	var changes []Change
	for i, s := range was {
		if same(s.value, is[i].value) {
			continue
		}
		changes = append(changes, Change{Name: s.Name, Old: formatValue(s.value), New: formatValue(is[i].value)})
	}
	return changes, nil
}

// same takes a list or map that is empty for one that is not there.
func same(a, b reflect.Value) bool {
	if kind := a.Kind(); (kind == reflect.Slice || kind == reflect.Map) && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
