// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// The people of the benchmarks have about as many friends as those of the Reed98
// graph: 962 people, 39 friends on average.
const benchPeople, benchFriends = 962, 39

func benchHouse(b *testing.B) *house {
	b.Helper()
	open := func() kv.Store {
		s, err := pebblekv.Open(b.TempDir(), pebblekv.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		return s
	}
	h := rebuild(b, houseConfig{bare: true, cap: 1 << 20}, new(relationstest.Account), open(), open(), open())
	r := rand.New(rand.NewPCG(1, 2))
	for range benchPeople * benchFriends / 2 {
		if x, y := r.IntN(benchPeople), r.IntN(benchPeople); x != y {
			h.account.Befriend(user(x), user(y))
		}
	}
	return h
}

// cpu gives the processor time of the process, all threads.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFanOut posts from 8 workers, as load's mode F does, until all is drained.
// Reported per delivery, posting included.
func BenchmarkFanOut(b *testing.B) {
	h := benchHouse(b)
	stop := h.run()
	defer stop()
	h.settle()
	text := fmt.Sprintf("%0256d", 0)
	begin := cpu(b)
	var n atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n.Add(1) <= int64(b.N) {
				at := time.Now()
				h.publish(user(rand.IntN(benchPeople)), text)
				d := time.Since(at)
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	h.settle()
	b.StopTimer()
	res, err := h.Post.FanOutStatus(b.Context(), &momentsv1.FanOutStatusRequest{})
	if err != nil {
		b.Fatal(err)
	}
	deliveries := float64(res.GetDeliveries())
	slices.Sort(took)
	b.ReportMetric(float64((cpu(b)-begin).Microseconds())/deliveries, "cpu-µs/delivery")
	b.ReportMetric(deliveries/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "post-p99-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHome reads first pages of ten, with 5 comments and 5 likes on each post or
// with none.
func BenchmarkHome(b *testing.B) {
	for _, with := range []int{0, 5} {
		b.Run(fmt.Sprintf("comments=%d", with), func(b *testing.B) {
			h := benchHouse(b)
			stop := h.run()
			defer stop()
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for i := w; i < 2000; i += 8 {
						author := user(i % benchPeople)
						p := h.publish(author, fmt.Sprintf("%0256d", i))
						for j := range with {
							h.comment(author, p, "", fmt.Sprint("comment ", j))
						}
						for _, f := range h.someFriends(author, with) {
							if _, err := h.Comment.Like(b.Context(), &momentsv1.LikeRequest{UserId: f.String(), PostId: p}); err != nil {
								b.Error(err)
							}
						}
					}
				})
			}
			wg.Wait()
			h.settle()
			begin := cpu(b)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if n := len(h.page(user(rand.IntN(benchPeople)), "", 10).GetItems()); n < 5 {
						b.Errorf("a page of %d", n)
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-begin).Microseconds())/float64(b.N), "cpu-µs/read")
		})
	}
}

func (h *house) someFriends(u id.User, n int) (out []id.User) {
	res, err := h.account.ListFriends(h.t.Context(), &momentsv1.ListFriendsRequest{UserId: u.String(), Limit: uint32(n)})
	if err != nil {
		h.t.Fatalf("%v", err)
	}
	for _, v := range res.GetUserIds() {
		f, err := id.ParseUser(v)
		if err != nil {
			h.t.Fatalf("%v", err)
		}
		out = append(out, f)
	}
	return out
}
