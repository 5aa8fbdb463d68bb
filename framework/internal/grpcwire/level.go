// SPDX-License-Identifier: Apache-2.0

package grpcwire

import (
	"strconv"

	"github.com/sluice-rpc/sluice/qos"
)

// What a server tells of itself with every answer, in metadata behind it: what it lets in,
// as the number of the last priority, and how long the work takes that waits there, in ms.
// Of a server that lets everything in and has nothing that waits both are left out.
const (
	LevelKey   = "sluice-level"
	BacklogKey = "sluice-backlog-ms"
)

// AppendLevel adds what there is to tell to metadata, which may be nil.
func AppendLevel(md map[string][]string, level qos.Priority, backlog uint8) map[string][]string {
	set := func(key string, n int) {
		if md == nil {
			md = map[string][]string{}
		}
		md[key] = []string{strconv.Itoa(n)}
	}
	if level < qos.LastPriority {
		set(LevelKey, int(level))
	}
	if backlog > 0 {
		set(BacklogKey, int(backlog))
	}
	return md
}

// LevelOf reads what AppendLevel has added. What is no number is as if it were not there.
func LevelOf(md map[string][]string) (level qos.Priority, backlog uint8) {
	number := func(key string, most, otherwise int) int {
		if v := md[key]; len(v) == 1 {
			if n, err := strconv.ParseUint(v[0], 10, 16); err == nil && int(n) <= most {
				return int(n)
			}
		}
		return otherwise
	}
	return qos.Priority(number(LevelKey, int(qos.LastPriority), int(qos.LastPriority))), uint8(number(BacklogKey, 255, 0))
}
