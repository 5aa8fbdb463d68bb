// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/sluice-rpc/sluice/framework/config"
)

// ClientOf is a connection that Watch keeps configured, and where its configuration stands
// in a program's file.
type ClientOf[T any] struct {
	Conn *Conn // that Dial has made
	Pick func(T) ClientConfig
}

// Watch follows the file of src until ctx ends: each time it changes, what pick gives of
// it becomes the server's configuration, as by Server.Reload, and what each of clients
// picks becomes that of its connection, as by Conn.Reload. A file that is wrong for one of
// them changes nothing at any: that is told to the log and to /admin/config, and what was
// before goes on. The first look changes nothing unless the file has changed since it was
// loaded. It waits for the server to run. A program that serves nothing gives no server
// and no pick. Each connection is followed by one Watch.
func Watch[T any](ctx context.Context, s *Server, defaults T, src config.Source, pick func(T) ServerConfig, clients ...ClientOf[T]) error {
	for i, c := range clients {
		if c.Conn == nil || c.Conn.dialed == nil || c.Pick == nil {
			return fmt.Errorf("framework.Watch: clients[%d]: give a connection of Dial, and Pick", i)
		}
		for _, before := range clients[:i] {
			if before.Conn == c.Conn {
				return fmt.Errorf("framework.Watch: clients[%d]: its connection is there twice", i)
			}
		}
	}
	switch {
	case s == nil && len(clients) == 0:
		return errors.New("framework.Watch: neither server nor clients: there is nothing to configure")
	case s != nil && pick == nil:
		return errors.New("framework.Watch: pick is nil: it says where the server's configuration stands")
	case s != nil:
		select {
		case <-s.reloads.began:
		case <-ctx.Done():
			return nil
		}
	}
	all := func(file T) (parts []part) {
		if s != nil {
			parts = append(parts, part{
				mu: &s.reloads.mu, note: s.note,
				prepare: func() ([]config.Change, func(), error) { return s.prepare(pick(file)) },
			})
		}
		for _, c := range clients {
			parts = append(parts, part{
				mu: &c.Conn.dialed.mu, note: c.Conn.dialed.note,
				prepare: func() ([]config.Change, func(), error) { return c.Conn.prepare(c.Pick(file)) },
			})
		}
		return parts
	}
	log := slog.Default()
	if s != nil {
		log = s.opts.log
	}
	began := false // the first look is no change
	return config.Watcher[T]{
		Defaults: defaults, Source: src,
		Changed: func(file T) {
			if same := together(all(file)); same && began {
				log.Info("configuration read again: nothing is different that is followed", slog.String("file", src.File))
			}
			began = true
		},
		Refused: func(err error) {
			first := all(defaults)[0]
			first.mu.Lock()
			defer first.mu.Unlock()
			first.note(nil, err)
		},
	}.Run(ctx)
}

// A part of a file is the configuration of one server or connection. All but mu is
// called with mu held.
type part struct {
	mu      *sync.Mutex
	prepare func() (changes []config.Change, take func(), err error)
	note    func([]config.Change, error)
}

// together takes all parts of a file, or none. It says whether all are as they were.
func together(parts []part) (same bool) {
	var errs []error
	takes := make([]func(), len(parts))
	changes := make([][]config.Change, len(parts))
	for i, p := range parts {
		p.mu.Lock()
		defer p.mu.Unlock()
		var err error
		if changes[i], takes[i], err = p.prepare(); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		parts[0].note(nil, err)
		return false
	}
	same = true
	for i, p := range parts {
		takes[i]()
		p.note(changes[i], nil)
		same = same && len(changes[i]) == 0
	}
	return same
}
