// One post with its likes and comments.
import { useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { api, newKey, session } from './api.js';
import { ago, exact, explain, t } from './i18n.js';
import { meet, named, person } from './people.js';
import { Ask, Avatar, html, Icon, say } from './ui.js';

const maxComment = 500;

function Name({ id }) {
  return html`<a class="name" href="#/u/${id}">${person(id).display_name}</a>`;
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
  return html`<li class="comment" data-test="comment">
    <span class="line">
      <${Name} id=${comment.writer_id} />
      ${comment.reply_to_user_id && html` ${t.replied} <${Name} id=${comment.reply_to_user_id} />`}<span class="colon">: </span>
      ${mine
        ? html`<span class="said">${comment.text}</span>`
        : html`<span class="said" role="button" tabindex="0" title=${t.replyTo(writer.display_name)} onClick=${() => onReply(comment)}
            onKeyDown=${(e) => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); onReply(comment); } }}>${comment.text}</span>`}
    </span>
    ${mayDelete && html`<button type="button" class="bin" aria-label=${t.deleteComment} title=${t.deleteComment} onClick=${() => onDelete(comment)}><${Icon} name="bin" /></button>`}
  </li>`;
}

function Reply({ post, to, onSent, onClose }) {
  const [text, setText] = useState('');
  const [busy, setBusy] = useState(false);
  const input = useRef();
  const key = useRef(newKey());
  useEffect(() => input.current.focus(), [to]);
  const hint = to ? t.replyTo(person(to.writer_id).display_name) : t.commentHint;
  const length = [...text.trim()].length;

  async function send(e) {
    e.preventDefault();
    if (busy || length === 0 || length > maxComment) return;
    setBusy(true);
    try {
      const body = { text: text.trim() };
      if (to) body.reply_to = to.id;
      onSent(await api('POST', `/posts/${post.id}/comments`, body, key.current));
    } catch (p) {
      say(explain(p), true);
      setBusy(false);
    }
  }

  return html`<form class="reply" onSubmit=${send}>
    <textarea ref=${input} rows="1" placeholder=${hint} aria-label=${hint} value=${text}
      onInput=${(e) => {
        setText(e.target.value);
        key.current = newKey(); // another text is another comment
        e.target.rows = Math.min(5, e.target.value.split('\n').length);
      }}
      onKeyDown=${(e) => {
        if (e.key === 'Escape') onClose();
        if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) send(e);
      }}></textarea>
    ${length > maxComment && html`<span class="error">${t.over(length - maxComment)}</span>`}
    <button class="primary small" disabled=${busy || length === 0 || length > maxComment} data-test="send">${t.send}</button>
  </form>`;
}

/** onChange gets the post as it is now, or null when it is deleted. */
export function Post({ post, now, onChange }) {
  const [menu, setMenu] = useState(false);
  const [replying, setReplying] = useState(null); // null: not; {to}: a comment or undefined
  const [asking, setAsking] = useState(null); // null; 'post'; a comment
  const root = useRef();
  const me = session.user.id;
  const mine = post.author_id === me;
  const author = person(post.author_id);
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

  async function remove() {
    const what = asking;
    setAsking(null);
    try {
      if (what === 'post') {
        await api('DELETE', `/posts/${post.id}`);
        onChange(null);
      } else {
        await api('DELETE', `/posts/${post.id}/comments/${what.id}`);
        const answered = post.comments.some((c) => c.reply_to === what.id);
        change((p) => ({
          comment_count: p.comment_count - 1,
          comments: answered
            ? p.comments.map((c) => (c.id === what.id ? { id: c.id, created_at: c.created_at, deleted: true } : c))
            : p.comments.filter((c) => c.id !== what.id),
        }));
      }
    } catch (p) {
      say(explain(p), true);
    }
  }

  async function showAll() {
    try {
      const whole = await api('GET', `/posts/${post.id}`);
      await meet(named([whole]));
      onChange(whole);
    } catch (p) {
      say(explain(p), true);
    }
  }

  const shown = post.comments.filter((c) => !c.deleted).length;
  return html`<article class="post" ref=${root} aria-label="${author.display_name}: ${post.text}" data-test="post">
    <a href="#/u/${post.author_id}" tabindex="-1" aria-hidden="true"><${Avatar} who=${author} /></a>
    <div class="body">
      <${Name} id=${post.author_id} />
      <p class="text">${post.text}</p>
      <div class="meta">
        <time datetime=${post.created_at} title=${exact(post.created_at)}>${ago(post.created_at, now)}</time>
        ${mine && html`<button type="button" class="link" data-test="delete-post" onClick=${() => setAsking('post')}>${t.delete}</button>`}
        <span class="grow"></span>
        ${menu && html`<div class="pill" role="group" aria-label=${t.more}>
          <button type="button" aria-pressed=${post.liked} onClick=${like} data-test="like"><${Icon} name=${post.liked ? 'heart' : 'heartLine'} />${post.liked ? t.unlike : t.like}</button>
          <button type="button" onClick=${() => { setMenu(false); setReplying({}); }} data-test="comment-button"><${Icon} name="bubble" />${t.comment}</button>
        </div>`}
        <button type="button" class="dots" aria-label=${t.more} aria-expanded=${!!menu} data-test="dots"
          onClick=${(e) => setMenu(menu ? false : e.detail === 0 ? 'keys' : 'pointer')}><i></i><i></i></button>
      </div>
      ${(post.like_count > 0 || post.comments.length > 0 || replying) && html`<div class="thread">
        ${post.like_count > 0 && html`<${Likes} post=${post} />`}
        ${post.comment_count > shown && html`<button type="button" class="link all" onClick=${showAll}>${t.allComments(post.comment_count)}</button>`}
        ${post.comments.length > 0 && html`<ul>${post.comments.map((c) => html`<${Comment} key=${c.id} comment=${c}
          mayDelete=${mine || c.writer_id === me} onReply=${(to) => setReplying({ to })} onDelete=${setAsking} />`)}</ul>`}
        ${replying && html`<${Reply} key=${replying.to ? replying.to.id : ''} post=${post} to=${replying.to}
          onClose=${() => setReplying(null)} onSent=${(c) => {
            setReplying(null);
            change((p) => ({ comments: [...p.comments, c], comment_count: p.comment_count + 1 }));
          }} />`}
      </div>`}
    </div>
    ${asking && html`<${Ask} title=${asking === 'post' ? t.deletePost : t.deleteCommentAsk} hint=${asking === 'post' ? t.deletePostHint : ''}
      action=${t.delete} onYes=${remove} onNo=${() => setAsking(null)} />`}
  </article>`;
}
