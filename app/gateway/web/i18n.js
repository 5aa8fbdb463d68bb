// Two languages, one word list each.

const words = {
  en: {
    app: 'Moments', tagline: 'Share the moment with friends.', name: 'User name', password: 'Password',
    displayName: 'Name to show (optional)', logIn: 'Log in', register: 'Create account', logOut: 'Log out',
    noAccount: 'New here? Create an account', haveAccount: 'Have an account? Log in',
    nameHint: '2 to 32 letters, digits, “_”, “-” or “.”', passwordHint: 'At least 8 characters',
    feed: 'Moments', friends: 'Friends', me: 'Me', newPost: 'New post', post: 'Post', cancel: 'Cancel',
    placeholder: 'What is on your mind?', like: 'Like', unlike: 'Unlike', comment: 'Comment', send: 'Send', more: 'Like or comment',
    commentHint: 'Write a comment…', replyTo: (n) => `Reply to ${n}`, replied: 'replied to', delete: 'Delete',
    deleteComment: 'Delete comment', deletePost: 'Delete this post?', deletePostHint: 'It disappears for everybody, for good.',
    deleteCommentAsk: 'Delete this comment?', deleted: 'This comment was deleted', likedBy: 'Liked by',
    allComments: (n) => `Show all ${n} comments`, end: 'No more posts', emptyFeed: 'Nothing here yet',
    emptyFeedHint: 'Write your first post, or find friends to see theirs.', emptyAlbum: 'No posts to see here',
    loading: 'Loading…', retry: 'Try again', loadMore: 'Load more', fresh: (n) => `New posts from ${n}`, refresh: 'Refresh',
    find: 'Find by user name', search: 'Search', add: 'Add friend', requested: 'Request sent', isFriend: 'Friends', you: 'That is you',
    nobody: 'Nobody has this name', requests: 'Friend requests', accept: 'Accept', decline: 'Decline', noFriends: 'No friends yet. Find one by user name.',
    asks: 'wants to be your friend', unfriend: 'Remove friend', unfriendAsk: (n) => `Remove ${n} as a friend?`,
    unfriendHint: 'You will not see each other’s posts any more.', theme: 'Dark mode', language: '中文', languageName: 'Language',
    appearance: 'Appearance', light: 'Light', dark: 'Dark', myPosts: 'My posts', back: 'Back', close: 'Close',
    offline: 'You are offline. What you see may be old.', left: (n) => `${n} left`, over: (n) => `${n} too many`, now: 'just now',
    sessionEnded: 'Your session has ended. Please log in again.', loggedOut: 'You are logged out.', posted: 'Posted',
    problems: {
      offline: 'No connection. Please try again.', 'bad-credentials': 'User name or password is wrong.', 'name-taken': 'This user name is taken.',
      'rate-limited': 'That was a bit fast. Please wait a moment.', busy: 'Very busy right now. Please try again.', overload: 'Very busy right now. Please try again.',
      unavailable: 'The service cannot answer now. Please try again.', deadline: 'That took too long. Please try again.',
      internal: 'Something went wrong on our side.', 'not-found': 'It is not there any more.', behind: 'Still catching up. Please try again.',
    },
    fields: { name: 'User name: 2 to 32 letters, digits, “_”, “-” or “.”.', password: 'Password: 8 to 128 characters.', display_name: 'Name to show: 1 to 64 characters.', text: 'Please check the length of the text.' },
  },
  'zh-CN': {
    app: '朋友圈', tagline: '和朋友分享此刻。', name: '用户名', password: '密码',
    displayName: '昵称（可选）', logIn: '登录', register: '注册', logOut: '退出登录',
    noAccount: '没有账号？立即注册', haveAccount: '已有账号？去登录',
    nameHint: '2 到 32 个字母、数字、“_”、“-”或“.”', passwordHint: '至少 8 个字符',
    feed: '朋友圈', friends: '朋友', me: '我', newPost: '发表', post: '发表', cancel: '取消',
    placeholder: '这一刻的想法…', like: '赞', unlike: '取消', comment: '评论', send: '发送', more: '赞或评论',
    commentHint: '评论…', replyTo: (n) => `回复 ${n}`, replied: '回复', delete: '删除',
    deleteComment: '删除评论', deletePost: '删除这条朋友圈？', deletePostHint: '删除后所有人都看不到，且无法恢复。',
    deleteCommentAsk: '删除这条评论？', deleted: '该评论已删除', likedBy: '点赞的人',
    allComments: (n) => `查看全部 ${n} 条评论`, end: '没有更多了', emptyFeed: '这里还没有内容',
    emptyFeedHint: '发表第一条朋友圈，或者添加朋友看看他们的动态。', emptyAlbum: '没有可看的内容',
    loading: '加载中…', retry: '重试', loadMore: '加载更多', fresh: (n) => `${n} 有新动态`, refresh: '刷新',
    find: '按用户名查找', search: '搜索', add: '添加朋友', requested: '已发送申请', isFriend: '已是朋友', you: '这是你自己',
    nobody: '没有这个用户', requests: '新的朋友', accept: '接受', decline: '拒绝', noFriends: '还没有朋友，按用户名找一个吧。',
    asks: '请求添加你为朋友', unfriend: '删除朋友', unfriendAsk: (n) => `删除朋友 ${n}？`,
    unfriendHint: '你们将看不到对方的朋友圈。', theme: '深色模式', language: 'English', languageName: '语言',
    appearance: '外观', light: '浅色', dark: '深色', myPosts: '我的相册', back: '返回', close: '关闭',
    offline: '网络已断开，内容可能不是最新的。', left: (n) => `还可输入 ${n} 字`, over: (n) => `超出 ${n} 字`, now: '刚刚',
    sessionEnded: '登录已失效，请重新登录。', loggedOut: '已退出登录。', posted: '已发表',
    problems: {
      offline: '网络不可用，请重试。', 'bad-credentials': '用户名或密码错误。', 'name-taken': '用户名已被使用。',
      'rate-limited': '操作太频繁，请稍候。', busy: '现在很忙，请重试。', overload: '现在很忙，请重试。',
      unavailable: '服务暂时不可用，请重试。', deadline: '请求超时，请重试。',
      internal: '服务器出了点问题。', 'not-found': '内容已不存在。', behind: '数据同步中，请重试。',
    },
    fields: { name: '用户名：2 到 32 个字母、数字、“_”、“-”或“.”。', password: '密码：8 到 128 个字符。', display_name: '昵称：1 到 64 个字符。', text: '请检查文字长度。' },
  },
};

