// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/gateway"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// fake is the four services in the least code that a gateway can be tried with: one
// mutex, friends see each other's posts, threads are not filtered. What the real
// ones do is their own tests' and the browser test's business.
type fake struct {
	momentsv1.AccountServiceClient // what is not written here must not be called
	posts                          map[string]*momentsv1.Post
	threads                        map[string]*momentsv1.Thread
	once                           map[string]*momentsv1.PublishResponse

	mu        sync.Mutex // guards everything
	gen       *id.Generator
	profiles  map[string]*momentsv1.Profile
	passwords map[string]string
	tokens    map[string]string
	devices   map[string]string
	half      map[[2]string]bool // [from, to]: asked or accepted
	authCalls int
	writes    int                                            // successful writes of any kind
	fail      func(ctx context.Context, method string) error // consulted before each call; may be nil
}

func newFake(t testing.TB) *fake {
	t.Helper()
	gen, err := id.NewGenerator(1, 1, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &fake{
		gen: gen, posts: map[string]*momentsv1.Post{}, threads: map[string]*momentsv1.Thread{}, once: map[string]*momentsv1.PublishResponse{},
		profiles: map[string]*momentsv1.Profile{}, passwords: map[string]string{}, tokens: map[string]string{}, devices: map[string]string{}, half: map[[2]string]bool{},
	}
}

func (f *fake) gateway(t testing.TB, change ...func(*gateway.Config)) *gateway.Gateway {
	t.Helper()
	cfg := gateway.Config{Accounts: f, Posts: fakePosts{fake: f}, Timelines: fakeTimelines{fake: f}, Comments: fakeComments{fake: f}, Notices: fakeNotices{fake: f}}
	for _, c := range change {
		c(&cfg)
	}
	g, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// withoutAdmission is for tests in a bubble: the admission of the process has the time
// of the world outside.
func withoutAdmission(c *gateway.Config) { c.AdmissionOff = true }

func newID[T ~[16]byte](f *fake) T {
	v, err := id.New[T](f.gen)
	if err != nil {
		panic(err)
	}
	return v
}

// begin locks the fake and asks fail; the caller unlocks.
func (f *fake) begin(ctx context.Context, method string) error {
	f.mu.Lock()
	if f.fail != nil {
		return f.fail(ctx, method)
	}
	return nil
}

func problemErr(code rpc.Code, kind, field, text string) error {
	return rpc.WithDetails(rpc.Errorf(code, "%s", text), &momentsv1.Problem{Type: kind, Field: field})
}

func (f *fake) Register(ctx context.Context, r *momentsv1.RegisterRequest) (*momentsv1.RegisterResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Register"); err != nil {
		return nil, err
	}
	if len(r.GetName()) < 2 || len(r.GetName()) > 32 || strings.ContainsAny(r.GetName(), "<\r\n\x00 ") {
		return nil, problemErr(rpc.InvalidArgument, "invalid", "name", "name must be 2 to 32 letters")
	}
	if len(r.GetPassword()) < 8 || len(r.GetPassword()) > 128 {
		return nil, problemErr(rpc.InvalidArgument, "invalid", "password", "password must have 8 to 128 characters")
	}
	for _, p := range f.profiles {
		if p.GetName() == r.GetName() {
			return nil, problemErr(rpc.AlreadyExists, "name-taken", "name", "the name is taken")
		}
	}
	f.writes++
	p := &momentsv1.Profile{
		UserId: newID[id.User](f).String(), Name: r.GetName(), DisplayName: cmp.Or(r.GetDisplayName(), r.GetName()), CreatedMs: time.Now().UnixMilli(),
	}
	f.profiles[p.GetUserId()], f.passwords[p.GetUserId()] = p, r.GetPassword()
	return &momentsv1.RegisterResponse{Profile: p}, nil
}

func (f *fake) LogIn(ctx context.Context, r *momentsv1.LogInRequest) (*momentsv1.LogInResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "LogIn"); err != nil {
		return nil, err
	}
	for _, p := range f.profiles {
		if p.GetName() == r.GetName() && f.passwords[p.GetUserId()] == r.GetPassword() {
			token := newID[id.Session](f).String()
			f.tokens[token], f.devices[token] = p.GetUserId(), r.GetDevice()
			return &momentsv1.LogInResponse{Token: token, Profile: p, ExpiresMs: time.Now().Add(time.Hour).UnixMilli()}, nil
		}
	}
	return nil, problemErr(rpc.Unauthenticated, "bad-credentials", "", "name or password is wrong")
}

