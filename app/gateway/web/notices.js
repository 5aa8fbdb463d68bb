// What others did: likes, comments, replies, reminders, friendship.
import { useCallback, useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { api } from './api.js';
import { ago, explain, t } from './i18n.js';
import { meet, person } from './people.js';
import { Avatar, html, Icon, useMinutes } from './ui.js';

export function Notices({ onRead }) {
  const [list, setList] = useState({ items: [], next: '', state: 'loading' });
  const now = useMinutes();
  const cursor = useRef('');
  const load = useCallback(async () => {
    setList((l) => ({ ...l, state: 'loading' }));
    try {
      const page = await api('GET', `/notices?limit=20${cursor.current && `&cursor=${encodeURIComponent(cursor.current)}`}`);
      await meet(page.items.map((n) => n.actor_id));
      const first = !cursor.current;
      cursor.current = page.next_cursor || '';
      setList((l) => ({ items: [...l.items, ...page.items], state: cursor.current ? 'more' : 'end' }));
      if (first && page.items.length > 0) {
        api('PUT', '/notices/read', { up_to: page.items[0].id }).then((r) => onRead(r ? r.unread : 0), () => {});
      }
    } catch (p) {
      setList((l) => ({ ...l, state: 'failed', problem: p }));
    }
  }, []);
  useEffect(() => { load(); }, [load]);

  const target = (n) => (n.post_id ? `#/p/${n.post_id}` : n.kind === 'friend_request' ? '#/friends' : `#/u/${n.actor_id}`);
  return html`<section class="notices" aria-label=${t.notices}>
    <h1>${t.notices}</h1>
    <ul class="card">${list.items.map((n) => html`<li key=${n.id} class=${n.read ? '' : 'unread'} data-test="notice">
      <a href=${target(n)}><${Avatar} who=${person(n.actor_id)} size="mid" />
        <span class="grow"><b class="name">${person(n.actor_id).display_name}</b>
          <span class="what">${n.kind === 'like' && html`<${Icon} name="heartLine" />`}${t.notice[n.kind] || ''}${n.text && html`<q>${n.text}</q>`}</span>
          <time datetime=${n.created_at}>${ago(n.created_at, now)}</time></span>
        ${!n.read && html`<span class="dot"><span class="sr">${t.unread}</span></span>`}</a></li>`)}</ul>
    <div class="foot">
      ${list.state === 'loading' && html`<span class="spin" role="status" aria-label=${t.loading}></span>`}
      ${list.state === 'more' && html`<button type="button" class="link" onClick=${load}>${t.loadMore}</button>`}
      ${list.state === 'end' && list.items.length === 0 && html`<div class="empty"><${Icon} name="bell" /><p>${t.noNotices}</p></div>`}
      ${list.state === 'failed' && html`<p class="error" role="alert">${explain(list.problem)}</p><button type="button" class="plain" onClick=${load}>${t.retry}</button>`}
    </div>
  </section>`;
}
