// SPDX-License-Identifier: Apache-2.0

package qos

import "fmt"

// userBits is the width of a user level inside a Priority: 1<<userBits is UserLevels.
const userBits = 7

// Priority is class and user level as one number, the order in which an
// overloaded system gives way: smaller is better. A level that a server tells its
// callers is a Priority too: whoever is no worse is let in.
type Priority uint16

// The ends of the scale. LastPriority as a level means that everyone is let in.
const (
	LastPriority Priority = Priority(MaxClass)<<userBits | (UserLevels - 1)
	Priorities            = int(LastPriority) + 1 // how many there are
)

// PriorityOf ranks a request by class first and by user level within the class.
// Values outside their range count as the nearest one inside it, and Unspecified
// as Interactive: both come from headers, and a header may say anything.
func PriorityOf(c Class, userLevel uint8) Priority {
	if c == Unspecified {
		c = Interactive
	}
	return Priority(min(c, MaxClass))<<userBits | Priority(min(userLevel, UserLevels-1))
}

// Class gives the business class that p was made of.
func (p Priority) Class() Class { return Class(min(p, LastPriority) >> userBits) }

// UserLevel gives the user level that p was made of.
func (p Priority) UserLevel() uint8 { return uint8(p & (UserLevels - 1)) }

// String gives class and user level, "post/17".
func (p Priority) String() string { return fmt.Sprintf("%v/%d", p.Class(), p.UserLevel()) }

// Ticket counts the calls that leaves have already done for a task. Refusing a
// call of such a task throws that work away, so a call with a ticket goes before
// every call without one, whatever their classes (measured: 2 to 8 points of
// goodput, and a bonus inside the class alone gives back 1 to 4 of them).
type Ticket uint16

// Fresh says that nothing has been done for the task yet.
func (t Ticket) Fresh() bool { return t == 0 }

// Next is the ticket after one more call; the largest ticket stays as it is.
func (t Ticket) Next() Ticket {
	if t == ^Ticket(0) {
		return t
	}
	return t + 1
}
