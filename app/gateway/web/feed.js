// Lists of posts: the timeline, without end, and a single post.
import { useCallback, useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { api, arrived, early, session } from './api.js';
import { explain, t } from './i18n.js';
import { known, learn, meet, named, person } from './people.js';
import { Post } from './post.js';
import { usePull } from './pull.js';
import { Avatar, html, Icon, lazy, say, useMinutes } from './ui.js';

const Composer = lazy(() => import('./compose.js'), 'Composer');

const pageSize = 10;

// The first page of the timeline is kept, so that the page shows something at once
// while the line is slow. Links to pictures in it end after ten minutes.
const keptFeed = 'moments.feed';
const keptFor = 8 * 60 * 1000;

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(keptFeed));
    if (!kept || kept.user !== session.user.id || Date.now() - kept.at > keptFor) return null;
    learn(...kept.people);
    return kept.items;
  } catch { return null; }
}

function keepFeed(items) {
  try {
    const people = [...new Set(named(items))].map((id) => known.get(id)).filter(Boolean);
    localStorage.setItem(keptFeed, JSON.stringify({ user: session.user.id, at: Date.now(), items, people }));
  } catch { /* the next start is only slower */ }
}

export function forgetFeed() { try { localStorage.removeItem(keptFeed); } catch { /* nothing is kept */ } }

const firstOf = (path) => `${path}${path.includes('?') ? '&' : '?'}limit=${pageSize}`;

/** Pages of posts from path, which the next pages continue by cursor. Of a list that is
 *  kept first.current is the first page, if it was here before the list was drawn. */
export function usePosts(path, kept) {
  const turn = useRef(0); // an answer that comes after a newer question is dropped
  const cursor = useRef('');
  const first = useRef(null);
  const [list, setList] = useState(() => {
    const had = kept && arrived(firstOf(path));
    if (!had) return { path, items: (kept && recall()) || [], state: 'loading' };
    learn(...had.people);
    first.current = had.page;
    cursor.current = had.page.next_cursor || '';
    return { path, items: had.page.items, state: cursor.current ? 'more' : 'end' };
  });

  const load = useCallback(async (fresh) => {
    const mine = ++turn.current;
    if (fresh) cursor.current = '';
    setList((l) => ({ ...l, state: 'loading' }));
    try {
      const after = cursor.current ? `&cursor=${encodeURIComponent(cursor.current)}` : '';
      const ask = `${firstOf(path)}${after}`;
      const had = fresh && await early(ask);
      if (had) learn(...had.people);
      const page = had ? had.page : await api('GET', ask);
      await meet(named(page.items));
      if (mine !== turn.current) return null;
      cursor.current = page.next_cursor || '';
      if (fresh && kept) keepFeed(page.items);
      setList((l) => {
        const had = new Set(fresh ? [] : l.items.map((p) => p.id));
        return { path, items: [...(fresh ? [] : l.items), ...page.items.filter((p) => !had.has(p.id))], state: page.next_cursor ? 'more' : 'end' };
      });
      return page;
    } catch (p) {
      if (mine === turn.current) setList((l) => ({ ...l, state: 'failed', problem: p }));
      return null;
    }
  }, [path, kept]);

  const change = useCallback((id, post) => setList((l) => ({
    ...l, items: post ? l.items.map((p) => (p.id === id ? post : p)) : l.items.filter((p) => p.id !== id),
  })), []);
  const prepend = useCallback((posts) => setList((l) => {
    const had = new Set(l.items.map((p) => p.id));
    return { ...l, items: [...posts.filter((p) => !had.has(p.id)), ...l.items] };
  }), []);
  const shown = list.path === path ? list : { path, items: [], state: 'loading' };
  return { ...shown, load, change, prepend, first };
}

/** Grey boxes in the form of posts, until the first have come. */
function Skeleton() {
  return html`<div class="bones" aria-hidden="true">${[0, 1, 2].map((i) => html`<div class="post" key=${i}><span class="avatar bone"></span>
    <div class="body"><span class="bone short"></span><span class="bone"></span><span class="bone half"></span></div></div>`)}</div>`;
}

export function Posts({ list, empty }) {
  const now = useMinutes();
  const end = useRef();
  const more = list.state === 'more';
  useEffect(() => {
    if (!more) return undefined;
    const seen = new IntersectionObserver((e) => e.some((x) => x.isIntersecting) && list.load(false), { rootMargin: '600px' });
    seen.observe(end.current);
    return () => seen.disconnect();
  }, [more, list.items.length, list.load]);

  return html`
    ${list.state === 'loading' && list.items.length === 0 && html`<${Skeleton} />`}
    ${list.items.length > 0 && html`<div role="feed" aria-busy=${list.state === 'loading'} class="posts">
      ${list.items.map((p, i) => html`<${Post} key=${p.id} post=${p} now=${now} near=${i < 2} onChange=${(q) => list.change(p.id, q)} />`)}
    </div>`}
    ${list.state === 'end' && list.items.length === 0 && empty}
    <div class="foot" ref=${end}>
      ${list.state === 'loading' && html`<span class="spin" role="status" aria-label=${t.loading}></span>`}
      ${more && html`<button type="button" class="link" onClick=${() => list.load(false)}>${t.loadMore}</button>`}
      ${list.state === 'end' && list.items.length > 0 && html`<span class="dim">${t.end}</span>`}
      ${list.state === 'failed' && html`<p class="error" role="alert">${explain(list.problem)}</p>
        <button type="button" class="plain" onClick=${() => list.load(list.items.length === 0)}>${t.retry}</button>`}
    </div>`;
}

