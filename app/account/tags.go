// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	maxTags     = 100    // of a user
	maxTagName  = 32     // code points
	maxBearers  = 5000   // of a tag: 80 KB of a row
	maxResolved = 10_000 // people of all tags of a post
)

// tag is the row of a tag: all of it, so that a change is one write. A tag of 50
// people has about 1 KB.
type tag struct {
	name    string
	bearers []id.User // ascending
}

func (t tag) encode() []byte {
	b := appendBytes(make([]byte, 0, 4+len(t.name)+16*len(t.bearers)), []byte(t.name))
	for _, u := range t.bearers {
		b = append(b, u[:]...)
	}
	return b
}

func decodeTag(b []byte) (tag, error) {
	r := rowReader{b: b}
	t := tag{name: string(r.bytes())}
	r.bad = r.bad || len(r.b)%16 != 0
	if err := r.err("tag"); err != nil {
		return tag{}, err
	}
	t.bearers = make([]id.User, 0, len(r.b)/16)
	for len(r.b) > 0 {
		t.bearers = append(t.bearers, id.User(r.take(16)))
	}
	return t, nil
}

func (t tag) show(i id.Tag) *momentsv1.Tag {
	return &momentsv1.Tag{TagId: i.String(), Name: t.name, People: uint32(len(t.bearers))}
}

// parseTag reads the id of a tag from a field. What is none is not found: a user is
// asking for a thing of his own, and there is no such thing.
func parseTag(s string) (id.Tag, error) {
	t, err := id.ParseTag(s)
	if err != nil {
		return t, problem.NotFound("tag")
	}
	return t, nil
}

