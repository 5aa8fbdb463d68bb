// SPDX-License-Identifier: Apache-2.0

package path

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/sluice-rpc/sluice/app/id"
)

// maxName bounds the names of regions and services in a greeting.
const maxName = 64

type streamKind byte

const (
	controlStream streamKind = 1
	dataStream    streamKind = 2
)

// nonce joins the two connections of a session. It is no secret: both are
// authenticated.
type nonce [16]byte

// hello is the first thing said on each connection, by both, after TLS:
//
//	"idcq" | version 1 | stream | region, 2 | nonce, 16 | length | name | length | service
type hello struct {
	stream  streamKind
	region  id.Region
	nonce   nonce
	name    string
	service string
}

const (
	helloMagic   = "idcq"
	helloVersion = 1
	helloFixed   = len(helloMagic) + 2 + 2 + len(nonce{}) // before the names
)

func (h hello) append(b []byte) []byte {
	b = append(b, helloMagic...)
	b = append(b, helloVersion, byte(h.stream))
	b = binary.BigEndian.AppendUint16(b, uint16(h.region))
	b = append(b, h.nonce[:]...)
	b = append(b, byte(len(h.name)))
	b = append(b, h.name...)
	b = append(b, byte(len(h.service)))
	return append(b, h.service...)
}

// errNoHello: what came is no greeting.
var errNoHello = errors.New("path: this is no greeting of a line")

// readHello reads a greeting, and not a byte more.
func readHello(r io.Reader) (hello, error) {
	var fixed [helloFixed]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return hello{}, err
	}
	var h hello
	b := fixed[len(helloMagic):]
	if string(fixed[:len(helloMagic)]) != helloMagic {
		return hello{}, errNoHello
	}
	if b[0] != helloVersion {
		return hello{}, fmt.Errorf("%w: version %d, want %d", errNoHello, b[0], helloVersion)
	}
	h.stream = streamKind(b[1])
	if h.stream != controlStream && h.stream != dataStream {
		return hello{}, fmt.Errorf("%w: stream %d", errNoHello, h.stream)
	}
	h.region = id.Region(binary.BigEndian.Uint16(b[2:]))
	copy(h.nonce[:], b[4:])
	var err error
	if h.name, err = readName(r); err != nil {
		return hello{}, err
	}
	h.service, err = readName(r)
	return h, err
}

func readName(r io.Reader) (string, error) {
	var b [1 + maxName]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return "", err
	}
	n := int(b[0])
	if n == 0 || n > maxName {
		return "", fmt.Errorf("%w: a name of %d bytes", errNoHello, n)
	}
	if _, err := io.ReadFull(r, b[1:1+n]); err != nil {
		return "", err
	}
	return string(b[1 : 1+n]), nil
}

// check says why a greeting is not that of a peer whose certificate has been seen,
// empty if it is.
func (h hello) check(p Peer, service string) Refusal {
	switch {
	case h.name != p.Name || h.region != p.Region:
		return OtherName
	case h.service != service:
		return OtherService
	}
	return ""
}
