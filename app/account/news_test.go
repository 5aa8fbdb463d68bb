// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// notices is a notify service that keeps each event once.
type notices struct {
	mu    sync.Mutex
	fail  int                      // guarded by mu; how many calls fail first
	known map[string]bool          // guarded by mu
	all   []*momentsv1.NoticeEvent // guarded by mu
}

func (n *notices) Forget(context.Context, *momentsv1.ForgetRequest) (*momentsv1.ForgetResponse, error) {
	return new(momentsv1.ForgetResponse), nil
}

func (n *notices) Record(_ context.Context, req *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail > 0 {
		n.fail--
		return nil, rpc.Errorf(rpc.Unavailable, "not now")
	}
	for _, e := range req.GetEvents() {
		if key := e.GetOperationId() + fmt.Sprint(e.GetReaderIds()); !n.known[key] {
			n.known[key] = true
			n.all = append(n.all, e)
		}
	}
	return new(momentsv1.RecordResponse), nil
}

// TestNewsOfFriendship: who is told of what, over a restart and a notify service that is
// away at first, and what of it still stands at the end.
func TestNewsOfFriendship(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []string // who does what
		want  []string // who is told what, in order for each; "gone" if it does not stand
	}{
		{"a request", []string{"a request"}, []string{"b: a asks, 1"}},
		{"asked twice", []string{"a request", "a request"}, []string{"b: a asks, 1"}},
		{"accepted", []string{"a request", "b accept"}, []string{"a: b accepted, 1", "b: a asks, 1"}},
		{"asked back", []string{"a request", "b request"}, []string{"a: b accepted, 1", "b: a asks, 1"}},
		{"declined", []string{"a request", "b decline"}, []string{"b: a asks, 1, gone"}},
		{"withdrawn", []string{"a request", "a unfriend"}, []string{"b: a asks, 1, gone"}},
		{"asked again", []string{"a request", "b decline", "a request"}, []string{"b: a asks, 1, gone", "b: a asks, 2"}},
		{"unfriended", []string{"a request", "b accept", "b unfriend"}, []string{"a: b accepted, 1, gone", "b: a asks, 1, gone"}},
		{
			"friends again",
			[]string{"a request", "b accept", "a unfriend", "b request", "a accept"},
			[]string{"a: b accepted, 1, gone", "a: b asks, 2", "b: a asks, 1, gone", "b: a accepted, 2"},
		},
		{"blocked", []string{"b block", "a request"}, nil},
		{"unblocked", []string{"b block", "a request", "b unblock", "a request"}, []string{"b: a asks, 2"}},
		{"blocked later", []string{"a request", "b accept", "b block"}, []string{"a: b accepted, 1, gone", "b: a asks, 1, gone"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, told := memkv.New(), &notices{known: map[string]bool{}, fail: 2}
				defer store.Close()
				w := open(t, store)
				names := map[string]string{w.register("aa"): "a", w.register("bb"): "b"}
				ids := map[string]string{}
				for u, name := range names {
					ids[name] = u
				}
				for _, step := range c.steps {
					who, other := step[:1], "b"
					if who == "b" {
						other = "a"
					}
					w.must(step[2:], ids[who], ids[other])
				}
				for range 2 { // the second process finds nothing more to tell
					cfg := config(store)
					cfg.Notify, cfg.Logger = told, slog.New(slog.DiscardHandler)
					svc, err := account.New(t.Context(), cfg)
					if err != nil {
						t.Fatal(err)
					}
					ctx, stop := context.WithTimeout(t.Context(), time.Minute)
					if err := svc.Run(ctx); err != nil {
						t.Error(err)
					}
					stop()
				}
				var got []string
				for _, e := range told.all {
					reader := e.GetReaderIds()[0]
					accepted := e.GetKind() == momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED
					line := fmt.Sprintf("%s: %s asks, %d", names[reader], names[e.GetActorId()], e.GetFriendRound())
					if accepted {
						line = fmt.Sprintf("%s: %s accepted, %d", names[reader], names[e.GetActorId()], e.GetFriendRound())
					}
					res, err := w.ShowFriendActs(t.Context(), &momentsv1.ShowFriendActsRequest{ViewerId: reader, Acts: []*momentsv1.FriendAct{
						{ActorId: e.GetActorId(), Round: e.GetFriendRound(), Accepted: accepted},
					}})
					if err != nil {
						t.Fatal(err)
					}
					if !res.GetShown()[0] {
						line += ", gone"
					}
					got = append(got, line)
				}
				slices.SortStableFunc(got, func(x, y string) int { return int(x[0]) - int(y[0]) }) // slots are told side by side
				if !slices.Equal(got, c.want) {
					t.Errorf("told %q, want %q", got, c.want)
				}
			})
		})
	}
}