func (f *fake) LogOut(ctx context.Context, r *momentsv1.LogOutRequest) (*momentsv1.LogOutResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "LogOut"); err != nil {
		return nil, err
	}
	delete(f.tokens, r.GetToken())
	return &momentsv1.LogOutResponse{}, nil
}

func (f *fake) Authenticate(ctx context.Context, r *momentsv1.AuthenticateRequest) (*momentsv1.AuthenticateResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Authenticate"); err != nil {
		return nil, err
	}
	f.authCalls++
	user, ok := f.tokens[r.GetToken()]
	if !ok {
		return nil, problemErr(rpc.Unauthenticated, "unauthenticated", "", "the session has ended")
	}
	return &momentsv1.AuthenticateResponse{UserId: user, SessionId: r.GetToken(), MaxAgeMs: 1000}, nil
}

// Stamps says that there are none: what others remember of sessions is tested beside it.
func (f *fake) Stamps(context.Context, *momentsv1.StampsRequest) (*momentsv1.StampsResponse, error) {
	return &momentsv1.StampsResponse{}, nil
}

func (f *fake) ListSessions(ctx context.Context, r *momentsv1.ListSessionsRequest) (*momentsv1.ListSessionsResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "ListSessions"); err != nil {
		return nil, err
	}
	res := &momentsv1.ListSessionsResponse{}
	for token, user := range f.tokens {
		if user == r.GetUserId() {
			now := time.Now().UnixMilli()
			res.Sessions = append(res.Sessions, &momentsv1.Session{
				SessionId: token, Device: f.devices[token], CreatedMs: now, LastUsedMs: now, ExpiresMs: now + 1000,
			})
		}
	}
	slices.SortFunc(res.Sessions, func(a, b *momentsv1.Session) int { return cmp.Compare(b.GetSessionId(), a.GetSessionId()) })
	return res, nil
}

func (f *fake) EndSessions(ctx context.Context, r *momentsv1.EndSessionsRequest) (*momentsv1.EndSessionsResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "EndSessions"); err != nil {
		return nil, err
	}
	maps.DeleteFunc(f.tokens, func(token, user string) bool {
		return user == r.GetUserId() && token != r.GetKeepSessionId() && (r.GetSessionId() == "" || r.GetSessionId() == token)
	})
	return &momentsv1.EndSessionsResponse{}, nil
}

func (f *fake) UpdateProfile(ctx context.Context, r *momentsv1.UpdateProfileRequest) (*momentsv1.UpdateProfileResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "UpdateProfile"); err != nil {
		return nil, err
	}
	p := f.profiles[r.GetUserId()]
	if r.DisplayName != nil {
		if r.GetDisplayName() == "" || len(r.GetDisplayName()) > 64 {
			return nil, problemErr(rpc.InvalidArgument, "invalid", "display_name", "display_name must have 1 to 64 characters")
		}
		p.DisplayName = r.GetDisplayName()
	}
	f.writes++
	return &momentsv1.UpdateProfileResponse{Profile: p}, nil
}

func (f *fake) ChangePassword(ctx context.Context, r *momentsv1.ChangePasswordRequest) (*momentsv1.ChangePasswordResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "ChangePassword"); err != nil {
		return nil, err
	}
	if len(r.GetNewPassword()) < 8 {
		return nil, problemErr(rpc.InvalidArgument, "invalid", "new_password", "new_password must have 8 to 128 characters")
	}
	if f.passwords[r.GetUserId()] != r.GetOldPassword() {
		return nil, problemErr(rpc.PermissionDenied, "wrong-password", "old_password", "this is not your password")
	}
	f.writes++
	f.passwords[r.GetUserId()] = r.GetNewPassword()
	maps.DeleteFunc(f.tokens, func(token, user string) bool { return user == r.GetUserId() && token != r.GetSessionId() })
	return &momentsv1.ChangePasswordResponse{}, nil
}

