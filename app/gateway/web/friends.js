// Friends: find by name, ask, accept, list.
import { useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { api, session } from './api.js';
import { explain, t } from './i18n.js';
import { learn } from './people.js';
import { Avatar, html, Icon, say } from './ui.js';

/** Friends and waiting requests, asked for now and then. */
export function useFriends() {
  const [state, setState] = useState({ friends: [], requests: [], ready: false });
  const reload = useRef(async () => {
    try {
      const friends = [];
      for (let cursor = ''; ;) {
        const page = await api('GET', `/friends?limit=100${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
        friends.push(...page.items);
        cursor = page.next_cursor;
        if (!cursor) break;
      }
      const { items } = await api('GET', '/friend-requests?limit=50');
      learn(...friends, ...items.map((r) => r.user));
      friends.sort((a, b) => a.display_name.localeCompare(b.display_name));
      setState({ friends, requests: items, ready: true });
    } catch { /* shown as offline; asked again soon */ }
  }).current;
  useEffect(() => {
    reload();
    const again = () => { if (!document.hidden) reload(); };
    const timer = setInterval(again, 15000);
    document.addEventListener('visibilitychange', again);
    return () => { clearInterval(timer); document.removeEventListener('visibilitychange', again); };
  }, []);
  return { ...state, reload };
}

function Person({ who, children }) {
  return html`<li class="person" data-test="person">
    <a href="#/u/${who.id}" class="grow who-line"><${Avatar} who=${who} size="mid" />
      <span><b>${who.display_name}</b><small>${who.name}</small></span></a>
    ${children}
  </li>`;
}

export function Friends({ heading, friends, requests, ready, reload, onChanged }) {
  const [found, setFound] = useState(null); // null; false: nobody; {user, state}
  const [busy, setBusy] = useState(false);

  /** Does one step and shows what it led to. */
  async function step(f) {
    setBusy(true);
    try {
      await f();
    } catch (p) {
      say(explain(p), true);
    }
    setBusy(false);
  }

  const search = (e) => {
    e.preventDefault();
    const name = new FormData(e.target).get('name').trim();
    if (!name) return;
    step(async () => {
      const { items } = await api('GET', `/users?name=${encodeURIComponent(name)}`);
      if (items.length === 0) return setFound(false);
      const user = items[0];
      learn(user);
      const state = user.id === session.user.id ? 'you' : friends.some((f) => f.id === user.id) ? 'friends' : 'none';
      return setFound({ user, state });
    });
  };
  const ask = () => step(async () => {
    const { state } = await api('POST', '/friend-requests', { user: found.user.id });
    setFound({ ...found, state });
    await reload();
    if (state === 'friends') onChanged();
  });
  const answer = (user, verb) => step(async () => {
    await api('POST', `/friend-requests/${user.id}/${verb}`);
    await reload();
    if (verb === 'accept') onChanged();
  });

  return html`<section class="friends" aria-label=${t.friends}>
    ${heading && html`<h1 class="sr">${t.friends}</h1>`}
    <form class="search" role="search" onSubmit=${search}>
      <input name="name" type="search" placeholder=${t.find} aria-label=${t.find} maxlength="32" autocomplete="off" autocapitalize="none" spellcheck="false" />
      <button class="primary small" disabled=${busy} data-test="search">${t.search}</button>
    </form>
    <div aria-live="polite">
      ${found === false && html`<p class="dim pad" data-test="nobody">${t.nobody}</p>`}
      ${found && html`<ul class="card"><${Person} who=${found.user}>
        ${found.state === 'none' && html`<button type="button" class="primary small" disabled=${busy} onClick=${ask} data-test="add">${t.add}</button>`}
        ${found.state === 'requested' && html`<span class="dim" data-test="requested">${t.requested}</span>`}
        ${found.state === 'friends' && html`<span class="dim">${t.isFriend}</span>`}
        ${found.state === 'you' && html`<span class="dim">${t.you}</span>`}
      <//></ul>`}
    </div>
    ${requests.length > 0 && html`<h2>${t.requests}</h2>
      <ul class="card">${requests.map(({ user }) => html`<${Person} key=${user.id} who=${user}>
        <button type="button" class="plain small" disabled=${busy} onClick=${() => answer(user, 'decline')}>${t.decline}</button>
        <button type="button" class="primary small" disabled=${busy} onClick=${() => answer(user, 'accept')} data-test="accept">${t.accept}</button>
      <//>`)}</ul>`}
    <h2>${t.friends}${friends.length > 0 && html` <span class="dim">${friends.length}</span>`}</h2>
    ${ready && friends.length === 0 && html`<p class="dim pad">${t.noFriends}</p>`}
    ${friends.length > 0 && html`<ul class="card">${friends.map((f) => html`<${Person} key=${f.id} who=${f}><${Icon} name="back" /><//>`)}</ul>`}
  </section>`;
}