export let lang = 'en';
export let t = words.en;

export function setLang(l, keep) {
  lang = words[l] ? l : 'en';
  t = words[lang];
  document.documentElement.lang = lang;
  document.title = t.app;
  if (keep) try { localStorage.setItem('moments.lang', lang); } catch { /* asked again next time */ }
}

let kept = null;
try { kept = localStorage.getItem('moments.lang'); } catch { /* no storage: the browser's language */ }
setLang(kept || (navigator.language.startsWith('zh') ? 'zh-CN' : 'en'));

/** What to tell people of a problem. */
export function explain(p) {
  if (p.field && t.fields[p.field]) return t.fields[p.field];
  return t.problems[p.type] || p.detail || t.problems.internal;
}

/** A time as people say it: "3 minutes ago", then the day. */
export function ago(iso, now = Date.now()) {
  const then = new Date(iso);
  const s = Math.max(0, (now - then) / 1000);
  const f = new Intl.RelativeTimeFormat(lang, { numeric: 'auto' });
  if (s < 60) return t.now;
  if (s < 3600) return f.format(-Math.floor(s / 60), 'minute');
  if (s < 86400) return f.format(-Math.floor(s / 3600), 'hour');
  if (s < 7 * 86400) return f.format(-Math.floor(s / 86400), 'day');
  const year = then.getFullYear() === new Date(now).getFullYear() ? undefined : 'numeric';
  return then.toLocaleDateString(lang, { year, month: 'short', day: 'numeric' });
}

export const exact = (iso) => new Date(iso).toLocaleString(lang, { dateStyle: 'long', timeStyle: 'short' });
