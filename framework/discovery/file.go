// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
)

// File is a Source that reads a YAML file and looks at it again and again. A service has
// the instances that stand under its name, all of them taken over at once:
//
//	services:
//	  - name: greeter
//	    instances:
//	      - {addr: "10.0.1.7:7000", admin: "10.0.1.7:7100", campus: east, version: v7}
//	      - {addr: "10.0.2.7:7000", campus: west, weight: 50, draining: true}
//
// A file that cannot be read, or holds anything wrong, is refused as a whole in the log,
// with its lines, and the instances of before go on. A file without the service is wrong,
// too: whoever means to have none writes instances: [].
type File struct {
	Path  string
	Every time.Duration // how often it is looked at; 0 means a second
	Log   *slog.Logger  // nil means slog.Default()
}

type fileContent struct {
	Services []fileService `config:"services"`
}

type fileService struct {
	Name      string     `config:"name" doc:"name of the service, as its clients give it"`
	Instances []Instance `config:"instances"`
}

// Watch implements Source. It waits for a file that is not there yet.
func (f File) Watch(ctx context.Context, service string, changed func([]Instance)) error {
	log := f.Log
	if log == nil {
		log = slog.Default()
	}
	log = log.With(slog.String("file", f.Path), slog.String("service", service))
	refuse := func(err error) {
		log.Error("file of instances refused, those of before go on", slog.Any("err", err))
	}
	var last []Instance
	told := false
	w := config.Watcher[fileContent]{
		Source: config.Source{File: f.Path}, Every: f.Every, Refused: refuse,
		Changed: func(c fileContent) {
			all, err := c.of(service)
			switch {
			case err != nil:
				refuse(err)
			case !told || !slices.Equal(all, last):
				last, told = all, true
				changed(all)
			}
		},
	}
	return w.Run(ctx)
}

// of gives the instances of one service. What is wrong with another one's refuses the
// file, too: it is one hand's work.
func (c fileContent) of(service string) (of []Instance, err error) {
	seen := map[string]bool{}
	for _, s := range c.Services {
		all, err := Check(s.Instances)
		switch {
		case s.Name == "":
			return nil, fmt.Errorf("a service has no name")
		case seen[s.Name]:
			return nil, fmt.Errorf("service %s is there twice: put its instances together", s.Name)
		case err != nil:
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		if seen[s.Name] = true; s.Name == service {
			of = all
		}
	}
	if !seen[service] {
		return nil, fmt.Errorf("service %s is not there: for no instances write instances: []", service)
	}
	return of, nil
}
