// SPDX-License-Identifier: Apache-2.0

// Package topology says which region a process belongs to, which roles Moments has
// and where each of them is reached.
package topology

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/link"
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
	Notify   Role = "notify"
	Media    Role = "media"
	Edge     Role = "edge"
	Gateway  Role = "gateway"
)

// Services are the roles that answer RPC and own a store, each before those that
// keep what it has made: a backup in this order holds nothing that hides a loss. Media
// come last, so that it has those of every post that it has.
func Services() []Role { return []Role{Account, Post, Comment, Notify, Timeline, Media} }

// Roles are all roles.
func Roles() []Role { return append(Placed(), Gateway) }

// Placed are the roles with one place in the configuration: the services, and the edge,
// which answers HTTP and owns nothing.
func Placed() []Role { return append(Services(), Edge) }

// ParseRole reads a role.
func ParseRole(s string) (Role, error) {
	names := make([]string, 0, 8)
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
	Notify   Service `config:"notify"`
	Media    Service `config:"media"`
	Edge     Service `config:"edge"`
	Gateway  Door    `config:"gateway"`
	Files    Files   `config:"files"`
	Line     Line    `config:"line"`
	Regions  []Peer  `config:"regions" doc:"the other regions; read again when the file changes"`
}

// Abroad reports whether there are other regions, or may be: a region that has a
// certificate for its lines is one that others may join while it runs.
func (c Config) Abroad() bool { return len(c.Regions) > 0 || c.Line.Cert != "" }

// Validate finds contradictions.
func (c Config) Validate() error {
	for i, p := range c.Regions {
		if p.Number == c.Region.Number || p.Name == c.Region.Name {
			return config.Wrong(fmt.Sprintf("regions[%d]", i), "region %d (%s) has the number or the name of this one: list the other regions only", p.Number, p.Name)
		}
		for _, q := range c.Regions[:i] {
			if p.Number == q.Number || p.Name == q.Name {
				return config.Wrong(fmt.Sprintf("regions[%d]", i), "region %d (%s) has the number or the name of another one", p.Number, p.Name)
			}
		}
	}
	if c.Abroad() && (c.Line.CA == "" || c.Line.Cert == "" || c.Line.Key == "") {
		return config.Wrong("line", "regions talk under certificates: give ca, cert and key; moments certs --help says how to make them")
	}
	return nil
}

// Line is how peers in other regions reach this one: each service that they copy from
// listens on an address of its own, and so do gateway and edge, under mutual TLS.
type Line struct {
	CA      string `config:"ca" doc:"PEM file of the authority behind the certificates of all regions"`
	Cert    string `config:"cert" doc:"PEM file of this region's certificate, which names it; read again when it changes"`
	Key     string `config:"key" doc:"PEM file of the certificate's key"`
	Account string `config:"account" doc:"host:port on which peers of the account service are accepted; port 0 takes a free one"`
	Post    string `config:"post" doc:"likewise for the post service"`
	Comment string `config:"comment" doc:"likewise for the comment service"`
	Gateway string `config:"gateway" doc:"host:port on which the gateway accepts those of other regions; port 0 takes a free one, empty for none"`
	Edge    string `config:"edge" doc:"likewise for the edge"`

	CatchUp config.Size `config:"catch-up" doc:"most bytes a second that each service sends to a peer that is behind; 0B for no limit" min:"0B"`

	Ahead time.Duration `config:"ahead" doc:"how far ahead of the clock here the time of posts, comments and likes of other regions may be; what is further ahead waits for an operator, see moments queue held" min:"1s"`
}

// Validate finds contradictions.
func (l Line) Validate() error {
	return checkFacing(l.Addr)
}

// Addr gives where peers of a role are accepted, empty for one that has none.
func (l Line) Addr(r Role) string {
	if at := pick(r, &l.Account, &l.Post, &l.Comment, &l.Gateway, &l.Edge); at != nil {
		return *at
	}
	return ""
}

// Peer is another region.
type Peer struct {
	Number  uint32 `config:"number" doc:"number of the region" min:"1" max:"255"`
	Name    string `config:"name" doc:"name of the region, as its certificate has it"`
	Account string `config:"account" doc:"host:port on which its account service accepts peers"`
	Post    string `config:"post" doc:"likewise of its post service"`
	Comment string `config:"comment" doc:"likewise of its comment service"`
	Gateway string `config:"gateway" doc:"host:port on which its gateway accepts those of other regions, for what only a home region does; empty for none"`
	Edge    string `config:"edge" doc:"host:port on which its edge accepts those of other regions, for photos and videos that were put up there; empty for none"`
}

// ID gives the number as ids carry it.
func (p Peer) ID() id.Region { return id.Region(p.Number) }

// Addr gives where a role of the region accepts peers, empty for one that has none.
func (p Peer) Addr(r Role) string {
	if at := p.At(r); at != nil {
		return *at
	}
	return ""
}

