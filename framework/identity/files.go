// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Files are where the certificates are, in PEM.
type Files struct {
	CA   string // of the authorities of the trust domain; several while they change
	Cert string // the own certificate, with those between it and the authority
	Key  string // its key
}

// Reading is how Files are read.
type Reading struct {
	// Check says what is wrong with an own certificate whose key and authority are right;
	// nil: nothing is.
	Check func(own *x509.Certificate) error
	// Every is how often the files are looked at again, at most; 0 is whenever they are
	// asked for.
	Every time.Duration
	Log   *slog.Logger     // nil is slog.Default()
	Now   func() time.Time // nil is time.Now
}

// A Store is what is in Files. It looks at them again when it is asked: what is new in them
// counts from then on, and what is wrong in them is told to the log, once, while what was
// read before goes on. It is safe for concurrent use.
type Store struct {
	files Files
	how   Reading

	mu      sync.Mutex
	looked  time.Time       // guarded by mu
	failed  string          // what the log has been told of the files; guarded by mu
	content [3][]byte       // of the files, as read last; guarded by mu
	pool    *x509.CertPool  // guarded by mu
	own     tls.Certificate // guarded by mu
	ended   bool            // the log has been told that own is good no more, or not yet; guarded by mu
}

// Open reads the files. The own certificate must be of the authority. An expired one is
// taken: peers refuse it, and a new one may be on its way.
func (f Files) Open(how Reading) (*Store, error) {
	if how.Log == nil {
		how.Log = slog.Default()
	}
	if how.Now == nil {
		how.Now = time.Now
	}
	s := &Store{files: f, how: how, looked: how.Now()}
	content, err := f.read()
	if err == nil {
		s.pool, s.own, err = s.parse(content)
	}
	if err != nil {
		return nil, err
	}
	s.content = content
	s.tell(s.looked)
	return s, nil
}

// tell says when peers will refuse the own certificate, which they tell us only in words
// of TLS. It is called with mu held, or before others have s.
func (s *Store) tell(now time.Time) {
	from, until := s.own.Leaf.NotBefore, s.own.Leaf.NotAfter
	ended := now.Before(from) || now.After(until)
	if ended && !s.ended {
		s.how.Log.Error("the own certificate is not good at this time: peers refuse it until its file is replaced",
			slog.String("file", s.files.Cert), slog.Time("from", from), slog.Time("until", until))
	}
	s.ended = ended
}

func (f Files) read() (content [3][]byte, err error) {
	for i, file := range []string{f.CA, f.Cert, f.Key} {
		if content[i], err = os.ReadFile(file); err != nil {
			return content, fmt.Errorf("read certificates: %w", err)
		}
	}
	return content, nil
}

func (s *Store) parse(content [3][]byte) (*x509.CertPool, tls.Certificate, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content[0]) {
		return nil, tls.Certificate{}, fmt.Errorf("%s holds no certificate in PEM", s.files.CA)
	}
	own, err := tls.X509KeyPair(content[1], content[2])
	if err != nil {
		return nil, own, fmt.Errorf("%s and %s: %w", s.files.Cert, s.files.Key, err)
	}
	if s.how.Check != nil {
		if err := s.how.Check(own.Leaf); err != nil {
			return nil, own, fmt.Errorf("%s: %w", s.files.Cert, err)
		}
	}
	chain := make([]*x509.Certificate, 0, len(own.Certificate))
	for _, der := range own.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, own, fmt.Errorf("%s: %w", s.files.Cert, err)
		}
		chain = append(chain, cert)
	}
	// Expired or not yet good, it may be so for a moment only: its middle is looked at.
	good := own.Leaf.NotBefore.Add(own.Leaf.NotAfter.Sub(own.Leaf.NotBefore) / 2)
	if err := verify(chain, pool, good, x509.ExtKeyUsageAny); err != nil {
		return nil, own, fmt.Errorf("%s is not of an authority in %s: %w", s.files.Cert, s.files.CA, err)
	}
	return pool, own, nil
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, at time.Time, usage x509.ExtKeyUsage) error {
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

// Current gives the authorities and the own certificate: what is in the files now, or what
// was there when they were last right.
func (s *Store) Current() (*x509.CertPool, tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.how.Now(); now.Sub(s.looked) >= s.how.Every || now.Before(s.looked) {
		s.looked = now
		s.look()
		s.tell(now)
	}
	return s.pool, s.own
}

// look is called with mu held.
func (s *Store) look() {
	content, err := s.files.read()
	if err == nil {
		same := true
		for i := range content {
			same = same && bytes.Equal(content[i], s.content[i])
		}
		if same {
			s.failed = ""
			return
		}
		var pool *x509.CertPool
		var own tls.Certificate
		if pool, own, err = s.parse(content); err == nil {
			s.pool, s.own, s.content, s.failed = pool, own, content, ""
			s.how.Log.Info("certificates read again", slog.Time("until", own.Leaf.NotAfter))
			return
		}
	}
	if err.Error() != s.failed { // between two writes, for example
		s.failed = err.Error()
		s.how.Log.Warn("the files of the certificates are not right: those read before go on", slog.Any("err", err))
	}
}

// Leaf gives the own certificate, without a look at the files.
func (s *Store) Leaf() *x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own.Leaf
}