// allTags calls do for each tag of a user, in the order they were made, and gives the
// version that changes with which tags there are.
func (s *Service) allTags(ctx context.Context, uid id.User, do func(id.Tag, tag)) (ver uint64, err error) {
	r := kv.Prefix(userKey(prefixTag, uid), kv.MaxScan)
	for {
		items, more, err := s.store.Scan(ctx, slotOfUser(uid), r, kv.Linearizable)
		if err != nil {
			return 0, err
		}
		for _, item := range items {
			if len(item.Key) == 17 {
				ver = item.Ver
				continue
			}
			i, err := secondOf[id.Tag](item.Key)
			if err != nil {
				return 0, err
			}
			t, err := decodeTag(item.Value)
			if err != nil {
				return 0, err
			}
			do(i, t)
		}
		if !more || len(items) == 0 {
			return ver, nil
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}

// tag gives one tag of a user and the version of its row.
func (s *Service) tag(ctx context.Context, uid id.User, i id.Tag) (tag, uint64, error) {
	item, err := s.store.Get(ctx, slotOfUser(uid), pairKey(prefixTag, uid, i), kv.Linearizable)
	if err != nil {
		return tag{}, 0, err
	}
	if item.Ver == 0 {
		return tag{}, 0, problem.NotFound("tag")
	}
	t, err := decodeTag(item.Value)
	return t, item.Ver, err
}

// people reads ids of users from a field, ascending and each once.
func people(field string, texts []string) ([]id.User, error) {
	if len(texts) > maxBearers {
		return nil, problem.Invalid(field, "has %d ids, at most %d", len(texts), maxBearers)
	}
	list := make([]id.User, len(texts))
	for i, text := range texts {
		var err error
		if list[i], err = problem.User(field, text); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, id.User.Compare)
	return slices.Compact(list), nil
}

// CreateTag implements the contract.
func (s *Service) CreateTag(ctx context.Context, req *momentsv1.CreateTagRequest) (*momentsv1.CreateTagResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	t := tag{}
	if t.name, err = cleanLabel("name", req.GetName(), maxTagName); err != nil {
		return nil, err
	}
	if t.bearers, err = people("user_ids", req.GetUserIds()); err != nil {
		return nil, err
	}
	use := once.New(s.now(), uid[:], req.GetIdempotencyKey(), once.Sum("create tag", string(t.encode())))
	shown, err := s.writeTag(ctx, use, uid, func(b *kv.Batch) (*momentsv1.Tag, error) {
		count := 0
		ver, err := s.freeName(ctx, uid, id.Tag{}, t.name, &count)
		if err != nil {
			return nil, err
		}
		if count >= maxTags {
			return nil, problem.New(rpc.FailedPrecondition, "limit", "name", "you have %d tags, which is the limit; delete some first", count)
		}
		i, err := id.New[id.Tag](s.ids)
		if err != nil {
			return nil, err
		}
		set := userKey(prefixTag, uid)
		b.IfVer(set, ver).Put(set, nil).Put(pairKey(prefixTag, uid, i), t.encode())
		return t.show(i), nil
	})
	if err != nil {
		return nil, problem.Store("create tag", err)
	}
	return &momentsv1.CreateTagResponse{Tag: shown}, nil
}

// freeName refuses a name that another of the user's tags has. It gives the version of
// which tags there are, and counts them.
func (s *Service) freeName(ctx context.Context, uid id.User, but id.Tag, name string, count *int) (uint64, error) {
	taken := false
	ver, err := s.allTags(ctx, uid, func(i id.Tag, t tag) {
		*count++
		taken = taken || i != but && foldName(t.name) == foldName(name)
	})
	if err == nil && taken {
		err = problem.New(rpc.AlreadyExists, "name-taken", "name", "you have a tag of that name")
	}
	return ver, err
}

// writeTag makes a write of a user's tags once per key: change reads what is there and
// puts conditions and writes into the batch.
func (s *Service) writeTag(ctx context.Context, use once.Use, uid id.User, change func(*kv.Batch) (*momentsv1.Tag, error)) (*momentsv1.Tag, error) {
	for {
		shown, err := s.tryTag(ctx, use, uid, change)
		if retry(ctx, err) {
			continue
		}
		return shown, err
	}
}

func (s *Service) tryTag(ctx context.Context, use once.Use, uid id.User, change func(*kv.Batch) (*momentsv1.Tag, error)) (*momentsv1.Tag, error) {
	slot, shown := slotOfUser(uid), new(momentsv1.Tag)
	answer, found, err := use.Answer(ctx, s.store, slot)
	if err != nil {
		return nil, err
	}
	if found {
		return shown, proto.Unmarshal(answer, shown)
	}
	if _, ver, err := s.user(ctx, uid); err != nil {
		return nil, err
	} else if ver == 0 {
		return nil, problem.NotFound("user")
	}
	b := new(kv.Batch)
	if shown, err = change(b); err != nil {
		return nil, err
	}
	if answer, err = proto.Marshal(shown); err != nil {
		return nil, fmt.Errorf("account: encode tag: %w", err)
	}
	use.IfNew(b)
	use.Record(b, answer)
	if b.Len() == 0 {
		return shown, nil
	}
	return shown, s.apply(ctx, slot, b)
}

// UpdateTag implements the contract.
func (s *Service) UpdateTag(ctx context.Context, req *momentsv1.UpdateTagRequest) (*momentsv1.UpdateTagResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	i, err := parseTag(req.GetTagId())
	if err != nil {
		return nil, err
	}
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	name := ""
	if req.Name != nil {
		if name, err = cleanLabel("name", req.GetName(), maxTagName); err != nil {
			return nil, err
		}
	}
	add, err := people("add_ids", req.GetAddIds())
	if err != nil {
		return nil, err
	}
	remove, err := people("remove_ids", req.GetRemoveIds())
	if err != nil {
		return nil, err
	}
	use := once.New(s.now(), uid[:], req.GetIdempotencyKey(), once.Sum("update tag", req.GetTagId(), name,
		strings.Join(req.GetAddIds(), ","), strings.Join(req.GetRemoveIds(), ",")))
	shown, err := s.writeTag(ctx, use, uid, func(b *kv.Batch) (*momentsv1.Tag, error) {
		was, ver, err := s.tag(ctx, uid, i)
		if err != nil {
			return nil, err
		}
		t := tag{name: was.name, bearers: slices.Concat(was.bearers, add)}
		if name != "" && name != was.name {
			set := userKey(prefixTag, uid)
			setVer, err := s.freeName(ctx, uid, i, name, new(int))
			if err != nil {
				return nil, err
			}
			b.IfVer(set, setVer).Put(set, nil)
			t.name = name
		}
		slices.SortFunc(t.bearers, id.User.Compare)
		t.bearers = slices.DeleteFunc(slices.Compact(t.bearers), func(u id.User) bool {
			_, gone := slices.BinarySearchFunc(remove, u, id.User.Compare)
			return gone
		})
		if n := len(t.bearers); n > maxBearers {
			return nil, problem.New(rpc.FailedPrecondition, "limit", "add_ids", "the tag would have %d people, at most %d", n, maxBearers)
		}
		key := pairKey(prefixTag, uid, i)
		b.IfVer(key, ver).Put(key, t.encode())
		return t.show(i), nil
	})
	if err != nil {
		return nil, problem.Store("update tag", err)
	}
	return &momentsv1.UpdateTagResponse{Tag: shown}, nil
}

// DeleteTag implements the contract.
func (s *Service) DeleteTag(ctx context.Context, req *momentsv1.DeleteTagRequest) (*momentsv1.DeleteTagResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	i, err := parseTag(req.GetTagId())
	if err != nil {
		return nil, err
	}
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	use := once.New(s.now(), uid[:], req.GetIdempotencyKey(), once.Sum("delete tag", req.GetTagId()))
	_, err = s.writeTag(ctx, use, uid, func(b *kv.Batch) (*momentsv1.Tag, error) {
		key := pairKey(prefixTag, uid, i)
		item, err := s.store.Get(ctx, slotOfUser(uid), key, kv.Linearizable)
		if err != nil || item.Ver == 0 {
			return new(momentsv1.Tag), err
		}
		b.IfVer(key, item.Ver).Delete(key).Put(userKey(prefixTag, uid), nil)
		return new(momentsv1.Tag), nil
	})
	if err != nil {
		return nil, problem.Store("delete tag", err)
	}
	return &momentsv1.DeleteTagResponse{}, nil
}

// ListTags implements the contract.
func (s *Service) ListTags(ctx context.Context, req *momentsv1.ListTagsRequest) (*momentsv1.ListTagsResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	res := &momentsv1.ListTagsResponse{}
	if _, err := s.allTags(ctx, uid, func(i id.Tag, t tag) { res.Tags = append(res.Tags, t.show(i)) }); err != nil {
		return nil, problem.Store("list tags", err)
	}
	return res, nil
}

// GetTag implements the contract.
func (s *Service) GetTag(ctx context.Context, req *momentsv1.GetTagRequest) (*momentsv1.GetTagResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	i, err := parseTag(req.GetTagId())
	if err != nil {
		return nil, err
	}
	t, _, err := s.tag(ctx, uid, i)
	if err != nil {
		return nil, problem.Store("read tag", err)
	}
	shown := t.show(i)
	shown.UserIds = texts(t.bearers)
	return &momentsv1.GetTagResponse{Tag: shown}, nil
}

// ResolveTags implements the contract.
func (s *Service) ResolveTags(ctx context.Context, req *momentsv1.ResolveTagsRequest) (*momentsv1.ResolveTagsResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetTagIds()); n > maxTags {
		return nil, problem.Invalid("tag_ids", "has %d ids, at most %d", n, maxTags)
	}
	var all []id.User
	for _, text := range req.GetTagIds() {
		i, err := parseTag(text)
		if err != nil {
			return nil, err
		}
		t, _, err := s.tag(ctx, uid, i)
		if err != nil {
			return nil, problem.Store("resolve tags", err)
		}
		all = append(all, t.bearers...)
		slices.SortFunc(all, id.User.Compare)
		if all = slices.Compact(all); len(all) > maxResolved {
			return nil, problem.New(rpc.FailedPrecondition, "limit", "tag_ids", "the tags have more than %d people", maxResolved)
		}
	}
	return &momentsv1.ResolveTagsResponse{UserIds: texts(all)}, nil
}

func texts(users []id.User) []string {
	out := make([]string, len(users))
	for i, u := range users {
		out[i] = u.String()
	}
	return out
}
