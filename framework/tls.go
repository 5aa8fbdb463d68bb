// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/internal/runner"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
)

// TLS is how a server or a client proves who it is, and whom it believes: TLS 1.3 with
// certificates on both sides that name a SPIFFE id (package identity). The zero value is
// no TLS. The files are read again when they change, without a restart: connections from
// then on are made under what is new.
type TLS struct {
	// CA is the file, in PEM, of the authorities of the trust domain; several while they
	// change. Required with the others.
	CA string `config:"ca" doc:"file of the authorities of the trust domain, in PEM"`
	// Cert is the file of the own certificate, with those between it and the authority.
	Cert string `config:"cert" doc:"file of the own certificate, in PEM, with those between it and the authority"`
	// Key is the file of its key.
	Key string `config:"key" doc:"file of the key of the own certificate, in PEM"`
	// TrustDomain is that of all peers, as in spiffe://TRUSTDOMAIN/shop/cart. Default that
	// of the own certificate.
	TrustDomain string `config:"trust_domain" doc:"that of all peers; empty for that of the own certificate"`
	// Peers are who the other side may be: ids, ids that end in /* for all below, */NAME for
	// all whose path ends in that name, or * for everybody of the trust domain. Default of a
	// server: everybody. Default of a client: */SERVICE, the name of the called service.
	Peers []string `config:"peers" doc:"identities that the other side may have; an end of /* is all below, */NAME who ends so, * everybody"`
}

// on says whether there is TLS at all.
func (t *TLS) on() bool { return t.CA != "" || t.Cert != "" || t.Key != "" }

func (t *TLS) check(v *validator) {
	for _, f := range []struct{ name, file string }{{"CA", t.CA}, {"Cert", t.Cert}, {"Key", t.Key}} {
		if t.on() && f.file == "" {
			v.add("TLS.%s is empty: TLS needs the files CA, Cert and Key", f.name)
		}
	}
	if !t.on() && (t.TrustDomain != "" || len(t.Peers) > 0) {
		v.add("TLS.TrustDomain and TLS.Peers without TLS: give the files CA, Cert and Key")
	}
	if t.TrustDomain != "" {
		if err := identity.CheckDomain(t.TrustDomain); err != nil {
			v.add("TLS.TrustDomain: %w", err)
		}
	}
	if _, err := identity.NewSet(t.Peers); err != nil {
		v.add("TLS.Peers: %w", err)
	}
}

// secured is a TLS whose files have been read.
type secured struct {
	credentials *identity.Credentials
	peers       identity.Set
}

// open reads the files.
func (t *TLS) open(log *slog.Logger, peers []string) (*secured, error) {
	c, err := identity.Open(identity.Files{CA: t.CA, Cert: t.Cert, Key: t.Key}, t.TrustDomain, log, nil)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	set, err := identity.NewSet(peers)
	if err != nil {
		return nil, fmt.Errorf("TLS.Peers: %w", err)
	}
	return &secured{credentials: c, peers: set}, nil
}

// handshakes gives what makes the configuration of each accepted connection, nil without
// TLS.
func (s *Server) handshakes() func() *tls.Config {
	if s.secured.Load() == nil {
		return nil
	}
	return func() *tls.Config {
		now := s.secured.Load()
		return now.credentials.Server(&now.peers)
	}
}

// security is handshakes for listeners of other protocols, nil without TLS.
func (s *Server) security() *transport.Security {
	if s.secured.Load() == nil {
		return nil
	}
	return &transport.Security{
		Config: func(protocol string) *tls.Config {
			now := s.secured.Load()
			return now.credentials.Speaking(protocol).Server(&now.peers)
		},
		Domain: func() string { return s.secured.Load().credentials.Domain() },
	}
}

// peersOfServer gives whom a server lets connect.
func (t *TLS) peersOfServer() []string {
	if len(t.Peers) == 0 {
		return []string{identity.Everybody}
	}
	return t.Peers
}