func (f *fake) DeleteAccount(ctx context.Context, r *momentsv1.DeleteAccountRequest) (*momentsv1.DeleteAccountResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "DeleteAccount"); err != nil {
		return nil, err
	}
	if f.passwords[r.GetUserId()] != r.GetPassword() {
		return nil, problemErr(rpc.PermissionDenied, "wrong-password", "password", "this is not your password")
	}
	f.writes++
	delete(f.profiles, r.GetUserId())
	maps.DeleteFunc(f.tokens, func(_, user string) bool { return user == r.GetUserId() })
	maps.DeleteFunc(f.half, func(edge [2]string, _ bool) bool { return edge[0] == r.GetUserId() || edge[1] == r.GetUserId() })
	return &momentsv1.DeleteAccountResponse{}, nil
}

func (f *fake) GetProfile(ctx context.Context, r *momentsv1.GetProfileRequest) (*momentsv1.GetProfileResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "GetProfile"); err != nil {
		return nil, err
	}
	if p := f.profiles[r.GetUserId()]; p != nil {
		return &momentsv1.GetProfileResponse{Profile: p}, nil
	}
	return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such user")
}

func (f *fake) GetProfiles(ctx context.Context, r *momentsv1.GetProfilesRequest) (*momentsv1.GetProfilesResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "GetProfiles"); err != nil {
		return nil, err
	}
	res := &momentsv1.GetProfilesResponse{}
	for _, u := range r.GetUserIds() {
		if p := f.profiles[u]; p != nil {
			res.Profiles = append(res.Profiles, p)
		}
	}
	return res, nil
}

func (f *fake) FindUser(ctx context.Context, r *momentsv1.FindUserRequest) (*momentsv1.FindUserResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "FindUser"); err != nil {
		return nil, err
	}
	for _, p := range f.profiles {
		if p.GetName() == r.GetName() {
			return &momentsv1.FindUserResponse{Profile: p}, nil
		}
	}
	return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such user")
}

func (f *fake) state(a, b string) momentsv1.FriendState {
	switch own, other := f.half[[2]string{a, b}], f.half[[2]string{b, a}]; {
	case own && other:
		return momentsv1.FriendState_FRIEND_STATE_FRIENDS
	case own:
		return momentsv1.FriendState_FRIEND_STATE_REQUESTED
	case other:
		return momentsv1.FriendState_FRIEND_STATE_INVITED
	}
	return momentsv1.FriendState_FRIEND_STATE_NONE
}

func (f *fake) RequestFriend(ctx context.Context, r *momentsv1.RequestFriendRequest) (*momentsv1.RequestFriendResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "RequestFriend"); err != nil {
		return nil, err
	}
	if f.profiles[r.GetOtherId()] == nil {
		return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such user")
	}
	if r.GetOtherId() == r.GetUserId() {
		return nil, problemErr(rpc.InvalidArgument, "invalid", "other_id", "that is yourself")
	}
	f.writes++
	f.half[[2]string{r.GetUserId(), r.GetOtherId()}] = true
	return &momentsv1.RequestFriendResponse{State: f.state(r.GetUserId(), r.GetOtherId())}, nil
}

func (f *fake) AcceptFriend(ctx context.Context, r *momentsv1.AcceptFriendRequest) (*momentsv1.AcceptFriendResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "AcceptFriend"); err != nil {
		return nil, err
	}
	if !f.half[[2]string{r.GetOtherId(), r.GetUserId()}] {
		return nil, problemErr(rpc.FailedPrecondition, "no-request", "other_id", "no request is waiting")
	}
	f.writes++
	f.half[[2]string{r.GetUserId(), r.GetOtherId()}] = true
	return &momentsv1.AcceptFriendResponse{State: momentsv1.FriendState_FRIEND_STATE_FRIENDS}, nil
}

func (f *fake) end(a, b string) momentsv1.FriendState {
	f.writes++
	delete(f.half, [2]string{a, b})
	delete(f.half, [2]string{b, a})
	return momentsv1.FriendState_FRIEND_STATE_NONE
}

