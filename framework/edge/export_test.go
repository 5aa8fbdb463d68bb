// SPDX-License-Identifier: Apache-2.0

package edge

import "time"

// LookEvery sets how often the table of classes is looked at, before Run.
func (e *Entry) LookEvery(d time.Duration) { e.lookEvery = d }
