// Lists of posts: the timeline and an album, both without end.
import { useCallback, useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { api, newKey, session } from './api.js';
import { explain, t } from './i18n.js';
import { meet, named, person } from './people.js';
import { Post } from './post.js';
import { Avatar, html, Icon, Modal, say, useMinutes } from './ui.js';

const pageSize = 10;
const maxText = 2000;

/** Pages of posts from path, which the next pages continue by cursor. */
function usePosts(path) {
  const [list, setList] = useState({ path, items: [], next: null, state: 'loading' });
  const turn = useRef(0); // an answer that comes after a newer question is dropped
  const cursor = useRef('');

  const load = useCallback(async (first) => {
    const mine = ++turn.current;
    if (first) cursor.current = '';
    setList((l) => ({ ...l, state: 'loading' }));
    try {
      const after = cursor.current ? `&cursor=${encodeURIComponent(cursor.current)}` : '';
      const page = await api('GET', `${path}?limit=${pageSize}${after}`);
      await meet(named(page.items));
      if (mine !== turn.current) return null;
      cursor.current = page.next_cursor || '';
      setList((l) => {
        const had = new Set(first ? [] : l.items.map((p) => p.id));
        return { path, items: [...(first ? [] : l.items), ...page.items.filter((p) => !had.has(p.id))], state: page.next_cursor ? 'more' : 'end' };
      });
      return page;
    } catch (p) {
      if (mine === turn.current) setList((l) => ({ ...l, state: 'failed', problem: p }));
      return null;
    }
  }, [path]);

  const change = useCallback((id, post) => setList((l) => ({
    ...l, items: post ? l.items.map((p) => (p.id === id ? post : p)) : l.items.filter((p) => p.id !== id),
  })), []);
  const prepend = useCallback((posts) => setList((l) => {
    const had = new Set(l.items.map((p) => p.id));
    return { ...l, items: [...posts.filter((p) => !had.has(p.id)), ...l.items] };
  }), []);
  const shown = list.path === path ? list : { path, items: [], state: 'loading' };
  return { ...shown, load, change, prepend };
}

function Posts({ list, empty }) {
  const now = useMinutes();
  const end = useRef();
  const more = list.state === 'more';
  useEffect(() => {
    if (!more) return undefined;
    const seen = new IntersectionObserver((e) => e.some((x) => x.isIntersecting) && list.load(false), { rootMargin: '600px' });
    seen.observe(end.current);
    return () => seen.disconnect();
  }, [more, list.items.length, list.load]);

  return html`<div role="feed" aria-busy=${list.state === 'loading'} class="posts">
    ${list.items.map((p) => html`<${Post} key=${p.id} post=${p} now=${now} onChange=${(q) => list.change(p.id, q)} />`)}
    ${list.state === 'end' && list.items.length === 0 && empty}
    <div class="foot" ref=${end}>
      ${list.state === 'loading' && html`<span class="spin" role="status" aria-label=${t.loading}></span>`}
      ${more && html`<button type="button" class="link" onClick=${() => list.load(false)}>${t.loadMore}</button>`}
      ${list.state === 'end' && list.items.length > 0 && html`<span class="dim">${t.end}</span>`}
      ${list.state === 'failed' && html`<p class="error" role="alert">${explain(list.problem)}</p>
        <button type="button" class="plain" onClick=${() => list.load(list.items.length === 0)}>${t.retry}</button>`}
    </div>
  </div>`;
}

/** What is being written stays when the dialog is closed or sending fails. */
const draft = { text: '', key: '' };

function Composer({ onPosted, onClose }) {
  const [text, setText] = useState(draft.text);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const length = [...text.trim()].length;
  const ok = length > 0 && length <= maxText;

  async function submit(e) {
    e.preventDefault();
    if (!ok || busy) return;
    setBusy(true);
    draft.key = draft.key || newKey(); // the same words sent again are one post
    try {
      const post = await api('POST', '/posts', { text: text.trim() }, draft.key);
      draft.text = draft.key = '';
      onPosted(post);
    } catch (p) {
      setProblem(p);
      setBusy(false);
    }
  }

  return html`<${Modal} label=${t.newPost} onClose=${onClose}>
    <form class="composer" onSubmit=${submit}>
      <div class="row">
        <button type="button" class="plain small" onClick=${onClose}>${t.cancel}</button>
        <h2 class="grow">${t.newPost}</h2>
        <button class="primary small" disabled=${!ok || busy} data-test="publish">${t.post}</button>
      </div>
      <textarea autofocus rows="7" placeholder=${t.placeholder} aria-label=${t.placeholder} value=${text} data-test="text"
        onInput=${(e) => { draft.text = e.target.value; draft.key = ''; setText(e.target.value); }}
        onKeyDown=${(e) => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) submit(e); }}></textarea>
      <div class="row">
        ${problem && html`<span class="error" role="alert">${explain(problem)}</span>`}
        <span class="grow"></span>
        ${length > maxText - 200 && html`<span class=${ok ? 'dim' : 'error'}>${ok ? t.left(maxText - length) : t.over(length - maxText)}</span>`}
      </div>
    </form>
  <//>`;
}

function Cover({ who, children }) {
  return html`<header class="cover">${children}
    <div class="who"><strong>${who.display_name}</strong><a href="#/u/${who.id}" aria-label=${who.display_name}><${Avatar} who=${who} size="big" /></a></div>
  </header>`;
}

export function Timeline() {
  const list = usePosts('/timeline');
  const [writing, setWriting] = useState(false);
  const [fresh, setFresh] = useState(null); // who posted something new
  const newest = useRef('');

  const reached = useCallback((cursor) => {
    if (!cursor) return;
    newest.current = cursor;
    setFresh(null);
    api('PUT', '/timeline/seen', { cursor }).catch(() => {}); // the dot only comes back
  }, []);
  const start = useCallback(async () => {
    const page = await list.load(true);
    if (page) reached(page.newest_cursor);
  }, [list.load, reached]);
  useEffect(() => { start(); }, [start]);

  useEffect(() => { // the red dot: one small question now and then
    const look = async () => {
      if (document.hidden) return;
      try {
        const head = await api('GET', '/timeline/head');
        if (head.fresh) await meet([head.author_id]);
        setFresh(head.fresh ? person(head.author_id) : null);
      } catch { /* the notice above says that we are offline */ }
    };
    const timer = setInterval(look, 10000);
    document.addEventListener('visibilitychange', look);
    return () => { clearInterval(timer); document.removeEventListener('visibilitychange', look); };
  }, []);

  async function refresh() {
    scrollTo({ top: 0 });
    if (!newest.current) return start();
    try {
      const page = await api('GET', `/timeline/newer?limit=50&cursor=${encodeURIComponent(newest.current)}`);
      if (page.more) return start(); // so much is new that the list begins anew
      await meet(named(page.items));
      list.prepend(page.items);
      reached(page.newest_cursor);
    } catch (p) {
      say(explain(p), true);
    }
    return undefined;
  }

  return html`<section class="feed" aria-label=${t.feed}>
    <${Cover} who=${session.user}>
      <div class="tools">
        <button type="button" class="round" aria-label=${t.refresh} title=${t.refresh} onClick=${refresh} data-test="refresh"><${Icon} name="refresh" /></button>
        <button type="button" class="round" aria-label=${t.newPost} title=${t.newPost} onClick=${() => setWriting(true)} data-test="compose"><${Icon} name="camera" /></button>
      </div>
    <//>
    ${fresh && html`<button type="button" class="fresh" onClick=${refresh} data-test="fresh"><${Avatar} who=${fresh} size="tiny" />${t.fresh(fresh.display_name)}</button>`}
    <${Posts} list=${list} empty=${html`<div class="empty"><${Icon} name="aperture" /><h2>${t.emptyFeed}</h2><p>${t.emptyFeedHint}</p>
      <button type="button" class="primary" onClick=${() => setWriting(true)}>${t.newPost}</button></div>`} />
    ${writing && html`<${Composer} onClose=${() => setWriting(false)} onPosted=${(post) => {
      setWriting(false);
      list.prepend([post]);
      say(t.posted);
    }} />`}
  </section>`;
}

export function Album({ id, children }) {
  const list = usePosts(`/users/${id}/album`);
  const [who, setWho] = useState(person(id));
  useEffect(() => {
    meet([id]).then(() => setWho(person(id)));
    list.load(true);
  }, [id, list.load]);
  return html`<section class="feed" aria-label=${who.display_name}>
    <${Cover} who=${who}><a class="round" href="#/" aria-label=${t.back} title=${t.back}><${Icon} name="back" /></a><//>
    ${children}
    <${Posts} list=${list} empty=${html`<div class="empty"><${Icon} name="aperture" /><p>${t.emptyAlbum}</p></div>`} />
  </section>`;
}
