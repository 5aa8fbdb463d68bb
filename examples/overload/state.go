// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// tierState is what a tier's admin pages say of it.
type tierState struct {
	Known bool  // whether the tier has answered
	Done  int64 // calls whose work has been done
	QoS   *qosState
}

// qosState is the part of /admin/qos that is shown; nil without admission.
type qosState struct {
	Limit   int `json:"limit"`   // calls that may run and not sleep
	Running int `json:"running"` // of these asleep: waiting for something other than a core
	Asleep  int `json:"asleep"`
	Waiting int `json:"waiting"`
	Level   struct {
		Class string `json:"class"` // "everyone" if nobody is kept out
		User  uint8  `json:"user"`
	} `json:"level"`
}

// level is the worst class, and the worst users of it, with a chance.
func (q *qosState) level() string {
	if q.Level.Class == everyone {
		return everyone
	}
	return fmt.Sprintf("%s/%d", q.Level.Class, q.Level.User)
}

const everyone = "everyone"

// askTime is short: the view goes on without a tier that is too busy to answer.
const askTime = 300 * time.Millisecond

var adminClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// state asks the tier's admin pages.
func (p *process) state(ctx context.Context) (s tierState) {
	ctx, stop := context.WithTimeout(ctx, askTime)
	defer stop()
	body, err := get(ctx, p.admin+"/done")
	if err != nil {
		return s
	}
	if _, err := fmt.Sscan(string(body), &s.Done); err != nil {
		return s
	}
	s.Known = true
	if body, err = get(ctx, p.admin+"/admin/qos"); err != nil {
		return s
	}
	q := &qosState{}
	if json.Unmarshal(body, q) == nil && q.Limit > 0 {
		s.QoS = q
	}
	return s
}

const maxPage = 1 << 20

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := adminClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, maxPage))
}
