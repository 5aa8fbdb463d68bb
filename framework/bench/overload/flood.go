// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	kitexclient "github.com/cloudwego/kitex/client"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/kitex_gen/echo"
	"github.com/sluice-rpc/sluice/framework/bench/kitex_gen/echo/echoservice"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"

	sluicev1 "github.com/sluice-rpc/sluice/framework/bench/idl/sluice/v1"
)

// connections is how many a flood has.
const connections = 4

// A flood sends one frame again and again, whatever the answers say of levels: the
// next one for each answer, so that a fixed number is on its way. Without a frame it
// is made of calls by a client of bare kitex, which knows no levels either; those come
// more singly, but the client and not the server is then at its limit.
type flood struct {
	conns    []net.Conn
	done     sync.WaitGroup
	ending   atomic.Bool
	answered atomic.Int64 // all answers
	refused  atomic.Int64 // those that are exceptions
	err      atomic.Pointer[error]
}

func (f *flood) start(o order) error {
	f.ending.Store(false)
	if o.Frame == nil {
		return f.call(o)
	}
	for i := range connections {
		c, err := net.Dial("tcp", o.Addrs[0])
		if err != nil {
			return err
		}
		f.conns = append(f.conns, c)
		n := o.Callers / connections
		if i < o.Callers%connections {
			n++
		}
		f.done.Go(func() {
			if err := f.send(c, o.Frame, n); err != nil && !f.ending.Load() {
				f.err.CompareAndSwap(nil, &err)
			}
		})
	}
	return nil
}

func (f *flood) call(o order) error {
	client, err := echoservice.NewClient("echo", kitexclient.WithHostPorts(o.Addrs[0]), kitexclient.WithMuxConnection(connections))
	if err != nil {
		return err
	}
	for range connections { // kitex's pool has a data race while it fills
		_, _ = client.Echo(context.Background(), &echo.EchoRequest{}) // refused or not
	}
	for range o.Callers {
		f.done.Go(func() {
			req := &echo.EchoRequest{Name: "benchmark", Data: make([]byte, o.Bytes)}
			for !f.ending.Load() {
				if _, err := client.Echo(context.Background(), req); err != nil {
					f.refused.Add(1)
				}
				f.answered.Add(1)
			}
		})
	}
	return nil
}

// stop ends the flood; an error if it ended by itself.
func (f *flood) stop() error {
	f.ending.Store(true)
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.done.Wait()
	f.conns = nil
	if err := f.err.Load(); err != nil {
		return fmt.Errorf("the flood ended: %w", *err)
	}
	return nil
}

const (
	framePrefix  = 14 // of TTHeader: its length is in the first 4 bytes, its header's in the last 2
	payloadMagic = 0x9001
	payloadKind  = 3 // the byte of a payload that says what it is
	exception    = 3
	writeAtOnce  = 256 << 10
)

func (f *flood) send(c net.Conn, frame []byte, n int) error {
	batch := bytes.Repeat(frame, max(1, min(n, writeAtOnce/len(frame))))
	write := func(n int) error {
		for n > 0 {
			k := min(n, len(batch)/len(frame))
			if _, err := c.Write(batch[:k*len(frame)]); err != nil {
				return err
			}
			n -= k
		}
		return nil
	}
	if err := write(n); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 256<<10)
	for owed := 0; ; {
		head, err := in.Peek(framePrefix)
		if err != nil {
			return err
		}
		size := int(binary.BigEndian.Uint32(head)) + 4
		at := framePrefix + 4*int(binary.BigEndian.Uint16(head[12:]))
		if head, err = in.Peek(at + 8); err != nil {
			return err
		}
		if binary.BigEndian.Uint16(head[at:]) != payloadMagic {
			at += 4 // framed
		}
		f.answered.Add(1)
		if head[at+payloadKind] == exception {
			f.refused.Add(1)
		}
		if _, err := in.Discard(size); err != nil {
			return err
		}
		if owed++; in.Buffered() < framePrefix {
			if err := write(owed); err != nil {
				return err
			}
			owed = 0
		}
	}
}

// frameOf gives what a client writes for an echo of so many bytes: the client of bare
// kitex, or ours for a request of no importance.
func frameOf(kind string, size int) ([]byte, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var call func() error
	data := make([]byte, size)
	if kind == kindKitex {
		client, err := echoservice.NewClient("echo", kitexclient.WithHostPorts(ln.Addr().String()), kitexclient.WithMuxConnection(1))
		if err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		call = func() error {
			_, err := client.Echo(ctx, &echo.EchoRequest{Name: "benchmark", Data: data})
			return err
		}
	} else {
		conn, err := framework.Dial(framework.ClientConfig{Service: "leaf", Addrs: []string{ln.Addr().String()}, Connections: 1})
		if err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		defer conn.Close()
		ctx := rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{Class: qos.Background, UserLevel: qos.UserLevels - 1}})
		call = func() error {
			_, err := sluicev1.NewEchoServiceClient(conn).Echo(ctx, &sluicev1.EchoRequest{Name: "benchmark", Data: data})
			return err
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- call() }() // it is waited for below
	frame, err := firstFrame(ctx, ln, kind != kindKitex)
	cancel()
	_ = ln.Close()
	if callErr := <-ended; err != nil {
		return nil, errors.Join(err, callErr)
	}
	return frame, nil
}

// firstFrame reads the first call that comes. Our client first asks whether anybody is
// there: a server of ours answers that.
func firstFrame(ctx context.Context, ln net.Listener, asked bool) ([]byte, error) {
	c, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if asked {
		srv := framework.NewServer(framework.ServerConfig{Service: "leaf", Addr: "127.0.0.1:0"}, framework.WithoutSignals())
		sluicev1.RegisterEchoServiceServer(srv, sluicev1.UnimplementedEchoServiceServer{})
		ended := make(chan error, 1)
		ctx, stop := context.WithCancel(ctx)
		go func() { ended <- srv.Run(ctx) }()
		defer func() { stop(); <-ended }()
		var s net.Conn
		for s, err = net.Dial("tcp", srv.Addr()); err != nil && ctx.Err() == nil; s, err = net.Dial("tcp", srv.Addr()) {
		}
		if err != nil {
			return nil, err
		}
		defer s.Close()
		question, err := readFrame(c)
		if err != nil {
			return nil, err
		}
		if _, err := s.Write(question); err != nil {
			return nil, err
		}
		answer, err := readFrame(s)
		if err != nil {
			return nil, err
		}
		if _, err := c.Write(answer); err != nil {
			return nil, err
		}
	}
	return readFrame(c)
}

func readFrame(c net.Conn) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	frame := append(length[:], make([]byte, binary.BigEndian.Uint32(length[:]))...)
	_, err := io.ReadFull(c, frame[4:])
	return frame, err
}
