// SPDX-License-Identifier: Apache-2.0

// Package callgraph counts every call of a system by entry, caller and callee, and
// makes call graphs of the counts.
//
// Nothing is sampled. A [Recorder] stands in each process. Whoever makes or serves
// a call finds the [Slot] of its edge, which is a lookup in a small table, and adds
// the call to it: result class, latency, bytes. Both take atomic additions only and
// allocate nothing. The numbers are cumulative since the process started, so a lost
// pull loses nothing; the [Process] epoch tells a restart from a counter that went
// down.
//
// A [Snapshot] is what one process has counted, and is read by whoever draws the
// graph. A [Period] is what was counted in a stretch of time: [Window] gives it for
// two snapshots of a process, [Merge] joins those of many. [Build] makes the [Graph]
// of one entry, which can be checked (both ends of each edge count it), filtered,
// searched and compared with that of another period. Package draw lays it out and
// draws it.
//
// The edges of a graph are exact for an entry, not for a path: when one method is
// reached in two ways within an entry, what lies below it is counted together.
//
// The package knows neither transport nor framework and does no input or output of
// its own; names are data from the wire and are treated as hostile.
package callgraph