/** title is what the page is, for who does not see it. */
export function Cover({ who, title, children }) {
  const picture = who.cover_url;
  return html`<header class="cover ${picture ? 'own' : ''}">
    ${picture && html`<img class="backdrop" src=${picture} alt="" decoding="async" />`}
    ${children}
    <div class="who"><h1><span class="sr">${title ? `${title}: ` : ''}</span>${who.display_name}</h1><a href="#/u/${who.id}" aria-label=${t.albumOf(who.display_name)}><${Avatar} who=${who} size="big" /></a></div>
  </header>`;
}

export function Timeline({ friends, head, onSeen, unread, active }) {
  const list = usePosts('/timeline', true);
  const [writing, setWriting] = useState(false);
  const newest = useRef('');

  const reached = useCallback((cursor) => {
    if (!cursor) return;
    newest.current = cursor;
    onSeen();
    api('PUT', '/timeline/seen', { cursor }).catch(() => {}); // the dot only comes back
  }, [onSeen]);
  const start = useCallback(async () => {
    const here = list.first.current;
    list.first.current = null;
    if (here) {
      await meet(named(here.items)); // who was too many for first.js
      keepFeed(here.items);
    }
    const page = here || await list.load(true);
    if (page) reached(page.newest_cursor);
  }, [list.load, reached]);
  useEffect(() => { start(); }, [start]);

  const refresh = useCallback(async () => {
    if (!newest.current) return start();
    try {
      const page = await api('GET', `/timeline/newer?limit=50&cursor=${encodeURIComponent(newest.current)}`);
      if (page.more) return await start(); // so much is new that the list begins anew
      await meet(named(page.items));
      list.prepend(page.items);
      reached(page.newest_cursor);
    } catch (p) {
      say(explain(p), true);
    }
    return undefined;
  }, [start, reached, list.prepend]);
  const up = () => { scrollTo({ top: 0, behavior: 'smooth' }); return refresh(); };
  const { pulled, busy } = usePull(refresh, active);

  /** Shows a post at once, and takes it back if it cannot be stored. */
  async function post({ body, key, media, onDone, onFailed }) {
    setWriting(false);
    scrollTo({ top: 0 });
    const id = `local-${key}`;
    list.prepend([{
      id, pending: true, author_id: session.user.id, created_at: new Date().toISOString(), text: body.text, audience: body.audience,
      media, link: body.link, location: body.location, remind_ids: body.remind, liked: false, like_count: 0, like_ids: [], comment_count: 0, comments: [],
    }]);
    try {
      const real = await api('POST', '/posts', body, key);
      onDone();
      list.change(id, { like_ids: [], comments: [], like_count: 0, comment_count: 0, liked: false, ...real });
      say(t.posted);
    } catch (p) {
      list.change(id, null);
      onFailed();
      say(explain(p), true);
      setWriting(true);
    }
  }

  return html`<section class="feed" aria-label=${t.feed}>
    <div class="pull ${busy ? 'busy' : ''}" style=${{ transform: `translateY(${pulled}px) rotate(${pulled * 4}deg)`, opacity: String(Math.min(1, pulled / 60)) }} aria-hidden="true"><${Icon} name="aperture" /></div>
    <${Cover} who=${session.user} title=${t.feed}>
      <div class="tools">
        <button type="button" class="round" aria-label=${t.refresh} title=${t.refresh} onClick=${up} data-test="refresh"><${Icon} name="refresh" /></button>
        <button type="button" class="round" aria-label=${t.newPost} title=${t.newPost} onClick=${() => setWriting(true)} data-test="compose"><${Icon} name="camera" /></button>
      </div>
    <//>
    ${unread > 0 && html`<a class="fresh" href="#/notices" data-test="new-notices"><${Icon} name="bell" />${t.newNotices(unread)}</a>`}
    ${head && html`<button type="button" class="fresh" onClick=${up} data-test="fresh"><${Avatar} who=${head} size="tiny" />${t.fresh(head.display_name)}</button>`}
    <${Posts} list=${list} empty=${html`<div class="empty"><${Icon} name="aperture" /><h2>${t.emptyFeed}</h2><p>${t.emptyFeedHint}</p>
      <button type="button" class="primary" onClick=${() => setWriting(true)}>${t.newPost}</button></div>`} />
    ${writing && html`<${Composer} friends=${friends} onClose=${() => setWriting(false)} onPost=${post} />`}
  </section>`;
}

/** One post with all that is said about it. */
export function Detail({ id }) {
  const [post, setPost] = useState(null);
  const [problem, setProblem] = useState(null);
  const now = useMinutes();
  const load = useCallback(async () => {
    setProblem(null);
    try {
      const whole = await api('GET', `/posts/${id}`);
      await meet(named([whole]));
      setPost(whole);
    } catch (p) { setProblem(p); }
  }, [id]);
  useEffect(() => { load(); }, [load]);
  return html`<section class="feed detail" aria-label=${t.detail}>
    <header class="bar"><button type="button" class="round" aria-label=${t.back} onClick=${() => history.back()} data-test="back"><${Icon} name="back" /></button><h1>${t.detail}</h1></header>
    ${post && html`<${Post} post=${post} now=${now} near=${true} onChange=${(p) => (p ? setPost(p) : history.back())} />`}
    ${!post && !problem && html`<${Skeleton} />`}
    ${problem && html`<div class="foot"><p class="error" role="alert">${explain(problem)}</p>
      ${problem.type !== 'not-found' && html`<button type="button" class="plain" onClick=${load}>${t.retry}</button>`}</div>`}
  </section>`;
}
