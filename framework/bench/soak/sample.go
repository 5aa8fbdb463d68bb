// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/process"
)

// sample is what a process has at one moment.
type sample struct {
	at         time.Duration
	goroutines float64
	files      float64
	live, rss  float64 // bytes; live is what the last collection found in use
}

// watched is a process that is asked on its admin pages, or this one.
type watched struct {
	name    string
	admin   string // host:port; empty for this process
	samples []sample
}

// fields gives where the items go.
func (s *sample) fields() map[string]*float64 {
	return map[string]*float64{
		"go.goroutines": &s.goroutines, "process.file_descriptors": &s.files,
		"go.memory.live": &s.live, "process.memory.usage": &s.rss,
	}
}

// scraped are their names in a scrape.
var scraped = map[string]string{
	"go_goroutines": "go.goroutines", "process_file_descriptors": "process.file_descriptors",
	"go_memory_live_bytes": "go.memory.live", "process_memory_usage_bytes": "process.memory.usage",
}

func (w *watched) sample(ctx context.Context) (sample, error) {
	if w.admin == "" {
		return own(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.admin+"/metrics", nil)
	if err != nil {
		return sample{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return sample{}, err
	}
	defer res.Body.Close()
	return parse(res.Body)
}

// own is of this process.
func own() (s sample) {
	fields := s.fields()
	for _, f := range process.Items().Snapshot().Families {
		if field := fields[f.Name]; field != nil {
			*field = f.Series[0].Value
		}
	}
	return s
}

// parse picks what is looked for from a scrape.
func parse(r io.Reader) (s sample, err error) {
	fields := s.fields()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.FieldsFunc(lines.Text(), func(r rune) bool { return r == ' ' || r == '{' })
		if len(words) < 2 || fields[scraped[words[0]]] == nil {
			continue
		}
		if *fields[scraped[words[0]]], err = strconv.ParseFloat(words[len(words)-1], 64); err != nil {
			return s, fmt.Errorf("item %s: %w", words[0], err)
		}
		delete(fields, scraped[words[0]])
	}
	for name := range fields {
		return s, errors.Join(fmt.Errorf("a scrape does not have the item %s", name), lines.Err())
	}
	return s, nil
}