// secure reads the certificates, and holds the rules to the methods that there are. It is
// called with mu held.
func (s *Server) secure() error {
	if unknown := allowList(s.cfg.Allow).unknown(s.has); len(unknown) > 0 {
		return fmt.Errorf("Allow: this server has no method %s: its services are %s", strings.Join(unknown, ", "), strings.Join(slices.Sorted(maps.Keys(s.byName)), ", "))
	}
	if !s.cfg.TLS.on() {
		return nil
	}
	secured, err := s.cfg.TLS.open(s.opts.log, s.cfg.TLS.peersOfServer())
	if err == nil {
		s.secured.Store(secured)
	}
	return err
}

// has says whether a method is served, or, without its name, a service.
func (s *Server) has(service, method string) bool {
	methods, ok := s.byName[service]
	return ok && (method == "" || methods[method] != nil)
}

// The values of Plaintext.
const (
	PlaintextLoopback = "loopback" // without TLS only within this machine
	PlaintextAnywhere = "anywhere" // without TLS on every address: the network is believed
)

func (v *validator) plaintext(word *string, t *TLS) {
	switch *word {
	case "":
		*word = PlaintextLoopback
	case PlaintextLoopback:
	case PlaintextAnywhere:
		if t.on() {
			v.add("Plaintext %q contradicts TLS: leave one out", PlaintextAnywhere)
		}
	default:
		v.add("Plaintext %q: it must be %q or %q", *word, PlaintextLoopback, PlaintextAnywhere)
	}
}

// inTheClear refuses to serve other machines without TLS.
func inTheClear(cfg *ServerConfig, at net.Addr) error {
	_, unix := at.(*net.UnixAddr)
	if cfg.TLS.on() || cfg.Plaintext == PlaintextAnywhere || unix || runner.IsLoopback(at) {
		return nil
	}
	return fmt.Errorf("Addr %s can be reached by other machines, and calls would come in the clear: configure TLS, or say Plaintext %q if the network is to be believed", at, PlaintextAnywhere)
}

// Allow says who may call some methods. A method that no rule names may be called by
// nobody, once there is a rule.
type Allow struct {
	// Methods are package.Service/Method, package.Service/* or * for all.
	Methods []string `config:"methods" doc:"package.Service/Method, package.Service/* or * for all"`
	// Callers are ids, ids that end in /* for all below, */NAME for all whose path ends in
	// that name, or * for everybody of the trust domain.
	Callers []string `config:"callers" doc:"identities that may call them; an end of /* is all below, */NAME who ends so, * everybody"`
}

// allowList is the rules of a server as its methods need them.
type allowList []Allow

func (list allowList) check(v *validator, t *TLS) {
	if len(list) > 0 && !t.on() {
		v.add("Allow without TLS: nobody could prove who he is; configure TLS")
	}
	for i, rule := range list {
		if len(rule.Methods) == 0 || len(rule.Callers) == 0 {
			v.add("Allow[%d]: give Methods and Callers", i)
		}
		for j, name := range rule.Methods {
			if service, method, ok := strings.Cut(name, "/"); name != allMethods && (!ok || service == "" || method == "" || strings.Contains(method, "/")) {
				v.add("Allow[%d].Methods[%d] %q: give package.Service/Method, package.Service/*, or * for all", i, j, name)
			}
		}
		if _, err := identity.NewSet(rule.Callers); err != nil {
			v.add("Allow[%d].Callers: %w", i, err)
		}
	}
}

// callersOf gives who may call a method, nil if there are no rules.
func (list allowList) callersOf(service, method string) *identity.Set {
	if len(list) == 0 {
		return nil
	}
	var callers []string
	for _, rule := range list {
		for _, name := range rule.Methods {
			if name == allMethods || name == service+"/"+method || name == service+"/*" {
				callers = append(callers, rule.Callers...)
				break
			}
		}
	}
	set, err := identity.NewSet(callers)
	if err != nil {
		return &identity.Set{} // nobody: check has refused it
	}
	return &set
}

// unknown gives the methods of rules that no service of the server has.
func (list allowList) unknown(known func(service, method string) bool) (names []string) {
	for _, rule := range list {
		for _, name := range rule.Methods {
			if service, method, ok := strings.Cut(name, "/"); ok && !known(service, strings.TrimSuffix(method, "*")) {
				names = append(names, name)
			}
		}
	}
	return names
}
