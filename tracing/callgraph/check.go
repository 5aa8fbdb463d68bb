// SPDX-License-Identifier: Apache-2.0

package callgraph

// Check compares what both ends of an edge have counted:
//
//	attempts = served + not delivered + lost
//
// where lost attempts are among those whose callers stopped waiting. It holds at
// rest, and for a window give or take the calls under way at its ends. Client and
// server must agree on all callers: calls of clients that do not count show as
// negative Lost.
type Check struct {
	Attempts     uint64             // by clients
	NotDelivered [NumClasses]uint64 // attempts of which the server never heard, by class
	Uncertain    uint64             // attempts whose callers stopped waiting
	Served       uint64             // by servers, refusals included
	Lost         int64              // Attempts - NotDelivered - Served
}

// CheckEdge checks one edge by what its clients and its servers have counted.
func CheckEdge(client, server Stats) Check {
	c := Check{Attempts: client.AttemptCount(), Served: server.Calls()}
	var undelivered uint64
	for i, n := range client.Attempts {
		switch Class(i).Delivery() {
		case NotDelivered:
			c.NotDelivered[i] = n
			undelivered = add(undelivered, n)
		case Uncertain:
			c.Uncertain = add(c.Uncertain, n)
		case Delivered:
		}
	}
	const most = 1 << 61 // a process that lies must not make the difference go round
	c.Lost = int64(min(c.Attempts, most)) - int64(min(undelivered, most)) - int64(min(c.Served, most))
	return c
}

// OK reports whether both ends agree.
func (c Check) OK() bool { return c.Lost >= 0 && uint64(c.Lost) <= c.Uncertain }
