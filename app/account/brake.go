// SPDX-License-Identifier: Apache-2.0

package account

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// A brake slows down whoever tries passwords: each key may try so often at once, and
// then one more time in every so often. It remembers a bounded number of keys; one
// that it has forgotten, because others were used more recently, starts anew. It may
// be used concurrently.
type brake struct {
	burst int
	every time.Duration

	mu    sync.Mutex // held over a get and the put that follows
	tries *cache[brakeKey, tries]
}

// brakeKey is a digest: names come from anybody and have any length.
type brakeKey [16]byte

// tries is how much of its burst a key has used up, as of a time, counted in the
// time that it takes to come back.
type tries struct {
	debt time.Duration
	at   time.Time
}

// brakeKeys bounds each brake's memory: about 20 MB.
const brakeKeys = 100_000

func newBrake(burst int, every time.Duration) *brake {
	return &brake{burst: burst, every: every, tries: newCache[brakeKey, tries](brakeKeys)}
}

// take uses up one try of the key, or gives how long to wait for the next.
func (b *brake) take(k brakeKey, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.now(k, now)
	if wait = t.debt + b.every - time.Duration(b.burst)*b.every; wait > 0 {
		return wait
	}
	t.debt += b.every
	b.tries.put(k, t, 1)
	return 0
}

// giveBack undoes a take: the try was no failure.
func (b *brake) giveBack(k brakeKey, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.now(k, now)
	t.debt = max(0, t.debt-b.every)
	b.tries.put(k, t, 1)
}

func (b *brake) now(k brakeKey, now time.Time) tries {
	t, _ := b.tries.get(k)
	return tries{debt: max(0, t.debt-max(0, now.Sub(t.at))), at: now}
}

// brakes hold back those who guess passwords. A try counts while it is worked, so
// that many at once are no more than many in a row, and is given back unless the
// password was wrong: who logs in rightly is never held back by his own.
//
// All of it is the same whether an account has the name or not.
type brakes struct {
	// pair counts by name and place together. It is the tightest, so that whoever
	// guesses holds up himself and not the owner of the name, who is elsewhere.
	pair *brake
	// name counts by name over all places, for guesses that come from many: NIST's
	// Digital Identity Guidelines (SP 800-63B, section 5.2.2) allow 100 in a row.
	name *brake
	// source counts by place over all names, for one password tried on many.
	source *brake
}

func newBrakes() *brakes {
	return &brakes{pair: newBrake(20, time.Minute), name: newBrake(100, 20*time.Second), source: newBrake(100, time.Second)}
}

// take lets one try begin or refuses it. The try ends with a call of over, which
// says whether the password was wrong.
func (b *brakes) take(name, source string, now time.Time) (over func(wrong bool), err error) {
	type count struct {
		brake *brake
		key   brakeKey
	}
	// The sum keeps the two parts apart: neither has a NUL in a place that matters,
	// because the source's length is fixed by its own sum.
	from := sha256.Sum256([]byte(source))
	counts := []count{
		{b.pair, digest(string(from[:]) + name)},
		{b.name, digest(name)},
	}
	if source != "" {
		counts = append(counts, count{b.source, brakeKey(from[:16])})
	}
	for i, c := range counts {
		wait := c.brake.take(c.key, now)
		if wait == 0 {
			continue
		}
		for _, taken := range counts[:i] {
			taken.brake.giveBack(taken.key, now)
		}
		return nil, rpc.WithDetails(&rpc.Error{
			Code: rpc.ResourceExhausted, Retry: wait,
			Message: "too many attempts with a wrong password; wait a while",
		}, &momentsv1.Problem{Type: "rate-limited"})
	}
	return func(wrong bool) {
		if wrong {
			return
		}
		for _, c := range counts {
			c.brake.giveBack(c.key, now)
		}
	}, nil
}

func digest(s string) brakeKey {
	sum := sha256.Sum256([]byte(s))
	return brakeKey(sum[:16])
}

// maxSource is the most bytes of a source.
const maxSource = 64

func checkSource(s string) error {
	if len(s) > maxSource {
		return problem.Invalid("source", "has %d bytes, want at most %d", len(s), maxSource)
	}
	return nil
}
