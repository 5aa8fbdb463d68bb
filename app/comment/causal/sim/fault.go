// SPDX-License-Identifier: Apache-2.0

package sim

// Fault is a mistake that a run can make, to prove that it would be noticed.
type Fault uint8

// The faults.
const (
	None               Fault = iota
	NoDependencyCheck        // a record is taken in when its region's one before is there
	SequenceBeforeSync       // a sequence is given out, and sent, before it is durable
	IDAfterRestart           // an id's number begins anew when a server starts
	ModulusChanged           // ids are residues of the number of regions
	DeleteRemovesRow         // a delete is no operation: the row is removed, and others are told
	TombstoneEarly           // a deleted comment is forgotten once its deletion is here
	OrderByClock             // comments are in order of the writers' clocks
	OrderByArrival           // comments are in order of arrival
	OverflowSkips            // what the hold has no room for counts as taken in
	UnlikeWins               // who has ever unliked does not like
	KeysForgotten            // idempotency keys are kept in memory
	StaleRead                // a server shows what it has in memory
	faults
)

// Faults gives all of them but None.
func Faults() []Fault {
	var all []Fault
	for f := None + 1; f < faults; f++ {
		all = append(all, f)
	}
	return all
}

var faultNames = [faults]string{
	"none", "no dependency check", "sequence before it is durable", "id reused after a restart", "modulus changed",
	"delete as row removal", "tombstone dropped early", "order by wall clock", "order by arrival", "buffer overflow skips",
	"unlike always wins", "request keys lost on restart", "stale replica read",
}

func (f Fault) String() string { return faultNames[f] }
