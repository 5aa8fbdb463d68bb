// SPDX-License-Identifier: Apache-2.0
// The frame of the console: where we are, which time, live or not, language, colours.
import { html, render, useCallback, useEffect, useState } from './lib.js';
import { lang, setLang, t } from './i18n.js';
import { useAsk } from './api.js';
import { clock } from './format.js';
import { link, parse } from './route.js';
import { Select } from './ui.js';
import { Entries } from './entries.js';
import { Compare, Graph } from './graph.js';
import { Traces } from './traces.js';
import { Services } from './services.js';
import { QoS } from './qos.js';

const pages = { entries: Entries, graph: Graph, compare: Compare, traces: Traces, services: Services, qos: QoS };
const names = Object.keys(pages);
const lasts = ['5m', '15m', '1h', '6h', '24h'];

function theme() {
  const asked = localStorage.getItem('console.theme');
  return asked || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
}
function applyTheme() {
  const asked = localStorage.getItem('console.theme');
  if (asked) document.documentElement.dataset.theme = asked;
  else delete document.documentElement.dataset.theme;
}

function App() {
  const [route, setRoute] = useState(parse);
  const [, again] = useState(0);
  const [live, setLive] = useState(true);
  const last = lasts.includes(route.q.last) ? route.q.last : lasts.includes(localStorage.getItem('console.last')) ? localStorage.getItem('console.last') : '5m';
  const status = useAsk('status', {}, { live: true, every: 5 });
  const every = status.data?.every_seconds || 10;

  useEffect(() => {
    const moved = () => setRoute(parse());
    addEventListener('hashchange', moved);
    return () => removeEventListener('hashchange', moved);
  }, []);

  // go changes what is asked for; quietly when it is a filter, which Back should not undo one by one.
  const go = useCallback((change, quiet) => {
    const now = parse();
    const next = link(now.page, { ...now.q, ...change });
    if (quiet) history.replaceState(null, '', next);
    else location.hash = next;
    setRoute(parse());
  }, []);

  useEffect(() => {
    const key = (e) => {
      if (e.target.closest('input,select,textarea') || e.ctrlKey || e.metaKey || e.altKey) return;
      if (e.key === '/') {
        const box = document.querySelector('[data-search]');
        if (box) { e.preventDefault(); box.focus(); box.select(); }
      } else if (e.key === 'p') setLive((v) => !v);
      else if (names[Number(e.key) - 1]) location.hash = pageLink(names[Number(e.key) - 1], parse());
    };
    addEventListener('keydown', key);
    return () => removeEventListener('keydown', key);
  }, []);

  const page = pages[route.page] ? route.page : 'entries';
  const Page = pages[page];
  useEffect(() => { document.querySelector('nav [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' }); }, [page, lang]);
  useEffect(() => { document.title = `${route.q.entry || t[page]} · ${t.app}`; });
  const failing = (status.data?.processes || []).filter((p) => p.state === 'failing').length;
  const switchTheme = () => {
    localStorage.setItem('console.theme', theme() === 'dark' ? 'light' : 'dark');
    applyTheme();
    dispatchEvent(new Event('themechange'));
    again((n) => n + 1);
  };
  return html`<a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.querySelector('main').focus(); }}>${t.skip}</a>
    <header class="top"><a class="brand" href="#/entries"><img src="/icon.svg" alt="" width="24" height="24" /><span>${t.app}</span></a>
      <nav aria-label=${t.app}>${names.map((n) => html`<a href=${pageLink(n, route)} aria-current=${n === page ? 'page' : undefined} data-test=${`nav-${n}`}>${t[n]}</a>`)}</nav>
      <div class="controls">
        <${Select} hideLabel label=${t.period} value=${last} options=${lasts.map((l) => [l, t.last[l]])} test="last" onChange=${(v) => { localStorage.setItem('console.last', v); go({ last: v }, true); }} />
        <button class=${live ? 'live on' : 'live'} aria-pressed=${live} title=${live ? t.pause : t.resume} onClick=${() => setLive(!live)} data-test="live"><span aria-hidden="true">${live ? '●' : '❚❚'}</span> ${live ? t.live : t.paused}</button>
        <button class="icon" aria-label=${t.theme} title=${t.theme} onClick=${switchTheme} data-test="theme">${theme() === 'dark' ? '☀' : '☾'}</button>
        <button class="icon text" aria-label=${`${t.languageName}: ${t.language}`} onClick=${() => { setLang(lang === 'en' ? 'zh-CN' : 'en'); again((n) => n + 1); }} data-test="language">${t.language === '中文' ? '中' : 'EN'}</button>
      </div></header>
    ${status.error && status.data && html`<p class="banner" role="alert">${t.offline} ${t.stale(clock(status.data.now))}</p>`}
    ${status.data?.trouble && html`<p class="banner" role="alert">${status.data.trouble}</p>`}
    ${failing > 0 && html`<p class="banner warn" role="status"><a href="#/services">${t.problem(failing)}</a></p>`}
    <main id="main" tabindex="-1" key=${lang}><${Page} route=${route} go=${go} last=${last} live=${live} every=${Math.max(every / 2, 2)} status=${status.data} /></main>
    <footer class="bottom"><span>${status.data?.now ? t.updated(clock(status.data.now)) : ''} · ${t.everySec(every)}</span><span class="keys">${t.keysHint}</span></footer>`;
}

// pageLink keeps what the next page understands: the entry, and the time.
function pageLink(page, route) {
  const keep = { last: route.q.last };
  if (['graph', 'compare', 'traces'].includes(page) && route.q.entry) keep.entry = route.q.entry;
  return link(page, keep);
}

applyTheme();
render(html`<${App} />`, document.getElementById('app'));
