// SPDX-License-Identifier: Apache-2.0

package tracing

import "strings"

// The bounds of a tracestate, as W3C Trace Context has them in 3.3.
const (
	MaxTracestate   = 512 // bytes that are passed on
	maxStateMembers = 32
	longStateMember = 128 // such members go first when there is too much
)

// ParseTracestate reads the tracestate headers of a request and gives the one value
// that is passed on: what other tracing systems have to say of the trace, unchanged
// and in their order. Nothing is passed on of headers that are malformed, which is
// what the standard asks for, nor of a request without a valid traceparent, which the
// caller sees to. What is longer than MaxTracestate loses its long members first, then
// its last ones: the members at the front are the latest.
func ParseTracestate(headers []string) string {
	total := 0
	for _, h := range headers {
		total += len(h)
	}
	// No valid list is longer than its 32 members of at most 256 + 1 + 256 bytes,
	// white space apart: nobody makes us read megabytes.
	if total == 0 || total > maxStateMembers*(2*256+8) {
		return ""
	}
	var members []string
	size := 0
	for _, h := range headers {
		for m := range strings.SplitSeq(h, ",") {
			m = strings.Trim(m, " \t")
			if m == "" {
				continue // the standard allows empty members
			}
			if len(members) == maxStateMembers || !validStateMember(m, members) {
				return ""
			}
			members = append(members, m)
			size += len(m) + 1
		}
	}
	for i := len(members) - 1; i >= 0 && size-1 > MaxTracestate; i-- {
		if len(members[i]) > longStateMember {
			size -= len(members[i]) + 1
			members = append(members[:i], members[i+1:]...)
		}
	}
	for size-1 > MaxTracestate {
		last := len(members) - 1
		size -= len(members[last]) + 1
		members = members[:last]
	}
	return strings.Join(members, ",")
}

// validStateMember reports whether m is key=value with a key that is not yet there.
func validStateMember(m string, before []string) bool {
	key, value, ok := strings.Cut(m, "=")
	if !ok || !validStateKey(key) || value == "" || len(value) > 256 {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	for _, b := range before {
		if strings.HasPrefix(b, key) && b[len(key)] == '=' {
			return false
		}
	}
	return true
}

// validStateKey follows 3.3.1.3.1: a simple key, or tenant@system.
func validStateKey(key string) bool {
	tenant, system, multi := strings.Cut(key, "@")
	if !multi {
		return len(key) <= 256 && key != "" && lower(key[0]) && stateKeyChars(key)
	}
	return tenant != "" && len(tenant) <= 241 && (lower(tenant[0]) || digit(tenant[0])) && stateKeyChars(tenant) &&
		system != "" && len(system) <= 14 && lower(system[0]) && stateKeyChars(system)
}

func stateKeyChars(s string) bool {
	for i := range len(s) {
		if c := s[i]; !lower(c) && !digit(c) && c != '_' && c != '-' && c != '*' && c != '/' {
			return false
		}
	}
	return true
}

func lower(c byte) bool { return c >= 'a' && c <= 'z' }
func digit(c byte) bool { return c >= '0' && c <= '9' }
