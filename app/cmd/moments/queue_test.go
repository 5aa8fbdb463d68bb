// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/topology"
)

// fakeRegion answers as the admin pages of a region's services do, and gives its directory.
func fakeRegion(t *testing.T, alarm string) string {
	t.Helper()
	page := cluster.RegionsPage{
		Region: "hk",
		Line:   path.Status{Peers: []path.PeerStatus{{Region: 1, Name: "sh"}}},
		Queue: idcqueue.Status{Region: 2, Peers: []idcqueue.PeerStatus{{
			Region: 1, Send: idcqueue.SendStatus{State: idcqueue.CatchingUp, Depth: 17, LagMS: 4200}, Receive: idcqueue.ReceiveStatus{State: idcqueue.Live, Alarm: alarm},
		}}},
		Causality: &cluster.Causality{Members: []cluster.Member{{Number: 1, State: "active"}, {Number: 7, State: "lost"}}},
	}
	page.Causality.Held = 3
	mux := http.NewServeMux()
	mux.HandleFunc("GET /regions", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(page) })
	mux.HandleFunc("POST /queue", func(w http.ResponseWriter, r *http.Request) {
		var order cluster.QueueOrder
		if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		switch {
		case order.Do == cluster.QueueList:
			_ = json.NewEncoder(w).Encode([]cluster.Quarantined{{Service: topology.Comment, Name: "sh", Quarantined: idcqueue.Quarantined{
				From: 1, Slot: 1017, Seq: 42, At: time.UnixMilli(0), Reason: "a year ahead",
			}}})
		case order.Region != "sh":
			http.Error(w, "no such region: "+order.Region, http.StatusConflict)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	dir := filepath.Join(t.TempDir(), "data")
	data, err := cluster.OpenData(dir)
	if err != nil {
		t.Fatal(err)
	}
	state := cluster.State{Services: map[topology.Role]cluster.Running{}}
	for _, r := range topology.Joined() {
		state.Services[r] = cluster.Running{Admin: strings.TrimPrefix(server.URL, "http://")}
	}
	if err := data.WriteState(state); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestQueue(t *testing.T) {
	well, ill := fakeRegion(t, ""), fakeRegion(t, "1 records are in quarantine")
	nothing := filepath.Join(t.TempDir(), "nothing")
	for _, step := range []struct {
		args, dir string
		code      int
		want      string // in what it says
	}{
		{"queue", nothing, 1, "no running Moments"},
		{"queue", well, 0, "catching-up  17     4.2s"},
		{"queue", well, 0, "3 wait for their causes"},
		{"queue", well, 0, "Number 7 is lost"},
		{"queue", ill, 1, "comment from sh: 1 records are in quarantine"},
		{"queue held", well, 0, "a year ahead"},
		{"queue held", nothing, 1, "no running Moments"},
		{"queue release comment sh 1017 42", well, 0, "comment: done"},
		{"queue drop post sh 0 1", well, 0, "post: done"},
		{"queue drop post mars 0 1", well, 1, "no such region: mars"},
		{"queue drop post sh 4096 1", well, 2, "is no slot"},
		{"queue drop post sh 1 first", well, 2, "moments queue held"},
		{"queue drop posts sh 1 1", well, 2, "is no role"},
		{"queue drop timeline sh 1 1", well, 1, "not joined"},
		{"queue release comment sh", well, 2, "accepts 4"},
		{"queue accept sh", well, 0, "account: done"},
		{"queue accept sh --service comment", well, 0, "comment: done"},
		{"queue accept mars", well, 1, "no such region"},
		{"queue lost sh", well, 0, "comment: done"},
		{"queue left sh", well, 0, "comment: done"},
		{"queue lost", well, 2, "accepts 1"},
		{"queue dance", well, 2, "unknown command"},
	} {
		t.Run(step.args, func(t *testing.T) {
			code, stdout, stderr := moments(t, append(strings.Fields(step.args), "--data", step.dir)...)
			if code != step.code || !strings.Contains(stdout+stderr, step.want) {
				t.Errorf("exit %d, want %d with %q: %s%s", code, step.code, step.want, stdout, stderr)
			}
		})
	}
}
