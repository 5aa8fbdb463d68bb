// SPDX-License-Identifier: Apache-2.0

package sim

// chance is a stream of numbers that a seed decides, the same for ever: SplitMix64
// (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
type chance uint64

func (c *chance) next() uint64 {
	*c += 0x9e3779b97f4a7c15
	z := uint64(*c)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below gives a number from 0 to n-1. The bias of a remainder is far below what matters.
func (c *chance) below(n int) int { return int(c.next() % uint64(n)) }

// between gives a number from low to high, both included.
func (c *chance) between(low, high int64) int64 {
	return low + int64(c.next()%uint64(high-low+1))
}

// percent is true n times out of 100.
func (c *chance) percent(n int) bool { return c.below(100) < n }
