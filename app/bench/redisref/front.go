// SPDX-License-Identifier: Apache-2.0

// Package redisref is the reference that Moments is measured against: fan-out on write as the industry does it, over Redis.
//
// A home timeline is one sorted set of post ids per reader, scored by time; a post is one string with its JSON body; a new post is
// one pipeline of a SET, and a ZADD for each follower; a home page is a ZREVRANGE and one MGET. Redis runs with its append-only
// file flushed before it answers (appendfsync always), no snapshots and no rewrite of the file while it is measured, and no cap on
// a timeline's length. The front is Go's net/http. There is no authentication, no privacy filter and no check of input beyond its
// form: what Moments does on top of that is part of what is compared.
package redisref

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	maxBody = 64 << 10
	maxPage = 100
)

// Front answers the four verbs (and albums) over HTTP.
type Front struct {
	redis *redis.Client
	seq   atomic.Uint64
}

// NewFront returns a front over the Redis at addr. It dials when first used.
func NewFront(addr string) *Front {
	return &Front{redis: redis.NewClient(&redis.Options{
		Addr:            addr,
		PoolSize:        128, // a connection for every request in flight: none waits for another's pipeline
		DisableIdentity: true,
		Protocol:        2, // what the pipelines of this model were written for; its replies are the shorter ones
	})}
}

// Ready returns nil once Redis answers.
func (f *Front) Ready(ctx context.Context) error { return f.redis.Ping(ctx).Err() }

// Close ends the connections to Redis.
func (f *Front) Close() error { return f.redis.Close() }

// Handler returns the routes.
func (f *Front) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /register", f.register)
	mux.HandleFunc("POST /follow", f.follow)
	mux.HandleFunc("POST /compose", f.compose)
	mux.HandleFunc("GET /home", f.page("home:"))
	mux.HandleFunc("GET /album", f.page("album:"))
	return mux
}

func userKey(id int64) string      { return "user:" + strconv.FormatInt(id, 10) }
func followersKey(id int64) string { return "followers:" + strconv.FormatInt(id, 10) }

type registerRequest struct {
	UserID   int64  `json:"user_id"`
	Username string `json:"username"`
}

func (f *Front) register(w http.ResponseWriter, r *http.Request) {
	var in registerRequest
	if !decode(w, r, &in) {
		return
	}
	if err := f.redis.Set(r.Context(), userKey(in.UserID), in.Username, 0).Err(); err != nil {
		fail(w, err)
		return
	}
	reply(w, []byte("{}"))
}

type followRequest struct {
	UserID     int64 `json:"user_id"`
	FolloweeID int64 `json:"followee_id"`
}

func (f *Front) follow(w http.ResponseWriter, r *http.Request) {
	var in followRequest
	if !decode(w, r, &in) {
		return
	}
	if err := f.redis.SAdd(r.Context(), followersKey(in.FolloweeID), in.UserID).Err(); err != nil {
		fail(w, err)
		return
	}
	reply(w, []byte("{}"))
}

type composeRequest struct {
	UserID   int64  `json:"user_id"`
	Username string `json:"username"`
	Text     string `json:"text"`
}

type post struct {
	ID       string `json:"id"`
	UserID   int64  `json:"user_id"`
	Username string `json:"username"`
	Text     string `json:"text"`
	TimeMS   int64  `json:"time_ms"`
}

// compose answers when Redis has flushed the body and every follower's pointer.
func (f *Front) compose(w http.ResponseWriter, r *http.Request) {
	var in composeRequest
	if !decode(w, r, &in) {
		return
	}
	ctx := r.Context()
	followers, err := f.redis.SMembers(ctx, followersKey(in.UserID)).Result()
	if err != nil {
		fail(w, err)
		return
	}
	now := time.Now().UnixMilli()
	// As wide as it gets, so that ids sort by time as text, which is also how a sorted set orders equal scores.
	id := fmt.Sprintf("%011x%09x", now, f.seq.Add(1))
	body, err := json.Marshal(post{ID: id, UserID: in.UserID, Username: in.Username, Text: in.Text, TimeMS: now})
	if err != nil {
		fail(w, err)
		return
	}
	entry := redis.Z{Score: float64(now), Member: id}
	pipe := f.redis.Pipeline()
	pipe.Set(ctx, "post:"+id, body, 0)
	pipe.ZAdd(ctx, "album:"+strconv.FormatInt(in.UserID, 10), entry)
	pipe.ZAdd(ctx, "home:"+strconv.FormatInt(in.UserID, 10), entry)
	for _, follower := range followers {
		pipe.ZAdd(ctx, "home:"+follower, entry)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		fail(w, err)
		return
	}
	reply(w, fmt.Appendf(nil, `{"id":%q}`, id))
}

// page answers a range of a sorted set with the bodies, which are JSON already and go out as they are.
func (f *Front) page(prefix string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		start, err1 := strconv.ParseInt(query.Get("start"), 10, 64)
		stop, err2 := strconv.ParseInt(query.Get("stop"), 10, 64)
		user, err3 := strconv.ParseInt(query.Get("user_id"), 10, 64)
		if errors.Join(err1, err2, err3) != nil || start < 0 || stop < start || stop-start >= maxPage {
			http.Error(w, fmt.Sprintf("want user_id, start and stop, at most %d apart", maxPage), http.StatusBadRequest)
			return
		}
		ctx := r.Context()
		ids, err := f.redis.ZRevRange(ctx, prefix+strconv.FormatInt(user, 10), start, stop).Result()
		if err != nil {
			fail(w, err)
			return
		}
		if len(ids) == 0 {
			reply(w, []byte(`{"posts":[]}`))
			return
		}
		for i, id := range ids {
			ids[i] = "post:" + id
		}
		bodies, err := f.redis.MGet(ctx, ids...).Result()
		if err != nil {
			fail(w, err)
			return
		}
		out := make([]byte, 0, 512*len(bodies))
		out = append(out, `{"posts":[`...)
		for i, body := range bodies {
			text, ok := body.(string)
			if !ok {
				fail(w, fmt.Errorf("%s has no body", ids[i]))
				return
			}
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, text...)
		}
		out = append(out, ']')
		if int64(len(ids)) == stop-start+1 {
			out = append(out, `,"next":"`...)
			out = strconv.AppendInt(out, stop+1, 10)
			out = append(out, '"')
		}
		reply(w, append(out, '}'))
	}
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func reply(w http.ResponseWriter, body []byte) {
	w.Header()["Content-Type"] = []string{"application/json"}
	_, _ = w.Write(body) // a client that has gone is not this server's trouble
}

func fail(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}
