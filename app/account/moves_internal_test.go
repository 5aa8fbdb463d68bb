// SPDX-License-Identifier: Apache-2.0

package account

import (
	"testing"

	"github.com/sluice-rpc/sluice/app/id"
)

// TestAddedWhileLookedAfter: who is added while he is looked after is looked after again.
func TestAddedWhileLookedAfter(t *testing.T) {
	m := moves{open: make(map[id.User]bool), wake: make(chan struct{}, 1)}
	u := id.User{1}
	m.add(u)
	m.begin(u)
	m.add(u)
	if m.done(u); len(m.all()) != 1 {
		t.Error("what was added meanwhile is lost")
	}
	m.begin(u)
	if m.done(u); len(m.all()) != 0 {
		t.Error("he is looked after for ever")
	}
}
