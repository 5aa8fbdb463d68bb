// One post with its likes and comments.
import { useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { api, newKey, session } from './api.js';
import { ago, exact, explain, t } from './i18n.js';
import { meet, person } from './people.js';
import { Grid, LinkCard } from './media.js';
import { Ask, Avatar, html, Icon, say } from './ui.js';

const maxComment = 500;

function Name({ id }) {
  return html`<a class="name" href="#/u/${id}">${person(id).display_name}</a>`;
}

/** A text, folded when it is long. */
function Text({ text }) {
  const [open, setOpen] = useState(false);
  const [long, setLong] = useState(false);
  const ref = useRef();
  useEffect(() => { setLong(ref.current.scrollHeight > ref.current.clientHeight + 4); }, [text]);
  return html`<p ref=${ref} class="text ${open ? '' : 'folded'}">${text}</p>
    ${(long || open) && html`<button type="button" class="link fold" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? t.fold : t.unfold}</button>`}`;
}

/** Whom one's own post is for, and the change between all friends and oneself. */
function Audience({ post, onChange }) {
  const fixed = post.audience !== 'friends' && post.audience !== 'only_me';
  const label = t.audience[post.audience];
  const icon = post.audience === 'friends' ? 'people' : 'lock';
  if (fixed) return html`<span class="audience" title=${label}><${Icon} name=${icon} /><span class="sr">${label}</span></span>`;
  const next = post.audience === 'friends' ? 'only_me' : 'friends';
  async function flip() {
    onChange(() => ({ audience: next }));
    try {
      await api('PUT', `/posts/${post.id}/audience`, { audience: next });
      say(t.nowFor(t.audience[next]));
    } catch (p) {
      onChange(() => ({ audience: post.audience }));
      say(explain(p), true);
    }
  }
  return html`<button type="button" class="audience" title=${t.makeIt(t.audience[next])} aria-label="${label}. ${t.makeIt(t.audience[next])}" onClick=${flip} data-test="audience"><${Icon} name=${icon} /></button>`;
}

function Likes({ post }) {
  const unnamed = post.like_count - post.like_ids.length;
  return html`<div class="likes">
    <${Icon} name="heartLine" /><span class="sr">${t.likedBy} </span>
    ${post.like_ids.map((id, i) => html`${i > 0 && ', '}<${Name} key=${id} id=${id} />`)}${unnamed > 0 && ` +${unnamed}`}
  </div>`;
}

function Comment({ comment, mayDelete, onReply, onDelete }) {
  if (comment.deleted) return html`<li class="comment gone">${t.deleted}</li>`;
  const writer = person(comment.writer_id);
  const mine = comment.writer_id === session.user.id;
  return html`<li class="comment ${comment.pending ? 'pending' : ''}" data-test="comment">
    <span class="line">
      ${comment.reply_to_unavailable && html`<span class="gone" data-test="parent-lost">${t.parentLost}</span><br />`}
      <${Name} id=${comment.writer_id} />
      ${comment.reply_to_user_id && html` ${t.replied} <${Name} id=${comment.reply_to_user_id} />`}<span class="colon">: </span>
      ${mine
        ? html`<span class="said">${comment.text}</span>`
        : html`<span class="said" role="button" tabindex="0" title=${t.replyTo(writer.display_name)} onClick=${() => onReply(comment)}
            onKeyDown=${(e) => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); onReply(comment); } }}>${comment.text}</span>`}
    </span>
    ${mayDelete && !comment.pending && html`<button type="button" class="bin" aria-label=${t.deleteComment} title=${t.deleteComment} onClick=${() => onDelete(comment)}><${Icon} name="bin" /></button>`}
  </li>`;
}

/** What was written to a post and could not be sent. */
const unsent = new Map();

function Reply({ post, to, onSend, onClose }) {
  const [text, setText] = useState(unsent.get(post.id) || '');
  const input = useRef();
  const key = useRef(newKey());
  useEffect(() => input.current.focus(), [to]);
  const hint = to ? t.replyTo(person(to.writer_id).display_name) : t.commentHint;
  const length = [...text.trim()].length;

  function send(e) {
    e.preventDefault();
    if (length === 0 || length > maxComment) return;
    const body = { text: text.trim() };
    if (to) body.reply_to = to.id;
    onSend(body, key.current, to);
  }

  return html`<form class="reply" onSubmit=${send}>
    <textarea ref=${input} rows="1" placeholder=${hint} aria-label=${hint} value=${text}
      onInput=${(e) => {
        setText(e.target.value);
        unsent.set(post.id, e.target.value);
        key.current = newKey(); // another text is another comment
        e.target.rows = Math.min(5, e.target.value.split('\n').length);
      }}
      onKeyDown=${(e) => {
        if (e.key === 'Escape') onClose();
        if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) send(e);
      }}></textarea>
    ${length > maxComment && html`<span class="error">${t.over(length - maxComment)}</span>`}
    <button class="primary small" disabled=${length === 0 || length > maxComment} data-test="send">${t.send}</button>
  </form>`;
}

