// SPDX-License-Identifier: Apache-2.0

// Package topology says which region a process belongs to, which roles Moments has
// and where each of them is reached.
package topology

import (
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/qos"
)

// Role is a part of Moments that can be a process of its own.
type Role string

// The roles.
const (
	Account  Role = "account"
	Post     Role = "post"
	Timeline Role = "timeline"
	Comment  Role = "comment"
	Gateway  Role = "gateway"
)

// Services are the roles that answer RPC and own a store, each before those that
// keep what it has made: a backup in this order holds nothing that hides a loss.
func Services() []Role { return []Role{Account, Post, Comment, Timeline} }

// Roles are all roles.
func Roles() []Role { return append(Services(), Gateway) }

// ParseRole reads a role.
func ParseRole(s string) (Role, error) {
	names := make([]string, 0, 5)
	for _, r := range Roles() {
		if s == string(r) {
			return r, nil
		}
		names = append(names, string(r))
	}
	return "", fmt.Errorf("%q is no role: use %s", s, strings.Join(names, ", "))
}

// Config is the file that every process of a region shares.
type Config struct {
	Region   Region  `config:"region"`
	Account  Service `config:"account"`
	Post     Service `config:"post"`
	Timeline Service `config:"timeline"`
	Comment  Service `config:"comment"`
	Gateway  Door    `config:"gateway"`
}

// Region is a part of the world that serves its own users.
type Region struct {
	Number uint32 `config:"number" doc:"number of the region, never given to another one: it is part of every id made here" min:"1" max:"65535"`
	Name   string `config:"name" doc:"name of the region, for people"`
}

// ID gives the number as ids carry it.
func (r Region) ID() id.Region { return id.Region(r.Number) }

var regionName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Validate finds contradictions.
func (r Region) Validate() error {
	if !regionName.MatchString(r.Name) {
		return config.Wrong("name", "%q: use at most 32 lower-case letters, digits and inner hyphens", r.Name)
	}
	return nil
}

// Service is where one service is.
type Service struct {
	Listen string   `config:"listen" doc:"host:port on which this process serves the calls of the service; port 0 takes a free one"`
	Admin  string   `config:"admin" doc:"host:port of the service's admin pages; port 0 takes a free one"`
	Addrs  []string `config:"addrs" doc:"host:port of the service's instances, for processes that do not run it themselves"`
}

// Validate finds contradictions.
func (s Service) Validate() error {
	if err := checkAddr("listen", s.Listen); err != nil {
		return err
	}
	if err := checkAddr("admin", s.Admin); err != nil {
		return err
	}
	for _, addr := range s.Addrs {
		if err := checkAddr("addrs", addr); err != nil {
			return err
		}
		if _, port, _ := net.SplitHostPort(addr); port == "0" {
			return config.Wrong("addrs", "%q: port 0 cannot be called; give the port that the service listens on", addr)
		}
	}
	return nil
}

// Door is where a gateway listens, and how it treats its users.
type Door struct {
	Listen  string `config:"listen" doc:"host:port of the page and the HTTP API; port 0 takes a free one"`
	Limits  bool   `config:"limits" doc:"whether each user's writes are limited"`
	TLSCert string `config:"tls-cert" doc:"PEM file of the certificate; with it the gateway speaks HTTPS only"`
	TLSKey  string `config:"tls-key" doc:"PEM file of the certificate's key"`
	Admin   string `config:"admin" doc:"host:port of the gateway's admin pages; port 0 takes a free one"`

	Admission string        `config:"admission" doc:"on or off: whether an overloaded gateway refuses what matters least"`
	QoSKey    config.Secret `config:"qos-key" doc:"64 hexadecimal digits, the same for all gateways and nobody else: the secret behind the levels of users; empty for one that each gateway makes for itself"`
	QoSTable  string        `config:"qos-table" doc:"YAML file with the classes of routes that have another one than their contract says, read again when it changes; empty for none"`
}

// Key gives the secret behind the levels of users, zero if there is none.
func (d Door) Key() qos.Key {
	k, err := qos.ParseKey(string(d.QoSKey))
	if err != nil { // Validate has said so
		return qos.Key{}
	}
	return k
}

// Validate finds contradictions.
func (d Door) Validate() error {
	if (d.TLSCert == "") != (d.TLSKey == "") {
		return config.Wrong("tls-cert", "give both tls-cert and tls-key, or neither")
	}
	if d.Admission != framework.AdmissionOn && d.Admission != framework.AdmissionOff {
		return config.Wrong("admission", "%q: want on or off", d.Admission)
	}
	if d.QoSKey != "" {
		if _, err := qos.ParseKey(string(d.QoSKey)); err != nil {
			return config.Wrong("qos-key", "%v", err)
		}
	}
	if err := checkAddr("admin", d.Admin); err != nil {
		return err
	}
	return checkAddr("listen", d.Listen)
}

func checkAddr(setting, addr string) error {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		return config.Wrong(setting, "%q is not host:port, for example 127.0.0.1:7000", addr)
	}
	return nil
}

// Default is one region on this machine, everything on free ports but the page.
func Default() Config {
	s := Service{Listen: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	return Config{
		Region:  Region{Number: 1, Name: "local"},
		Account: s, Post: s, Timeline: s, Comment: s,
		Gateway: Door{Listen: "127.0.0.1:8080", Admin: "127.0.0.1:0", Limits: true, Admission: framework.AdmissionOn},
	}
}

// Service gives the place of a service.
func (c *Config) Service(r Role) *Service {
	switch r {
	case Account:
		return &c.Account
	case Post:
		return &c.Post
	case Timeline:
		return &c.Timeline
	case Comment:
		return &c.Comment
	case Gateway:
	}
	return nil
}

// Load reads a file over the defaults, and then settings of the form name=value,
// for example account.addrs=127.0.0.1:7001. Without a file there are only these.
func Load(file string, settings []string) (Config, error) {
	args := make([]string, len(settings))
	for i, s := range settings {
		if !strings.Contains(s, "=") {
			return Config{}, fmt.Errorf("setting %q is not name=value, for example account.addrs=127.0.0.1:7001", s)
		}
		args[i] = "-" + s
	}
	return config.Load(Default(), config.Source{File: file, Args: args})
}
