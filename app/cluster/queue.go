// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/topology"
)

// QueueOrder is what an operator asks of the queue between regions of one service.
type QueueOrder struct {
	Do QueueDo `json:"do"`
	// Region is the other region, by name or number.
	Region string `json:"region,omitempty"`
	// Slot and Seq name what is in quarantine, for Release and Drop.
	Slot kv.Slot `json:"slot,omitempty"`
	Seq  uint64  `json:"seq,omitempty"`
}

// QueueDo is what is asked.
type QueueDo string

// What can be asked.
const (
	QueueList    QueueDo = "list"    // show what is in quarantine
	QueueRelease QueueDo = "release" // give it to the service again
	QueueDrop    QueueDo = "drop"    // give it up
	QueueAccept  QueueDo = "accept"  // take the log of a restored store in place of the known one
	QueueLost    QueueDo = "lost"    // give a region up; of the comment service only
	QueueLeft    QueueDo = "left"    // let a region go that the others have all of; likewise
)

// Quarantined is what a service has put aside of another region.
type Quarantined struct {
	Service topology.Role `json:"service"`
	Name    string        `json:"name"` // of the region that it came from
	idcqueue.Quarantined
}

// queueDoor lets who can read the data directory look after the queue of a service.
func (n *Node) queueDoor(r topology.Role) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		given, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(given), []byte(n.cfg.Data.token)) != 1 {
			http.Error(w, "the token in "+tokenFile+" of the data directory is wanted", http.StatusUnauthorized)
			return
		}
		queue := n.queues[r]
		if queue == nil {
			http.Error(w, fmt.Sprintf("%s is not joined to other regions", r), http.StatusNotFound)
			return
		}
		var order QueueOrder
		if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxOrder)).Decode(&order); err != nil {
			http.Error(w, fmt.Sprintf("the order cannot be read: %v", err), http.StatusBadRequest)
			return
		}
		if order.Do == QueueList {
			all, err := n.quarantine(req.Context(), r, queue)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(all) // the reader may have gone
			return
		}
		if err := n.queueDo(req.Context(), queue, r, order); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func (n *Node) quarantine(ctx context.Context, r topology.Role, queue *idcqueue.Queue) ([]Quarantined, error) {
	held, err := queue.Quarantine(ctx)
	all := make([]Quarantined, len(held))
	for i := range held {
		all[i] = Quarantined{Service: r, Name: n.regionName(held[i].From), Quarantined: held[i]}
	}
	return all, err
}

func (n *Node) queueDo(ctx context.Context, queue *idcqueue.Queue, r topology.Role, order QueueOrder) error {
	region, err := n.regionOf(order.Region)
	if err != nil {
		return err
	}
	switch order.Do {
	case QueueRelease:
		return queue.Release(ctx, region, order.Slot, order.Seq)
	case QueueDrop:
		return queue.Drop(ctx, region, order.Slot, order.Seq)
	case QueueAccept:
		return queue.Accept(ctx, region)
	case QueueLost, QueueLeft:
		if r != topology.Comment || n.causality == nil {
			return errors.New("regions are given up at the comment service")
		}
		state := causal.Left
		if order.Do == QueueLost {
			state = causal.Lost
		}
		return n.causality.End(ctx, region, state)
	case QueueList:
	}
	return fmt.Errorf("%q is nothing that a queue does", order.Do)
}

// regionOf reads a region by its name, as the configuration has it, or its number.
func (n *Node) regionOf(s string) (id.Region, error) {
	for _, p := range n.regions() {
		if strings.EqualFold(s, p.Name) {
			return p.ID(), nil
		}
	}
	number, err := strconv.ParseUint(s, 10, 16)
	if err != nil || number == 0 {
		return 0, fmt.Errorf("%q is no region: give the name of one in the configuration, or a number", s)
	}
	return id.Region(number), nil
}

func (n *Node) regionName(r id.Region) string {
	for _, p := range n.regions() {
		if p.ID() == r {
			return p.Name
		}
	}
	return strconv.Itoa(int(r))
}

// Causality is how the comments of a region stand to those of the others.
type Causality struct {
	comment.Causality
	Members []Member `json:"members"`
}

// Member is a number under which comments are made, or were.
type Member struct {
	Number id.Region `json:"number"`
	State  string    `json:"state"` // "active", "left" or "lost"
}

func (n *Node) causalityOf(r topology.Role) *Causality {
	if r != topology.Comment || n.causality == nil {
		return nil
	}
	c := &Causality{Causality: n.causality.Causality()}
	names := map[causal.Membership]string{causal.Active: "active", causal.Left: "left", causal.Lost: "lost"}
	for _, m := range n.causality.Registry().Members() {
		c.Members = append(c.Members, Member{Number: m.Number, State: names[m.State]})
	}
	return c
}

// Queues gives how the services of a running Moments are joined to other regions, by the
// role that is asked.
func Queues(ctx context.Context, dataDir string) (map[topology.Role]RegionsPage, error) {
	state, err := ReadState(dataDir)
	if err != nil {
		return nil, err
	}
	all := make(map[topology.Role]RegionsPage)
	for _, r := range topology.Joined() {
		var page RegionsPage
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+state.Services[r].Admin+"/regions", nil)
		if err != nil {
			return nil, err
		}
		if err := askAdmin(req, &page); err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		all[r] = page
	}
	return all, nil
}

// Quarantine gives what the services of a running Moments have put aside.
func Quarantine(ctx context.Context, dataDir string) (all []Quarantined, err error) {
	for _, r := range topology.Joined() {
		var some []Quarantined
		if err := OrderQueue(ctx, dataDir, r, QueueOrder{Do: QueueList}, &some); err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// OrderQueue has a service of a running Moments do something about its queue. What it
// answers is read into answer, unless that is nil.
func OrderQueue(ctx context.Context, dataDir string, r topology.Role, order QueueOrder, answer any) error {
	if !slices.Contains(topology.Joined(), r) {
		return fmt.Errorf("%s is not joined to other regions: use one of %v", r, topology.Joined())
	}
	state, err := ReadState(dataDir)
	if err != nil {
		return err
	}
	token, err := ReadToken(dataDir)
	if err != nil {
		return err
	}
	body, err := json.Marshal(order)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+state.Services[r].Admin+"/queue", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if err := askAdmin(req, answer); err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	return nil
}

// askAdmin asks an admin page, and reads what it says into answer, unless that is nil.
func askAdmin(req *http.Request, answer any) error {
	res, err := adminClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w: its process does not answer: %w", ErrNotRunning, err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if res.StatusCode >= http.StatusMultipleChoices {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // what came is enough
		return errors.New(strings.TrimSpace(string(said)))
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(answer)
}