/** onChange gets the post as it is now, or null when it is deleted. */
export function Post({ post, now, onChange, near }) {
  const [menu, setMenu] = useState(false);
  const [replying, setReplying] = useState(null); // null: not; {to}: a comment or undefined
  const [asking, setAsking] = useState(null); // null; 'post'; a comment
  const root = useRef();
  const me = session.user.id;
  const mine = post.author_id === me;
  const author = person(post.author_id);
  const renewed = useRef(0);
  const older = useRef(''); // where earlier comments begin
  const latest = useRef(post);
  latest.current = post;
  const change = (f) => onChange({ ...latest.current, ...f(latest.current) });

  useEffect(() => {
    if (!menu) return undefined;
    const dots = root.current.querySelector('.dots');
    if (menu === 'keys') root.current.querySelector('.pill button').focus(); // it stands before the dots
    const close = (e) => {
      if (e.type === 'keydown' ? e.key !== 'Escape' : root.current.contains(e.target)) return;
      setMenu(false);
      if (e.type === 'keydown') dots.focus();
    };
    addEventListener('click', close);
    addEventListener('keydown', close);
    return () => { removeEventListener('click', close); removeEventListener('keydown', close); };
  }, [menu]);

  async function like() {
    const liked = !post.liked;
    const set = (on) => change((p) => (p.liked === on ? p : {
      liked: on, like_count: p.like_count + (on ? 1 : -1),
      like_ids: on ? [...p.like_ids, me] : p.like_ids.filter((id) => id !== me),
    }));
    setMenu(false);
    set(liked); // at once; taken back if it fails
    try {
      await api(liked ? 'PUT' : 'DELETE', `/posts/${post.id}/like`);
    } catch (p) {
      set(!liked);
      say(explain(p), true);
    }
  }

  /** Shows a comment at once, and takes it back if it cannot be stored. */
  async function comment(body, key, to) {
    const id = `local-${key}`;
    const own = { id, writer_id: me, text: body.text, created_at: new Date().toISOString(), pending: true };
    if (to) Object.assign(own, { reply_to: to.id, reply_to_user_id: to.writer_id });
    setReplying(null);
    unsent.delete(post.id);
    change((p) => ({ comments: [...p.comments, own], comment_count: p.comment_count + 1 }));
    const settle = (real) => change((p) => ({
      comments: p.comments.flatMap((c) => (c.id === id ? real : [c])), comment_count: p.comment_count - (real.length ? 0 : 1),
    }));
    try {
      settle([await api('POST', `/posts/${post.id}/comments`, body, key)]);
    } catch (p) {
      settle([]);
      unsent.set(post.id, body.text);
      setReplying(to ? { to } : {});
      say(explain(p), true);
    }
  }

  /** Takes away at once, and puts back if it could not be deleted. */
  async function remove() {
    const what = asking;
    const before = post;
    setAsking(null);
    if (what === 'post') {
      change(() => ({ hidden: true }));
      try {
        await api('DELETE', `/posts/${post.id}`);
        onChange(null);
      } catch (p) {
        change(() => ({ hidden: false }));
        say(explain(p), true);
      }
      return;
    }
    const answered = post.comments.some((c) => c.reply_to === what.id);
    change((p) => ({
      comment_count: p.comment_count - 1,
      comments: answered
        ? p.comments.map((c) => (c.id === what.id ? { id: c.id, created_at: c.created_at, deleted: true } : c))
        : p.comments.filter((c) => c.id !== what.id),
    }));
    try {
      await api('DELETE', `/posts/${post.id}/comments/${what.id}`);
    } catch (p) {
      change(() => ({ comment_count: before.comment_count, comments: before.comments }));
      say(explain(p), true);
    }
  }

  /** Gets new links to pictures: the old ones hold for ten minutes. */
  async function renew() {
    if (post.pending || Date.now() - renewed.current < 60000) return;
    renewed.current = Date.now();
    try {
      const whole = await api('GET', `/posts/${post.id}`);
      change(() => ({ media: whole.media }));
    } catch { /* the pictures stay away */ }
  }

  /** Adds the comments before those shown, a page at a time. */
  async function showMore() {
    try {
      const page = await api('GET', `/posts/${post.id}/comments?limit=100${older.current && `&cursor=${encodeURIComponent(older.current)}`}`);
      older.current = page.next_cursor || '';
      await meet(page.items.flatMap((c) => [c.writer_id, c.reply_to_user_id]));
      change((p) => {
        const all = new Map(p.comments.map((c) => [c.id, c]));
        for (const c of page.items) all.set(c.id, c);
        // Their ids are their order; one's own that are on their way come last.
        return { comment_count: page.comment_count, comments: [...all.values()].sort((x, y) => (!!x.pending - !!y.pending) || (x.id < y.id ? -1 : 1)) };
      });
    } catch (p) {
      say(explain(p), true);
    }
  }

  if (post.hidden) return null;
  const shown = post.comments.filter((c) => !c.deleted).length;
  return html`<article class="post" ref=${root} aria-label="${author.display_name}: ${post.text}" data-test="post">
    <a href="#/u/${post.author_id}" tabindex="-1" aria-hidden="true"><${Avatar} who=${author} /></a>
    <div class="body">
      <${Name} id=${post.author_id} />
      ${post.text && html`<${Text} text=${post.text} />`}
      ${post.media && html`<${Grid} media=${post.media} near=${near} who=${author.display_name} onLost=${renew} />`}
      ${post.link && html`<${LinkCard} link=${post.link} />`}
      ${post.location && html`<p class="place"><span class="sr">${t.place}: </span>${post.location}</p>`}
      ${post.remind_ids && post.remind_ids.length > 0 && html`<p class="reminded">${mine
        ? html`${t.reminded}${post.remind_ids.map((id, i) => html`${i > 0 && ', '}<${Name} key=${id} id=${id} />`)}`
        : t.remindedYou}</p>`}
      <div class="meta">
        ${post.pending ? html`<span role="status">${t.posting}</span>` : html`<a href="#/p/${post.id}"><time datetime=${post.created_at} title=${exact(post.created_at)}>${ago(post.created_at, now)}</time></a>`}
        ${mine && post.audience && !post.pending && html`<${Audience} post=${post} onChange=${change} />`}
        ${mine && !post.pending && html`<button type="button" class="link" data-test="delete-post" onClick=${() => setAsking('post')}>${t.delete}</button>`}
        <span class="grow"></span>
        ${menu && html`<div class="pill" role="group" aria-label=${t.more}>
          <button type="button" aria-pressed=${post.liked} onClick=${like} data-test="like"><${Icon} name=${post.liked ? 'heart' : 'heartLine'} />${post.liked ? t.unlike : t.like}</button>
          <button type="button" onClick=${() => { setMenu(false); setReplying({}); }} data-test="comment-button"><${Icon} name="bubble" />${t.comment}</button>
        </div>`}
        ${!post.pending && html`<button type="button" class="dots" aria-label=${t.more} aria-expanded=${!!menu} data-test="dots"
          onClick=${(e) => setMenu(menu ? false : e.detail === 0 ? 'keys' : 'pointer')}><i></i><i></i></button>`}
      </div>
      ${(post.like_count > 0 || post.comments.length > 0 || replying) && html`<div class="thread">
        ${post.like_count > 0 && html`<${Likes} post=${post} />`}
        ${post.comment_count > shown && html`<button type="button" class="link all" onClick=${showMore}>${t.allComments(post.comment_count)}</button>`}
        ${post.comments.length > 0 && html`<ul>${post.comments.map((c) => html`<${Comment} key=${c.id} comment=${c}
          mayDelete=${mine || c.writer_id === me} onReply=${(to) => setReplying({ to })} onDelete=${setAsking} />`)}</ul>`}
        ${replying && html`<${Reply} key=${replying.to ? replying.to.id : ''} post=${post} to=${replying.to}
          onClose=${() => setReplying(null)} onSend=${comment} />`}
      </div>`}
    </div>
    ${asking && html`<${Ask} title=${asking === 'post' ? t.deletePost : t.deleteCommentAsk} hint=${asking === 'post' ? t.deletePostHint : ''}
      action=${t.delete} onYes=${remove} onNo=${() => setAsking(null)} />`}
  </article>`;
}
