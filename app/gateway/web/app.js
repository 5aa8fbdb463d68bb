// The page: which part is shown, and what all parts share.
import { render, useCallback, useEffect, useState } from './vendor/htm-preact-3.1.1.js';
import { api, keepSession, session } from './api.js';
import { Auth } from './auth.js';
import { Detail, forgetFeed, Timeline } from './feed.js';
import { Friends, useFriends } from './friends.js';
import { explain, lang, setLang, t } from './i18n.js';
import { live } from './live.js';
import { forgetPeople, learn, meet, person } from './people.js';
import { Ask, Avatar, html, Icon, icon, lazy, Notes, say } from './ui.js';

const Album = lazy(() => import('./album.js'), 'Album');
const Notices = lazy(() => import('./notices.js'), 'Notices');
const Settings = lazy(() => import('./settings.js'), 'Settings');

/** The part of the address after #/, so that the browser's own back works. */
function useRoute() {
  const read = () => location.hash.replace(/^#\/?/, '').split('/');
  const [route, setRoute] = useState(read());
  useEffect(() => {
    const places = new Map(); // how far each page was scrolled
    let at = location.hash;
    const moved = () => {
      places.set(at, scrollY);
      at = location.hash;
      setRoute(read());
      const y = at === '' || at === '#/' ? places.get(at) || 0 : 0; // back in the timeline, one reads on
      requestAnimationFrame(() => scrollTo(0, y));
    };
    addEventListener('hashchange', moved);
    return () => removeEventListener('hashchange', moved);
  }, []);
  return route;
}

function useOnline() {
  const [online, setOnline] = useState(navigator.onLine);
  useEffect(() => {
    const events = {
      online: () => setOnline(true), offline: () => setOnline(false), 'moments:net': (e) => setOnline(e.detail),
    };
    for (const [name, f] of Object.entries(events)) addEventListener(name, f);
    return () => { for (const [name, f] of Object.entries(events)) removeEventListener(name, f); };
  }, []);
  return online;
}

const theme = () => document.documentElement.dataset.theme;

function setTheme(name) {
  try { localStorage.setItem('moments.theme', name); } catch { /* holds for this page only */ }
  document.documentElement.dataset.theme = name;
  dispatchEvent(new Event('moments:theme'));
}

function Switches({ onChange }) {
  return html`<div class="switches">
    <button type="button" class="round" aria-label=${t.theme} title=${t.theme} aria-pressed=${theme() === 'dark'} data-test="theme"
      onClick=${() => { setTheme(theme() === 'dark' ? 'light' : 'dark'); onChange(); }}><${Icon} name=${theme() === 'dark' ? 'sun' : 'moon'} /></button>
    <button type="button" class="round letters" aria-label=${t.languageName} title=${t.languageName} data-test="lang" lang=${lang === 'en' ? 'zh-CN' : 'en'}
      onClick=${() => { setLang(lang === 'en' ? 'zh-CN' : 'en', true); onChange(); }}>${lang === 'en' ? '中' : 'En'}</button>
  </div>`;
}

function Me({ onLogOut, onSwitch }) {
  const row = (to, label) => html`<li><a href=${to} data-test="go-${to.split('/').pop()}">${label}<${Icon} name="back" /></a></li>`;
  return html`<section class="me" aria-label=${t.me}><h1 class="sr">${t.me}</h1>
    <a class="card who-card" href="#/me/profile" data-test="go-profile"><${Avatar} who=${session.user} size="big" />
      <span class="grow"><b>${session.user.display_name}</b><small>${session.user.name}</small></span><${Icon} name="back" /></a>
    <ul class="card rows">${row(`#/u/${session.user.id}`, t.myPosts)}${row('#/me/privacy', t.privacy)}${row('#/me/tags', t.tags)}</ul>
    <ul class="card rows">${row('#/me/sessions', t.sessions)}${row('#/me/password', t.changePassword)}
      <li><button type="button" onClick=${() => { setLang(lang === 'en' ? 'zh-CN' : 'en', true); onSwitch(); }}>${t.languageName}<span class="dim">${lang === 'en' ? 'English' : '中文'}</span></button></li>
      <li><button type="button" onClick=${() => { setTheme(theme() === 'dark' ? 'light' : 'dark'); onSwitch(); }}>${t.appearance}<span class="dim">${theme() === 'dark' ? t.dark : t.light}</span></button></li>
    </ul>
    <ul class="card rows"><li><button type="button" class="leave" onClick=${onLogOut} data-test="log-out">${t.logOut}</button></li></ul>
    <p class="quiet"><a class="link" href="#/me/leave" data-test="go-leave">${t.deleteAccount}</a></p>
  </section>`;
}

const parts = ['friends', 'me', 'u', 'p', 'notices'];

function Home({ route, onLogOut, onSwitch, onGone }) {
  const friends = useFriends();
  const [shown, setShown] = useState(0); // changes when the timeline has to be read anew
  const [asking, setAsking] = useState(null);
  const [head, setHead] = useState(null); // who posted something new
  const [unread, setUnread] = useState(0);
  const [part, id] = route;
  const here = parts.includes(part) ? part : '';
  const changed = useCallback(() => setShown((n) => n + 1), []);
  const seen = useCallback(() => setHead(null), []);

  useEffect(() => { // links to one's own pictures have ended since the log-in
    const me = async () => {
      const { token } = session;
      const user = await api('GET', '/me');
      if (!session || session.token !== token) return;
      keepSession({ ...session, user });
      learn(user);
      onSwitch();
    };
    const again = () => me().catch(() => {});
    again();
    const timer = setInterval(again, 8 * 60 * 1000);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => live({
    head: async (h) => {
      if (h.fresh) await meet([h.author_id]);
      setHead(h.fresh ? person(h.author_id) : null);
    },
    notices: (n) => setUnread((was) => {
      if (n > was) friends.reload(); // perhaps a request
      return n;
    }),
  }), []);
  useEffect(() => { document.title = unread > 0 ? `(${unread}) ${t.app}` : t.app; }, [unread]);

  const unfriend = async () => {
    const who = asking;
    setAsking(null);
    try {
      await api('DELETE', `/friends/${who.id}`);
      await friends.reload();
      changed();
      location.hash = '#/';
    } catch (p) {
      say(explain(p), true);
    }
  };

  const tab = (to, icon, text, count, dot) => html`<a href="#/${to}" aria-current=${here === to ? 'page' : undefined} data-test="tab-${to || 'feed'}">
    <span class="tab-icon"><${Icon} name=${icon} />${count > 0 ? html`<span class="badge">${count > 99 ? '99+' : count}</span>` : dot && html`<span class="badge dot"><span class="sr">${t.isNew}</span></span>`}</span><span>${text}</span></a>`;
  const panel = html`<${Friends} heading=${here === 'friends'} ...${friends} onChanged=${changed} />`;

  return html`
    <nav class="tabs" aria-label=${t.app}>
      <a class="brand" href="#/"><img src=${icon} width="30" height="30" alt="" /><b>${t.app}</b></a>
      ${tab('', 'aperture', t.feed, 0, head)}${tab('notices', 'bell', t.notices, unread)}${tab('friends', 'people', t.friends, friends.requests.length)}${tab('me', 'user', t.me, 0)}
      <span class="grow"></span>
      <${Switches} onChange=${onSwitch} />
    </nav>
    <main class="columns at-${here || 'feed'}">
      <div class="main">
        <div hidden=${here !== ''}><${Timeline} key=${shown} friends=${friends.friends} head=${head} onSeen=${seen} unread=${unread} active=${here === ''} /></div>
        ${here === 'u' && html`<${Album} key=${id} id=${id} isFriend=${friends.friends.some((f) => f.id === id)} onUnfriend=${() => setAsking(person(id))} onChanged=${changed} />`}
        ${here === 'p' && html`<${Detail} key=${id} id=${id} />`}
        ${here === 'notices' && html`<${Notices} onRead=${setUnread} />`}
        ${here === 'friends' && panel}
        ${here === 'me' && !id && html`<${Me} onLogOut=${onLogOut} onSwitch=${onSwitch} />`}
        ${here === 'me' && id && html`<${Settings} part=${id} friends=${friends.friends} onGone=${onGone} onChanged=${onSwitch} />`}
      </div>
      ${here !== 'friends' && html`<aside class="side">${panel}</aside>`}
    </main>
    ${asking && html`<${Ask} title=${t.unfriendAsk(asking.display_name)} hint=${t.unfriendHint} action=${t.unfriend} onYes=${unfriend} onNo=${() => setAsking(null)} />`}`;
}

function App() {
  const route = useRoute();
  const online = useOnline();
  const [, again] = useState(0);
  const [notice, setNotice] = useState('');
  const redraw = useCallback(() => again((n) => n + 1), []);

  useEffect(() => {
    const ended = () => { forgetPeople(); forgetFeed(); setNotice(t.sessionEnded); redraw(); };
    addEventListener('moments:session', ended);
    return () => removeEventListener('moments:session', ended);
  }, []);

  async function logOut() {
    try {
      await api('DELETE', '/sessions/current');
    } catch (p) {
      return say(explain(p), true); // still logged in: say so rather than pretend
    }
    return leave(t.loggedOut);
  }

  function leave(words) {
    keepSession(null);
    forgetPeople();
    forgetFeed();
    location.hash = '#/';
    setNotice(words);
    return redraw();
  }

  if (session) learn(session.user);
  return html`
    ${!online && html`<div class="offline" role="alert">${t.offline}</div>`}
    ${session
      ? html`<${Home} key=${session.token} route=${route} onLogOut=${logOut} onSwitch=${redraw} onGone=${() => leave(t.accountGone)} />`
      : html`<div class="corner"><${Switches} onChange=${redraw} /></div><${Auth} notice=${notice} onDone=${() => { setNotice(''); redraw(); }} />`}
    <${Notes} />`;
}

render(html`<${App} />`, document.getElementById('app'));