func (f *fake) DeclineFriend(ctx context.Context, r *momentsv1.DeclineFriendRequest) (*momentsv1.DeclineFriendResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "DeclineFriend"); err != nil {
		return nil, err
	}
	return &momentsv1.DeclineFriendResponse{State: f.end(r.GetUserId(), r.GetOtherId())}, nil
}

func (f *fake) Unfriend(ctx context.Context, r *momentsv1.UnfriendRequest) (*momentsv1.UnfriendResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Unfriend"); err != nil {
		return nil, err
	}
	return &momentsv1.UnfriendResponse{State: f.end(r.GetUserId(), r.GetOtherId())}, nil
}

func (f *fake) ListFriends(ctx context.Context, r *momentsv1.ListFriendsRequest) (*momentsv1.ListFriendsResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "ListFriends"); err != nil {
		return nil, err
	}
	res := &momentsv1.ListFriendsResponse{}
	for u := range f.profiles {
		if f.state(r.GetUserId(), u) == momentsv1.FriendState_FRIEND_STATE_FRIENDS && u > r.GetCursor() {
			res.UserIds = append(res.UserIds, u)
		}
	}
	slices.Sort(res.UserIds)
	if n := int(r.GetLimit()); len(res.UserIds) > n {
		res.UserIds, res.NextCursor = res.UserIds[:n], res.UserIds[n-1]
	}
	return res, nil
}

func (f *fake) ListFriendRequests(ctx context.Context, r *momentsv1.ListFriendRequestsRequest) (*momentsv1.ListFriendRequestsResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "ListFriendRequests"); err != nil {
		return nil, err
	}
	res := &momentsv1.ListFriendRequestsResponse{}
	for u := range f.profiles {
		if f.state(r.GetUserId(), u) == momentsv1.FriendState_FRIEND_STATE_INVITED {
			res.Requests = append(res.Requests, &momentsv1.FriendRequest{UserId: u, ReceivedMs: time.Now().UnixMilli()})
		}
	}
	return res, nil
}

// sees is the fake's whole privacy.
func (f *fake) sees(viewer, post string) *momentsv1.Post {
	p := f.posts[post]
	if p == nil || (p.GetAuthorId() != viewer && f.state(viewer, p.GetAuthorId()) != momentsv1.FriendState_FRIEND_STATE_FRIENDS) {
		return nil
	}
	return p
}

// feed gives what the viewer sees of the authors, newest first, below the cursor.
func (f *fake) feed(viewer, author, cursor string, limit uint32) (page []*momentsv1.Post, next string) {
	for p := range f.posts {
		if post := f.sees(viewer, p); post != nil && (author == "" || post.GetAuthorId() == author) && (cursor == "" || p < cursor) {
			page = append(page, post)
		}
	}
	slices.SortFunc(page, func(a, b *momentsv1.Post) int { return cmp.Compare(b.GetId(), a.GetId()) })
	if n := int(limit); len(page) > n {
		page, next = page[:n], page[n-1].GetId()
	}
	return page, next
}

type fakePosts struct {
	momentsv1.PostServiceClient
	*fake
}

func (f fakePosts) Publish(ctx context.Context, r *momentsv1.PublishRequest) (*momentsv1.PublishResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Publish"); err != nil {
		return nil, err
	}
	if strings.TrimSpace(r.GetText()) == "" || len([]rune(r.GetText())) > 2000 || strings.Contains(r.GetText(), "\x00") {
		return nil, problemErr(rpc.InvalidArgument, "invalid", "text", "text must have 1 to 2,000 characters")
	}
	key := r.GetAuthorId() + r.GetIdempotencyKey()
	if res := f.once[key]; res != nil {
		if res.GetPost().GetText() != r.GetText() {
			return nil, problemErr(rpc.FailedPrecondition, "idempotency-conflict", "idempotency_key", "the key was used with another text")
		}
		return res, nil
	}
	f.writes++
	p := &momentsv1.Post{
		Id: newID[id.Post](f.fake).String(), AuthorId: r.GetAuthorId(), TimeMs: time.Now().UnixMilli(), Text: r.GetText(), Audience: r.GetAudience(),
	}
	f.posts[p.GetId()], f.threads[p.GetId()] = p, &momentsv1.Thread{PostId: p.GetId()}
	f.once[key] = &momentsv1.PublishResponse{Post: p}
	return f.once[key], nil
}

