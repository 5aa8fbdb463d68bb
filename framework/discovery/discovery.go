// SPDX-License-Identifier: Apache-2.0

// Package discovery says which instances of a service there are. A client is given a
// Source and follows it; registries of other kinds are packages of their own.
package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Instance is one process that serves a service.
type Instance struct {
	// Addr is the host:port that it serves on. It tells instances apart.
	Addr string `json:"addr" config:"addr" doc:"host:port that the instance serves on"`
	// Admin is the host:port of its admin pages, for a console to find. May be empty, and
	// begins with "https://" for one behind TLS.
	Admin string `json:"admin,omitempty" config:"admin" doc:"host:port of the admin pages, for consoles"`
	// Campus is where it stands: callers of the same campus prefer it. May be empty.
	Campus string `json:"campus,omitempty" config:"campus" doc:"where the instance stands"`
	// Weight is its share of the calls beside the others', 1 to 1,000. Zero means 100.
	Weight int `json:"weight,omitempty" config:"weight" unit:"parts" min:"0" max:"1000" doc:"share of the calls beside those of the others; 0 means 100"`
	// Version is that of its program, for who operates it.
	Version string `json:"version,omitempty" config:"version" doc:"version of the program"`
	// Draining says that it takes no new calls; those that run go on.
	Draining bool `json:"draining,omitempty" config:"draining" doc:"whether it takes no new calls"`
}

// The weights of instances.
const (
	DefaultWeight = 100
	MaxWeight     = 1_000
)

// Check gives the instance with its weight set, or what is wrong with it.
func (i Instance) Check() (Instance, error) {
	if err := checkAddr("addr", i.Addr); err != nil {
		return i, err
	}
	if i.Admin != "" {
		if err := checkAddr("admin", strings.TrimPrefix(i.Admin, "https://")); err != nil {
			return i, fmt.Errorf("%s: %w", i.Addr, err)
		}
	}
	if i.Weight < 0 || i.Weight > MaxWeight {
		return i, fmt.Errorf("weight of %s is %d: it must be 1 to %d", i.Addr, i.Weight, MaxWeight)
	}
	i.Weight = cmp.Or(i.Weight, DefaultWeight)
	return i, nil
}

// Parse reads an instance as a registry holds it, in JSON, and checks it.
func Parse(b []byte) (Instance, error) {
	var i Instance
	if err := json.Unmarshal(b, &i); err != nil {
		return i, err
	}
	return i.Check()
}

func checkAddr(field, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	switch n, portErr := strconv.ParseUint(port, 10, 16); {
	case err != nil:
		return fmt.Errorf("%s %q is not host:port: %w", field, addr, err)
	case host == "":
		return fmt.Errorf("%s %q has no host", field, addr)
	case portErr != nil || n == 0:
		return fmt.Errorf("%s %q: the port must be a number from 1 to 65535", field, addr)
	}
	return nil
}

// Check gives the instances in the order of their addresses, with their weights set, or
// all that is wrong with them. An address may be there once.
func Check(all []Instance) ([]Instance, error) {
	out := make([]Instance, 0, len(all))
	var wrong []error
	seen := map[string]bool{}
	for _, i := range all {
		i, err := i.Check()
		if err == nil && seen[i.Addr] {
			err = fmt.Errorf("addr %q is there twice", i.Addr)
		}
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		seen[i.Addr] = true
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Instance) int { return cmp.Compare(a.Addr, b.Addr) })
	return out, errors.Join(wrong...)
}

// A Source knows the instances of services.
type Source interface {
	// Watch tells the instances of a service, all of them, as soon as it knows them and
	// whenever they change, one call after the other, until ctx ends; then it returns
	// nil. While it cannot find out it tells nothing: the last list goes on. An error
	// means that it will never find out.
	Watch(ctx context.Context, service string, changed func([]Instance)) error
}

// Static is a Source of instances that never change, by service.
type Static map[string][]Instance

// Watch implements Source.
func (s Static) Watch(ctx context.Context, service string, changed func([]Instance)) error {
	all, err := Check(s[service])
	if err != nil {
		return fmt.Errorf("instances of %s: %w", service, err)
	}
	changed(all)
	<-ctx.Done()
	return nil
}
