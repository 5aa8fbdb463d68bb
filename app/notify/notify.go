// SPDX-License-Identifier: Apache-2.0

// Package notify is the service that owns everybody's notices: who did what on posts
// that one has to do with, who asks to be a friend and who has accepted.
//
// A notice is a reference. Whether it is shown, and with what text, is asked of the
// owners of what it refers to whenever it is read, so nothing has to be taken back when
// a comment is deleted or a friendship ends. All of a reader is in the reader's slot,
// and the writers of one reader share batches.
package notify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-rpc/sluice/app/combine"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Config is what a Service is made of. Fields without a default are required.
type Config struct {
	// Store is the service's own; nobody else writes to it.
	Store kv.Store
	// Account tells which requests to be friends still stand.
	Account Account
	// Comment tells which comments and likes a reader sees.
	Comment Comment
	// Post tells which posts a reader sees.
	Post Post
	// Keep is how many notices of a reader are kept at least; 0 means 500, which is the
	// most.
	Keep int
	// Log takes what operators should see; nil means slog.Default.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Account is the part of the account service's client that is used here.
type Account interface {
	ShowFriendActs(context.Context, *momentsv1.ShowFriendActsRequest) (*momentsv1.ShowFriendActsResponse, error)
}

// Comment is the part of the comment service's client that is used here.
type Comment interface {
	Show(context.Context, *momentsv1.ShowRequest) (*momentsv1.ShowResponse, error)
}

// Post is the part of the post service's client that is used here.
type Post interface {
	GetMany(context.Context, *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error)
}

// Limits of the service.
const (
	maxEvents  = 200    // of one Record
	maxReaders = 20_000 // of one Record
	maxKeep    = 500
	maxWatch   = 1000 // users of one Watch

	// A notice is two operations of a batch, which has at most 100: its row, and the
	// record of its event. Three more are for the state and for trimming.
	maxBatch = 48
	// maxTurn bounds the writers that share a turn.
	maxTurn = 4
	// maxWaiting bounds the writers that wait for one reader.
	maxWaiting = 2000
	// writeTimeout bounds a turn of writes, whose callers cannot cancel it.
	writeTimeout = 5 * time.Second
	// writers is how many readers one Record writes to at a time: they share the flush
	// to the disk.
	writers = 64
	// trimEvery is how many notices more than Keep a reader has at most: removing costs
	// an operation each time.
	trimEvery = 32
)

// Service implements momentsv1.NotifyServiceServer. Run does its background work.
type Service struct {
	momentsv1.UnimplementedNotifyServiceServer

	store   kv.Store
	account Account
	comment Comment
	post    Post
	keep    uint64
	now     func() time.Time
	log     *slog.Logger
	writes  *combine.Group[id.User, job]
}

// New makes the service.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Account == nil || cfg.Comment == nil || cfg.Post == nil {
		return nil, errors.New("notify: Config needs Store, Account, Comment and Post")
	}
	if cfg.Keep < 0 || cfg.Keep > maxKeep {
		return nil, fmt.Errorf("notify: Keep is %d, want 1 to %d, or 0 for %d", cfg.Keep, maxKeep, maxKeep)
	}
	if cfg.Keep == 0 {
		cfg.Keep = maxKeep
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Service{
		store: cfg.Store, account: cfg.Account, comment: cfg.Comment, post: cfg.Post,
		keep: uint64(cfg.Keep), now: cfg.Now, log: cfg.Log,
	}
	s.writes = combine.New(maxTurn, maxWaiting, s.write)
	return s, nil
}

// Run forgets old events until ctx ends; then it returns nil.
func (s *Service) Run(ctx context.Context) error {
	once.Sweep(ctx, s.store, s.now, s.log)
	return nil
}

// Tables. All of a reader is in the reader's slot.
//
//	d ...          -> nothing    that an event is known: see package once, scope reader
//	n reader ^seq  -> notice     newest first; ^ inverts all bits
//	u reader       -> state
const (
	tableNotice = 'n'
	tableState  = 'u'
)

func stateKey(u id.User) []byte { return append([]byte{tableState}, u[:]...) }

func noticePrefix(u id.User) []byte { return append([]byte{tableNotice}, u[:]...) }

func noticeKey(u id.User, seq uint64) []byte {
	k := append(append(make([]byte, 0, 25), tableNotice), u[:]...)
	return binary.BigEndian.AppendUint64(k, ^seq)
}

// state is where a reader stands. Form: version 1, last, read.
type state struct {
	last uint64 // sequence of the newest notice
	read uint64 // up to which all have been read
}

const stateLen = 1 + 8 + 8

func (s state) encode() []byte {
	b := append(make([]byte, 0, stateLen), 1)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, s.last), s.read)
}

func parseState(it kv.Item) (s state, err error) {
	if it.Ver == 0 {
		return s, nil
	}
	if len(it.Value) != stateLen || it.Value[0] != 1 {
		return s, fmt.Errorf("notify: state %x of a reader is not of version 1", it.Value)
	}
	return state{last: binary.BigEndian.Uint64(it.Value[1:]), read: binary.BigEndian.Uint64(it.Value[9:])}, nil
}

// notice is a stored notice. Form: version 1, kind, actor, post, comment, time, and of
// friendship its round.
type notice struct {
	seq      uint64 // of the row's key
	kind     momentsv1.NoticeKind
	actor    id.User
	post     id.Post
	comment  id.Comment
	happened int64  // unix ms
	round    uint32 // of friendship
}

const noticeLen = 2 + 16 + 16 + 16 + 8

func (n *notice) encode() []byte {
	b := append(make([]byte, 0, noticeLen), 1, byte(n.kind))
	b = append(append(append(b, n.actor[:]...), n.post[:]...), n.comment[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(n.happened))
	if n.social() {
		b = binary.BigEndian.AppendUint32(b, n.round)
	}
	return b
}

// social reports whether a notice is of friendship, not of a post.
func (n *notice) social() bool {
	return n.kind == momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST || n.kind == momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED
}

func parseNotice(it kv.Item) (n notice, err error) {
	if len(it.Key) != 25 || len(it.Value) < noticeLen || it.Value[0] != 1 {
		return n, fmt.Errorf("notify: notice %x under %x is not of version 1", it.Value, it.Key)
	}
	n = notice{
		seq: ^binary.BigEndian.Uint64(it.Key[17:]), kind: momentsv1.NoticeKind(it.Value[1]),
		actor: id.User(it.Value[2:]), post: id.Post(it.Value[18:]), comment: id.Comment(it.Value[34:]),
		happened: int64(binary.BigEndian.Uint64(it.Value[50:])),
	}
	rest := it.Value[noticeLen:]
	if n.social() && len(rest) == 4 {
		n.round, rest = binary.BigEndian.Uint32(rest), nil
	}
	if len(rest) > 0 || n.social() && n.round == 0 {
		return n, fmt.Errorf("notify: notice %x under %x is not of version 1", it.Value, it.Key)
	}
	return n, nil
}

// id gives the notice's id, which is its place in its reader's list.
func (n *notice) id() (v id.Notice) {
	binary.BigEndian.PutUint64(v[8:], n.seq)
	return v
}