func (f fakePosts) Delete(ctx context.Context, r *momentsv1.DeletePostRequest) (*momentsv1.DeletePostResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "DeletePost"); err != nil {
		return nil, err
	}
	if p := f.posts[r.GetPostId()]; p == nil || p.GetAuthorId() != r.GetAuthorId() {
		return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such post")
	}
	f.writes++
	delete(f.posts, r.GetPostId())
	return &momentsv1.DeletePostResponse{}, nil
}

func (f fakePosts) GetMany(ctx context.Context, r *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "GetMany"); err != nil {
		return nil, err
	}
	res := &momentsv1.GetPostsResponse{}
	for _, p := range r.GetIds() {
		if post := f.sees(r.GetViewerId(), p); post != nil {
			res.Posts = append(res.Posts, post)
		}
	}
	return res, nil
}

func (f fakePosts) Album(ctx context.Context, r *momentsv1.AlbumRequest) (*momentsv1.AlbumResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Album"); err != nil {
		return nil, err
	}
	posts, next := f.feed(r.GetViewerId(), r.GetAuthorId(), r.GetCursor(), r.GetLimit())
	return &momentsv1.AlbumResponse{Posts: posts, NextCursor: next}, nil
}

type fakeTimelines struct {
	momentsv1.TimelineServiceClient
	*fake
}

func (f fakeTimelines) Home(ctx context.Context, r *momentsv1.HomeRequest) (*momentsv1.HomeResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Home"); err != nil {
		return nil, err
	}
	if r.GetCursor() != "" {
		if _, err := id.ParsePost(r.GetCursor()); err != nil {
			return nil, problemErr(rpc.InvalidArgument, "invalid", "cursor", "the cursor is not one of ours")
		}
	}
	posts, next := f.feed(r.GetViewerId(), "", r.GetCursor(), r.GetLimit())
	res := &momentsv1.HomeResponse{NextCursor: next, NewestCursor: r.GetCursor()}
	for _, p := range posts {
		res.Items = append(res.Items, &momentsv1.TimelineItem{Post: p, Thread: f.view(r.GetViewerId(), p.GetId())})
	}
	if len(posts) > 0 {
		res.NewestCursor = posts[0].GetId()
	}
	return res, nil
}

func (f fakeTimelines) Newer(ctx context.Context, r *momentsv1.NewerRequest) (*momentsv1.NewerResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Newer"); err != nil {
		return nil, err
	}
	posts, _ := f.feed(r.GetViewerId(), "", "", 1000)
	res := &momentsv1.NewerResponse{NewestCursor: r.GetCursor()}
	for _, p := range posts {
		if p.GetId() > r.GetCursor() {
			res.Items = append(res.Items, &momentsv1.TimelineItem{Post: p, Thread: f.view(r.GetViewerId(), p.GetId())})
		}
	}
	if len(res.GetItems()) > 0 {
		res.NewestCursor = res.GetItems()[0].GetPost().GetId()
	}
	return res, nil
}

func (f fakeTimelines) Head(ctx context.Context, r *momentsv1.HeadRequest) (*momentsv1.HeadResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Head"); err != nil {
		return nil, err
	}
	posts, _ := f.feed(r.GetViewerId(), "", "", 1)
	if len(posts) == 0 || posts[0].GetAuthorId() == r.GetViewerId() {
		return &momentsv1.HeadResponse{}, nil
	}
	return &momentsv1.HeadResponse{Fresh: true, PostId: posts[0].GetId(), AuthorId: posts[0].GetAuthorId()}, nil
}

func (f fakeTimelines) MarkSeen(ctx context.Context, _ *momentsv1.MarkSeenRequest) (*momentsv1.MarkSeenResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "MarkSeen"); err != nil {
		return nil, err
	}
	return &momentsv1.MarkSeenResponse{}, nil
}

type fakeComments struct {
	momentsv1.CommentServiceClient
	*fake
}