// At gives the setting behind Addr, nil for a role that accepts no peers.
func (p *Peer) At(r Role) *string {
	return pick(r, &p.Account, &p.Post, &p.Comment, &p.Gateway, &p.Edge)
}

// Validate finds contradictions.
func (p Peer) Validate() error {
	if err := (Region{Name: p.Name}).Validate(); err != nil {
		return err
	}
	return checkFacing(p.Addr)
}

// checkFacing looks at the addresses for peers. Who serves no web may have no gateway and
// no edge.
func checkFacing(addr func(Role) string) error {
	for _, r := range Facing() {
		if at := addr(r); at != "" || slices.Contains(Joined(), r) {
			if err := checkAddr(string(r), at); err != nil {
				return err
			}
		}
	}
	return nil
}

// Facing are the roles that accept peers of other regions, each on an address of its own.
func Facing() []Role { return append(Joined(), Gateway, Edge) }

// Joined are the services that are joined to those of other regions.
func Joined() []Role { return []Role{Account, Post, Comment} }

func pick(r Role, account, post, comment, gateway, edge *string) *string {
	switch r {
	case Account:
		return account
	case Post:
		return post
	case Comment:
		return comment
	case Gateway:
		return gateway
	case Edge:
		return edge
	default:
		return nil
	}
}

// Files is how photos and videos are kept and given out.
type Files struct {
	Blobs     string        `config:"blobs" doc:"URL of the bucket that the media service keeps photos and videos in, for example file:///var/lib/moments/blobs or s3://bucket?region=eu-central-1; empty for a directory in the data directory"`
	LinkKey   config.Secret `config:"link-key" doc:"64 hexadecimal digits, the same for all gateways and edges, of other regions too, and nobody else: the secret behind the links to photos and videos; empty for one that is kept in the data directory"`
	CacheDir  string        `config:"cache-dir" doc:"directory of an edge's cache; empty for one in the data directory"`
	CacheSize config.Size   `config:"cache-size" doc:"most that an edge keeps" min:"1MiB"`
}

// Validate finds contradictions.
func (f Files) Validate() error {
	if f.LinkKey != "" {
		if _, err := link.ParseKey(string(f.LinkKey)); err != nil {
			return config.Wrong("link-key", "%v", err)
		}
	}
	return nil
}

// Region is a part of the world that serves its own users.
type Region struct {
	Number uint32 `config:"number" doc:"number of the region, never given to another one: it is part of every id made here" min:"1" max:"255"`
	Name   string `config:"name" doc:"name of the region, for people"`

	Clock time.Duration `config:"clock" doc:"added to the wall clock of the services, for trials of a clock that is wrong" min:"-87600h" max:"87600h"`
}

// Now gives the clock of the region's services, nil for the wall clock.
func (r Region) Now() func() time.Time {
	if r.Clock == 0 {
		return nil
	}
	return func() time.Time { return time.Now().Add(r.Clock) }
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
	AccessLog string        `config:"access-log" doc:"file that gets a JSON line for each request that has ended; empty for none, - for standard error"`
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
	if d.Admission != framework.On && d.Admission != framework.Off {
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
		Account: s, Post: s, Timeline: s, Comment: s, Notify: s, Media: s, Edge: s,
		Files:   Files{CacheSize: 1 << 30},
		Line:    Line{Account: "127.0.0.1:0", Post: "127.0.0.1:0", Comment: "127.0.0.1:0", Gateway: "127.0.0.1:0", Edge: "127.0.0.1:0", Ahead: 24 * time.Hour},
		Gateway: Door{Listen: "127.0.0.1:8080", Admin: "127.0.0.1:0", Limits: true, Admission: framework.On},
	}
}

// Service gives the place of a service, or of the edge.
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
	case Notify:
		return &c.Notify
	case Media:
		return &c.Media
	case Edge:
		return &c.Edge
	case Gateway:
	}
	return nil
}

// Source is where Explain reads a configuration.
func Source(file string, settings []string) (config.Source, error) {
	args := make([]string, len(settings))
	for i, s := range settings {
		if !strings.Contains(s, "=") {
			return config.Source{}, fmt.Errorf("setting %q is not name=value, for example account.addrs=127.0.0.1:7001", s)
		}
		args[i] = "-" + s
	}
	return config.Source{File: file, Args: args}, nil
}

// Explain is Load that also says what each setting is, and where that was found.
func Explain(file string, settings []string) (Config, []config.InEffect, error) {
	src, err := Source(file, settings)
	if err != nil {
		return Config{}, nil, err
	}
	return config.Explain(Default(), src)
}

// Load reads a file over the defaults, and then settings of the form name=value,
// for example account.addrs=127.0.0.1:7001. Without a file there are only these.
func Load(file string, settings []string) (Config, error) {
	t, _, err := Explain(file, settings)
	return t, err
}
