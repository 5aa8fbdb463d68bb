// The page: which part is shown, and what all parts share.
import { render, useCallback, useEffect, useState } from './vendor/htm-preact-3.1.1.js';
import { api, keepSession, session } from './api.js';
import { Auth } from './auth.js';
import { Album, Timeline } from './feed.js';
import { Friends, useFriends } from './friends.js';
import { explain, lang, setLang, t } from './i18n.js';
import { forgetPeople, learn, person } from './people.js';
import { Ask, Avatar, html, Icon, Notes, say } from './ui.js';

/** The part of the address after #/, so that the browser's own back works. */
function useRoute() {
  const read = () => location.hash.replace(/^#\/?/, '').split('/');
  const [route, setRoute] = useState(read());
  useEffect(() => {
    const moved = () => { setRoute(read()); scrollTo(0, 0); };
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
  return html`<section class="me" aria-label=${t.me}>
    <a class="card who-card" href="#/u/${session.user.id}"><${Avatar} who=${session.user} size="big" />
      <span class="grow"><b>${session.user.display_name}</b><small>${session.user.name}</small></span><${Icon} name="back" /></a>
    <ul class="card rows">
      <li><a href="#/u/${session.user.id}">${t.myPosts}<${Icon} name="back" /></a></li>
      <li><button type="button" onClick=${() => { setLang(lang === 'en' ? 'zh-CN' : 'en', true); onSwitch(); }}>${t.languageName}<span class="dim">${lang === 'en' ? 'English' : '中文'}</span></button></li>
      <li><button type="button" onClick=${() => { setTheme(theme() === 'dark' ? 'light' : 'dark'); onSwitch(); }}>${t.appearance}<span class="dim">${theme() === 'dark' ? t.dark : t.light}</span></button></li>
    </ul>
    <ul class="card rows"><li><button type="button" class="leave" onClick=${onLogOut} data-test="log-out">${t.logOut}</button></li></ul>
  </section>`;
}

function Home({ route, onLogOut, onSwitch }) {
  const friends = useFriends();
  const [shown, setShown] = useState(0); // changes when the timeline has to be read anew
  const [asking, setAsking] = useState(null);
  const [part, id] = route;
  const here = part === 'friends' || part === 'me' || part === 'u' ? part : '';
  const changed = useCallback(() => setShown((n) => n + 1), []);

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

  const tab = (to, icon, text, count) => html`<a href="#/${to}" aria-current=${here === to ? 'page' : undefined} data-test="tab-${to || 'feed'}">
    <span class="tab-icon"><${Icon} name=${icon} />${count > 0 && html`<span class="badge">${count}</span>`}</span><span>${text}</span></a>`;
  const panel = html`<${Friends} ...${friends} onChanged=${changed} />`;

  return html`
    <nav class="tabs" aria-label=${t.app}>
      <a class="brand" href="#/"><img src="/assets/icon.svg" width="30" height="30" alt="" /><b>${t.app}</b></a>
      ${tab('', 'aperture', t.feed, 0)}${tab('friends', 'people', t.friends, friends.requests.length)}${tab('me', 'user', t.me, 0)}
      <span class="grow"></span>
      <${Switches} onChange=${onSwitch} />
    </nav>
    <main class="columns at-${here || 'feed'}">
      <div class="main">
        ${here === '' && html`<${Timeline} key=${shown} />`}
        ${here === 'u' && html`<${Album} key=${id} id=${id}>
          ${friends.friends.some((f) => f.id === id) && html`<div class="row end pad"><button type="button" class="plain small" onClick=${() => setAsking(person(id))}>${t.unfriend}</button></div>`}
        <//>`}
        ${here === 'friends' && panel}
        ${here === 'me' && html`<${Me} onLogOut=${onLogOut} onSwitch=${onSwitch} />`}
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
    const ended = () => { forgetPeople(); setNotice(t.sessionEnded); redraw(); };
    addEventListener('moments:session', ended);
    return () => removeEventListener('moments:session', ended);
  }, []);

  async function logOut() {
    try {
      await api('DELETE', '/sessions/current');
    } catch (p) {
      return say(explain(p), true); // still logged in: say so rather than pretend
    }
    keepSession(null);
    forgetPeople();
    location.hash = '#/';
    setNotice(t.loggedOut);
    return redraw();
  }

  if (session) learn(session.user);
  return html`
    ${!online && html`<div class="offline" role="alert">${t.offline}</div>`}
    ${session
      ? html`<${Home} key=${session.token} route=${route} onLogOut=${logOut} onSwitch=${redraw} />`
      : html`<div class="corner"><${Switches} onChange=${redraw} /></div><${Auth} notice=${notice} onDone=${() => { setNotice(''); redraw(); }} />`}
    <${Notes} />`;
}

render(html`<${App} />`, document.getElementById('app'));
