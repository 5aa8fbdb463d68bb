// Two languages, one word list each.

const words = {
  en: {
    app: 'Moments', tagline: 'Share the moment with friends.', name: 'User name', password: 'Password',
    displayName: 'Name to show (optional)', logIn: 'Log in', register: 'Create account', logOut: 'Log out',
    noAccount: 'New here? Create an account', haveAccount: 'Have an account? Log in',
    nameHint: '2 to 32 letters, digits, “_”, “-” or “.”', passwordHint: 'At least 8 characters',
    feed: 'Moments', friends: 'Friends', me: 'Me', newPost: 'New post', post: 'Post', cancel: 'Cancel',
    placeholder: 'What is on your mind?', like: 'Like', unlike: 'Unlike', comment: 'Comment', send: 'Send', more: 'Like or comment',
    commentHint: 'Write a comment…', replyTo: (n) => `Reply to ${n}`, replied: 'replied to', parentLost: 'What this replies to is not available any more', delete: 'Delete',
    deleteComment: 'Delete comment', deletePost: 'Delete this post?', deletePostHint: 'It disappears for everybody, for good.',
    deleteCommentAsk: 'Delete this comment?', deleted: 'This comment was deleted', likedBy: 'Liked by',
    allComments: (n) => `Show all ${n} comments`, end: 'No more posts', emptyFeed: 'Nothing here yet',
    emptyFeedHint: 'Write your first post, or find friends to see theirs.', emptyAlbum: 'No posts to see here',
    loading: 'Loading…', retry: 'Try again', loadMore: 'Load more', fresh: (n) => `New posts from ${n}`, refresh: 'Refresh',
    find: 'Find by user name', search: 'Search', add: 'Add friend', requested: 'Request sent', isFriend: 'Friends', you: 'That is you',
    nobody: 'Nobody has this name', requests: 'Friend requests', accept: 'Accept', decline: 'Decline', noFriends: 'No friends yet. Find one by user name.',
    unfriend: 'Remove friend', unfriendAsk: (n) => `Remove ${n} as a friend?`,
    unfriendHint: 'You will not see each other’s posts any more.', theme: 'Dark mode', language: '中文', languageName: 'Language',
    appearance: 'Appearance', light: 'Light', dark: 'Dark', myPosts: 'My posts', back: 'Back', close: 'Close',
    offline: 'You are offline. What you see may be old.', left: (n) => `${n} left`, over: (n) => `${n} too many`, now: 'just now',
    sessionEnded: 'Your session has ended. Please log in again.', loggedOut: 'You are logged out.', posted: 'Posted',
    notices: 'Notifications', noNotices: 'Nothing new', unread: 'Unread', isNew: 'New', newNotices: (n) => (n === 1 ? '1 new notification' : `${n} new notifications`),
    notice: { like: 'likes your post', comment: 'commented: ', reply: 'replied to you: ', remind: 'reminded you of a post', friend_request: 'wants to be your friend', friend_accepted: 'is your friend now' },
    photoOf: (i, n) => (n === 1 ? 'Photo' : `Photo ${i} of ${n}`), photos: (n) => `${n} photos`, video: 'Video', playVideo: 'Play video', previous: 'Previous', next: 'Next',
    addPhotos: 'Add photos or a video', removePhoto: (n) => `Remove ${n}`, moveForward: (n) => `Move ${n} forward`, uploading: (n) => `Uploading ${n}`, uploaded: 'Uploaded',
    photosOrVideo: 'A post has photos or one video, not both.', ninePhotos: 'At most nine photos.', tooLarge: (n, mb) => `${n} is larger than ${mb} MB.`,
    place: 'Location', placeHint: 'Where are you?', whoSees: 'Who can see it', remind: 'Remind', link: 'Link', linkTitle: 'Link title', done: 'Done', save: 'Save', saved: 'Saved', clear: 'Clear',
    audience: { friends: 'All friends', only_me: 'Only me', allow: 'Share with', deny: 'Hide from' },
    audienceHint: { friends: 'Every friend can see it', only_me: 'Nobody else can see it', allow: 'Only the people and tags chosen', deny: 'All friends but the people and tags chosen' },
    makeIt: (a) => `Change to: ${a}`, nowFor: (a) => `Now for: ${a}`, reminded: 'Reminded: ', remindedYou: 'You were reminded of this', posting: 'Posting…', unfold: 'Show all', fold: 'Show less',
    detail: 'Post', albumOf: (n) => `${n}’s album`, month: 'Month', allMonths: 'All months', changeCover: 'Change cover', choosePhoto: 'Choose a photo', changeAvatar: 'Change picture',
    aboutFriend: (n) => `Settings about ${n}`, hideMine: 'Hide my posts', hideMineHint: 'This person does not see what I post', hideTheirs: 'Hide their posts', hideTheirsHint: 'Their posts stay out of my feed',
    chatOnly: 'Chat only', chatOnlyHint: 'Neither sees the other’s posts', block: 'Block', unblock: 'Unblock', blocked: 'Blocked',
    privacy: 'Privacy', albumWindow: 'Friends can see my posts of', windows: { all: 'All time', '6_months': 'The last 6 months', '1_month': 'The last month', '3_days': 'The last 3 days' },
    strangers: 'Open to strangers', strangersHint: 'Strangers see my ten newest posts for all friends', aboutPeople: 'Set about people',
    tags: 'Tags', tagsHint: 'Lists of people, for choosing who sees a post. Nobody else sees them.', newTag: 'New tag', tagName: 'Name', deleteTag: (n) => `Delete tag ${n}`,
    sessions: 'Where I am logged in', thisDevice: 'This device', lastUsed: (x) => `Last used ${x}`, unknownDevice: 'Unknown device', endOthers: 'Log out everywhere else',
    changePassword: 'Change password', oldPassword: 'Current password', newPassword: 'New password', newPasswordHint: 'At least 8 characters. All other devices are logged out.', passwordChanged: 'Password changed',
    deleteAccount: 'Delete account', deleteAccountHint: 'Your posts, comments, likes and friendships are removed for good. Nobody can take your user name again.', accountGone: 'Your account is deleted.',
    profile: 'Profile', displayNameOnly: 'Name to show',
    problems: {
      offline: 'No connection. Please try again.', 'bad-credentials': 'User name or password is wrong.', 'name-taken': 'This user name is taken.',
      'rate-limited': 'That was a bit fast. Please wait a moment.', busy: 'Very busy right now. Please try again.', overload: 'Very busy right now. Please try again.',
      unavailable: 'The service cannot answer now. Please try again.', deadline: 'That took too long. Please try again.',
      internal: 'Something went wrong on our side.', 'not-found': 'It is not there any more.', 'wrong-password': 'This is not your password.', 'no-media': 'A file could not be used.', 'not-friends': 'Only friends can be chosen.',
      limit: 'A limit is reached.', blocked: 'You block this person.', 'audience-fixed': 'Whom this post is for was chosen by name and stays.', behind: 'Still catching up. Please try again.',
    },
    fields: { name: 'User name: 2 to 32 letters, digits, “_”, “-” or “.”.', password: 'Password: 8 to 128 characters.', display_name: 'Name to show: 1 to 64 characters.', text: 'Please check the length of the text.', old_password: 'This is not your password.', new_password: 'Password: 8 to 128 characters.', link: 'Please check the link.' },
  },
  'zh-CN': {
    app: '朋友圈', tagline: '和朋友分享此刻。', name: '用户名', password: '密码',
    displayName: '昵称（可选）', logIn: '登录', register: '注册', logOut: '退出登录',
    noAccount: '没有账号？立即注册', haveAccount: '已有账号？去登录',
    nameHint: '2 到 32 个字母、数字、“_”、“-”或“.”', passwordHint: '至少 8 个字符',
    feed: '朋友圈', friends: '朋友', me: '我', newPost: '发表', post: '发表', cancel: '取消',
    placeholder: '这一刻的想法…', like: '赞', unlike: '取消', comment: '评论', send: '发送', more: '赞或评论',
    commentHint: '评论…', replyTo: (n) => `回复 ${n}`, replied: '回复', parentLost: '所回复的评论已无法找回', delete: '删除',
    deleteComment: '删除评论', deletePost: '删除这条朋友圈？', deletePostHint: '删除后所有人都看不到，且无法恢复。',
    deleteCommentAsk: '删除这条评论？', deleted: '该评论已删除', likedBy: '点赞的人',
    allComments: (n) => `查看全部 ${n} 条评论`, end: '没有更多了', emptyFeed: '这里还没有内容',
    emptyFeedHint: '发表第一条朋友圈，或者添加朋友看看他们的动态。', emptyAlbum: '没有可看的内容',
    loading: '加载中…', retry: '重试', loadMore: '加载更多', fresh: (n) => `${n} 有新动态`, refresh: '刷新',
    find: '按用户名查找', search: '搜索', add: '添加朋友', requested: '已发送申请', isFriend: '已是朋友', you: '这是你自己',
    nobody: '没有这个用户', requests: '新的朋友', accept: '接受', decline: '拒绝', noFriends: '还没有朋友，按用户名找一个吧。',
    unfriend: '删除朋友', unfriendAsk: (n) => `删除朋友 ${n}？`,
    unfriendHint: '你们将看不到对方的朋友圈。', theme: '深色模式', language: 'English', languageName: '语言',
    appearance: '外观', light: '浅色', dark: '深色', myPosts: '我的相册', back: '返回', close: '关闭',
    offline: '网络已断开，内容可能不是最新的。', left: (n) => `还可输入 ${n} 字`, over: (n) => `超出 ${n} 字`, now: '刚刚',
    sessionEnded: '登录已失效，请重新登录。', loggedOut: '已退出登录。', posted: '已发表',
    notices: '消息', noNotices: '没有新消息', unread: '未读', isNew: '新', newNotices: (n) => `${n} 条新消息`,
    notice: { like: '赞了你的朋友圈', comment: '评论：', reply: '回复了你：', remind: '提醒你看一条朋友圈', friend_request: '请求添加你为朋友', friend_accepted: '已成为你的朋友' },
    photoOf: (i, n) => (n === 1 ? '照片' : `第 ${i} 张，共 ${n} 张`), photos: (n) => `共 ${n} 张`, video: '视频', playVideo: '播放视频', previous: '上一张', next: '下一张',
    addPhotos: '添加照片或视频', removePhoto: (n) => `移除第 ${n} 项`, moveForward: (n) => `前移第 ${n} 项`, uploading: (n) => `正在上传 ${n}`, uploaded: '已上传',
    photosOrVideo: '照片和视频不能同时发。', ninePhotos: '最多九张照片。', tooLarge: (n, mb) => `${n} 超过 ${mb} MB。`,
    place: '所在位置', placeHint: '你在哪里？', whoSees: '谁可以看', remind: '提醒谁看', link: '链接', linkTitle: '链接标题', done: '完成', save: '保存', saved: '已保存', clear: '清除',
    audience: { friends: '公开', only_me: '私密', allow: '部分可见', deny: '不给谁看' },
    audienceHint: { friends: '所有朋友可见', only_me: '仅自己可见', allow: '选中的朋友和标签可见', deny: '选中的朋友和标签不可见' },
    makeIt: (a) => `改为${a}`, nowFor: (a) => `已改为${a}`, reminded: '提到了：', remindedYou: '提到了我', posting: '发表中…', unfold: '全文', fold: '收起',
    detail: '详情', albumOf: (n) => `${n} 的相册`, month: '月份', allMonths: '全部月份', changeCover: '更换封面', choosePhoto: '选择照片', changeAvatar: '更换头像',
    aboutFriend: (n) => `${n} 的权限`, hideMine: '不让他（她）看我', hideMineHint: '对方看不到我的朋友圈', hideTheirs: '不看他（她）', hideTheirsHint: '我的朋友圈里不出现对方的动态',
    chatOnly: '仅聊天', chatOnlyHint: '互相看不到对方的朋友圈', block: '加入黑名单', unblock: '移出黑名单', blocked: '黑名单',
    privacy: '隐私', albumWindow: '允许朋友查看朋友圈的范围', windows: { all: '全部', '6_months': '最近半年', '1_month': '最近一个月', '3_days': '最近三天' },
    strangers: '允许陌生人查看', strangersHint: '陌生人可以看到最近十条公开朋友圈', aboutPeople: '已设置的人',
    tags: '标签', tagsHint: '给朋友分组，用来选择谁可以看。别人看不到。', newTag: '新建标签', tagName: '名称', deleteTag: (n) => `删除标签“${n}”`,
    sessions: '登录设备', thisDevice: '本机', lastUsed: (x) => `最近使用：${x}`, unknownDevice: '未知设备', endOthers: '退出其他所有设备',
    changePassword: '修改密码', oldPassword: '当前密码', newPassword: '新密码', newPasswordHint: '至少 8 个字符。其他设备将退出登录。', passwordChanged: '密码已修改',
    deleteAccount: '注销账号', deleteAccountHint: '你的朋友圈、评论、赞和朋友关系将被永久删除，用户名不会再给任何人使用。', accountGone: '账号已注销。',
    profile: '个人资料', displayNameOnly: '昵称',
    problems: {
      offline: '网络不可用，请重试。', 'bad-credentials': '用户名或密码错误。', 'name-taken': '用户名已被使用。',
      'rate-limited': '操作太频繁，请稍候。', busy: '现在很忙，请重试。', overload: '现在很忙，请重试。',
      unavailable: '服务暂时不可用，请重试。', deadline: '请求超时，请重试。',
      internal: '服务器出了点问题。', 'not-found': '内容已不存在。', 'wrong-password': '密码不正确。', 'no-media': '文件无法使用。', 'not-friends': '只能选择朋友。',
      limit: '已达到上限。', blocked: '你已将对方加入黑名单。', 'audience-fixed': '这条朋友圈的可见范围不能更改。', behind: '数据同步中，请重试。',
    },
    fields: { name: '用户名：2 到 32 个字母、数字、“_”、“-”或“.”。', password: '密码：8 到 128 个字符。', display_name: '昵称：1 到 64 个字符。', text: '请检查文字长度。', old_password: '密码不正确。', new_password: '密码：8 到 128 个字符。', link: '请检查链接。' },
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
  if (p.type !== 'wrong-password' && p.field && t.fields[p.field]) return t.fields[p.field];
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