// view is a copy of a thread as the viewer sees it.
func (f *fake) view(viewer, post string) *momentsv1.Thread {
	t := f.threads[post]
	return &momentsv1.Thread{
		PostId: post, Comments: slices.Clone(t.GetComments()), LikeIds: slices.Clone(t.GetLikeIds()),
		CommentCount: uint32(len(t.GetComments())), LikeCount: uint32(len(t.GetLikeIds())), Liked: slices.Contains(t.GetLikeIds(), viewer),
	}
}

func (f fakeComments) Add(ctx context.Context, r *momentsv1.AddCommentRequest) (*momentsv1.AddCommentResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "AddComment"); err != nil {
		return nil, err
	}
	if f.sees(r.GetWriterId(), r.GetPostId()) == nil {
		return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such post")
	}
	if strings.TrimSpace(r.GetText()) == "" || len([]rune(r.GetText())) > 500 {
		return nil, problemErr(rpc.InvalidArgument, "invalid", "text", "text must have 1 to 500 characters")
	}
	c := &momentsv1.Comment{
		Id: newID[id.Comment](f.fake).String(), PostId: r.GetPostId(), WriterId: r.GetWriterId(), TimeMs: time.Now().UnixMilli(), Text: r.GetText(), ParentId: r.GetParentId(),
	}
	t := f.threads[r.GetPostId()]
	if r.GetParentId() != "" {
		i := slices.IndexFunc(t.GetComments(), func(c *momentsv1.Comment) bool { return c.GetId() == r.GetParentId() })
		if i < 0 {
			return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such comment")
		}
		c.ReplyToId = t.GetComments()[i].GetWriterId()
	}
	f.writes++
	t.Comments = append(t.Comments, c)
	return &momentsv1.AddCommentResponse{Comment: c}, nil
}

func (f fakeComments) Delete(ctx context.Context, r *momentsv1.DeleteCommentRequest) (*momentsv1.DeleteCommentResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "DeleteComment"); err != nil {
		return nil, err
	}
	t := f.threads[r.GetPostId()]
	for i, c := range t.GetComments() {
		if c.GetId() == r.GetCommentId() && (c.GetWriterId() == r.GetUserId() || f.posts[r.GetPostId()].GetAuthorId() == r.GetUserId()) {
			f.writes++
			t.Comments = slices.Delete(t.Comments, i, i+1)
			return &momentsv1.DeleteCommentResponse{}, nil
		}
	}
	return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such comment")
}

func (f fakeComments) Like(ctx context.Context, r *momentsv1.LikeRequest) (*momentsv1.LikeResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Like"); err != nil {
		return nil, err
	}
	if f.sees(r.GetUserId(), r.GetPostId()) == nil {
		return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such post")
	}
	f.writes++
	if t := f.threads[r.GetPostId()]; !slices.Contains(t.GetLikeIds(), r.GetUserId()) {
		t.LikeIds = append(t.LikeIds, r.GetUserId())
	}
	return &momentsv1.LikeResponse{}, nil
}

func (f fakeComments) Unlike(ctx context.Context, r *momentsv1.UnlikeRequest) (*momentsv1.UnlikeResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "Unlike"); err != nil {
		return nil, err
	}
	if f.sees(r.GetUserId(), r.GetPostId()) == nil {
		return nil, problemErr(rpc.NotFound, "not-found", "", "there is no such post")
	}
	f.writes++
	t := f.threads[r.GetPostId()]
	t.LikeIds = slices.DeleteFunc(t.LikeIds, func(u string) bool { return u == r.GetUserId() })
	return &momentsv1.UnlikeResponse{}, nil
}

func (f fakeComments) ListMany(ctx context.Context, r *momentsv1.ListCommentsRequest) (*momentsv1.ListCommentsResponse, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx, "ListMany"); err != nil {
		return nil, err
	}
	res := &momentsv1.ListCommentsResponse{}
	for _, p := range r.GetPostIds() {
		if f.sees(r.GetViewerId(), p) != nil {
			res.Threads = append(res.Threads, f.view(r.GetViewerId(), p))
		}
	}
	return res, nil
}
