// Small things that every part of the page uses.
import { html, useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { t } from './i18n.js';

export { html };

/** The address of the app's own picture, beside this file. */
export const icon = new URL('icon.svg', import.meta.url).pathname;

/** The colour of somebody's avatar: always the same for the same person. */
function colour(id) {
  let n = 0;
  for (const c of id) n = (n * 31 + c.codePointAt(0)) % 9973;
  return n % 10;
}

export function Avatar({ who, size = '' }) {
  const [lost, setLost] = useState('');
  const picture = who.avatar_url;
  if (picture && picture !== lost) return html`<img class="avatar ${size}" src=${picture} alt="" loading="lazy" decoding="async" onError=${() => setLost(picture)} />`;
  const letter = ([...(who.display_name || who.name || '?')][0] || '?').toUpperCase();
  return html`<span class="avatar c${colour(who.id)} ${size}" aria-hidden="true">${letter}</span>`;
}

const paths = {
  camera: 'M9 4l-1.6 2H4.5A2.5 2.5 0 0 0 2 8.5v9A2.5 2.5 0 0 0 4.5 20h15a2.5 2.5 0 0 0 2.5-2.5v-9A2.5 2.5 0 0 0 19.5 6h-2.9L15 4zm3 4.6a4.4 4.4 0 1 1 0 8.8 4.4 4.4 0 0 1 0-8.8zm0 1.8a2.6 2.6 0 1 0 0 5.2 2.6 2.6 0 0 0 0-5.2z',
  pen: 'M4 20v-3.6L15.3 5.1a1.8 1.8 0 0 1 2.5 0l1.1 1.1a1.8 1.8 0 0 1 0 2.5L7.6 20zm12.6-13.6-1.3 1.3 1.9 1.9 1.3-1.3z',
  heart: 'M12 20.3 10.7 19C5.4 14.2 2.5 11.5 2.5 8.2A4.7 4.7 0 0 1 7.2 3.5c1.8 0 3.6.9 4.8 2.3 1.2-1.4 3-2.3 4.8-2.3a4.7 4.7 0 0 1 4.7 4.7c0 3.3-2.9 6-8.2 10.8z',
  heartLine: 'M12 20.3 10.7 19C5.4 14.2 2.5 11.5 2.5 8.2A4.7 4.7 0 0 1 7.2 3.5c1.8 0 3.6.9 4.8 2.3 1.2-1.4 3-2.3 4.8-2.3a4.7 4.7 0 0 1 4.7 4.7c0 3.3-2.9 6-8.2 10.8zm0-2.5c4.9-4.4 7.7-7 7.7-9.6a2.9 2.9 0 0 0-2.9-2.9c-1.7 0-3.2 1.1-3.8 2.7h-2c-.6-1.6-2.1-2.7-3.8-2.7a2.9 2.9 0 0 0-2.9 2.9c0 2.6 2.8 5.2 7.7 9.6z',
  bubble: 'M4.5 4h15A2.5 2.5 0 0 1 22 6.5v8a2.5 2.5 0 0 1-2.5 2.5H12l-5 4v-4H4.5A2.5 2.5 0 0 1 2 14.5v-8A2.5 2.5 0 0 1 4.5 4zm0 1.8a.7.7 0 0 0-.7.7v8c0 .4.3.7.7.7h4.3v2l2.6-2h8.1c.4 0 .7-.3.7-.7v-8a.7.7 0 0 0-.7-.7z',
  people: 'M9 11.500a4 4 0 1 0 0-8 4 4 0 0 0 0 8zm0 1.500c-3.600 0-7 1.800-7 4.500V20h14v-2.500C16 14.800 12.600 13 9 13zm7.500-1.500a3.300 3.300 0 1 0-1.200-6.400 5.500 5.500 0 0 1-.3 6c.5.300 1 .4 1.500.4zm.8 1.600c.8 1.100 1.200 2.500 1.200 4.400V20H22v-2.200c0-2.600-2.200-4.300-4.700-4.700z',
  user: 'M12 12a4.500 4.500 0 1 0 0-9 4.500 4.500 0 0 0 0 9zm0 1.600c-4.200 0-8 2.200-8 5.200V21h16v-2.200c0-3-3.800-5.200-8-5.200z',
  moon: 'M20 14.500A8.500 8.500 0 0 1 9.500 4 8.500 8.500 0 1 0 20 14.500z',
  sun: 'M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10zm-1-6h2v3h-2zm0 19h2v3h-2zM1 11h3v2H1zm19 0h3v2h-3zM4.200 2.800l2.100 2.100-1.400 1.400-2.100-2.100zm14.900 14.900 2.100 2.100-1.400 1.400-2.100-2.100zM2.800 19.800l2.100-2.100 1.400 1.400-2.100 2.100zM17.700 4.900l2.100-2.100 1.400 1.400-2.100 2.100z',
  back: 'M15.500 4 7.500 12l8 8 1.400-1.400L10.300 12l6.600-6.600z',
  bin: 'M9 3h6l1 2h4v2H4V5h4zM6 8.500h12L17 21H7z',
  cross: 'M6.200 4.800 12 10.600l5.800-5.800 1.400 1.400L13.400 12l5.800 5.800-1.400 1.400L12 13.400l-5.800 5.800-1.400-1.400L10.600 12 4.800 6.200z',
  plus: 'M11 4h2v7h7v2h-7v7h-2v-7H4v-2h7z',
  play: 'M8 5.100v13.800c0 .8.900 1.300 1.600.8l10-6.900a1 1 0 0 0 0-1.600l-10-6.900C8.900 3.800 8 4.300 8 5.100z',
  pin: 'M12 2a7.500 7.500 0 0 1 7.500 7.500c0 4.900-5.100 10.300-7.500 12.500-2.400-2.200-7.500-7.600-7.500-12.500A7.500 7.500 0 0 1 12 2zm0 1.900a5.600 5.600 0 0 0-5.600 5.600c0 3.200 3.200 7.200 5.600 9.800 2.400-2.600 5.600-6.600 5.600-9.800A5.600 5.600 0 0 0 12 3.900zm0 2.900a2.700 2.700 0 1 1 0 5.400 2.700 2.700 0 0 1 0-5.400z',
  bell: 'M12 2.500a6.500 6.500 0 0 1 6.500 6.500v4.200l1.800 3.300c.3.600-.1 1.300-.8 1.300H4.500c-.7 0-1.100-.7-.8-1.300l1.800-3.300V9A6.500 6.500 0 0 1 12 2.500zM9.500 19.300h5a2.500 2.500 0 0 1-5 0z',
  lock: 'M7 10V7.500a5 5 0 0 1 10 0V10h.5A1.500 1.500 0 0 1 19 11.500v8a1.500 1.500 0 0 1-1.500 1.500h-11A1.500 1.500 0 0 1 5 19.500v-8A1.500 1.500 0 0 1 6.500 10zm1.800 0h6.400V7.500a3.200 3.200 0 0 0-6.400 0z',
  refresh: 'M12 4a8 8 0 0 1 6.900 4H16v2h6V4h-2v2.300A10 10 0 1 0 22 12h-2a8 8 0 1 1-8-8z',
};

/** Drawn by lines, not by areas. */
const lines = {
  link: 'M10 14a4 4 0 0 0 5.700 0l3.300-3.300a4 4 0 0 0-5.700-5.700l-1.400 1.400M14 10a4 4 0 0 0-5.700 0L5 13.300A4 4 0 0 0 10.700 19l1.400-1.400',
  at: 'M15.500 12a3.500 3.500 0 1 1-7 0 3.500 3.500 0 0 1 7 0zm0-3.500V13a2.500 2.500 0 0 0 5 0v-1A8.500 8.500 0 1 0 17 18.900',
  aperture: 'M21.1 12a9.1 9.1 0 1 1-18.2 0 9.1 9.1 0 0 1 18.2 0zM12.00 7.40L21.08 12.64M15.98 9.70L15.98 20.18M15.98 14.30L6.91 19.54M12.00 16.60L2.92 11.36M8.02 14.30L8.02 3.82M8.02 9.70L17.09 4.46',
};

export function Icon({ name }) {
  return html`<svg class="icon ${lines[name] ? 'lines' : ''}" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${paths[name] || lines[name]} fill-rule="evenodd" /></svg>`;
}

/** A part of the page whose file is fetched when it is first shown, or else once there is
 *  nothing better to do: what the first view does not need must not stand in its way. */
export function lazy(load, name) {
  let part = null;
  let coming = null;
  const fetch = () => {
    coming = coming || load().then((m) => { part = m[name]; }, (e) => { coming = null; throw e; });
    return coming;
  };
  const idle = window.requestIdleCallback || ((f) => setTimeout(f, 2000));
  addEventListener('load', () => setTimeout(() => idle(() => fetch().catch(() => {})), 1000));
  return function Lazy(props) {
    const [state, setState] = useState('coming');
    const get = () => { setState('coming'); fetch().then(() => setState('here'), () => setState('failed')); };
    useEffect(() => { if (!part) get(); }, []);
    if (part) return html`<${part} ...${props} />`;
    return html`<div class="foot">${state === 'failed'
      ? html`<p class="error" role="alert">${t.problems.offline}</p><button type="button" class="plain" onClick=${get}>${t.retry}</button>`
      : html`<span class="spin" role="status" aria-label=${t.loading}></span>`}</div>`;
  };
}

/** Counts minutes, so that "3 minutes ago" grows older by itself. */
export function useMinutes() {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 30000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** A modal dialog: the browser keeps the focus inside, Escape closes it. */
export function Modal({ label, onClose, full, children }) {
  const ref = useRef();
  useEffect(() => {
    const before = document.activeElement;
    const dialog = ref.current;
    dialog.showModal();
    document.documentElement.classList.add('still');
    return () => {
      document.documentElement.classList.remove('still');
      dialog.close(); // while it is open nothing else takes the focus
      if (before && before.isConnected) before.focus();
    };
  }, []);
  return html`<dialog ref=${ref} class=${full ? 'full' : undefined} aria-label=${label} onCancel=${(e) => { e.preventDefault(); onClose(); }}
    onClick=${(e) => { if (e.target === ref.current) onClose(); }}>${children}</dialog>`;
}

/** Asks before something that cannot be undone. */
export function Ask({ title, hint, action, onYes, onNo }) {
  return html`<${Modal} label=${title} onClose=${onNo}>
    <div class="ask">
      <h2>${title}</h2>
      ${hint && html`<p>${hint}</p>`}
      <div class="row end">
        <button type="button" class="plain" onClick=${onNo}>${t.cancel}</button>
        <button type="button" class="danger" onClick=${onYes} data-test="confirm">${action}</button>
      </div>
    </div>
  <//>`;
}

/** Shows a short note at the bottom; screen readers read it. */
export function say(text, bad) {
  dispatchEvent(new CustomEvent('moments:say', { detail: { text, bad } }));
}

export function Notes() {
  const [note, setNote] = useState(null);
  useEffect(() => {
    let timer;
    const show = (e) => {
      setNote(e.detail);
      clearTimeout(timer);
      timer = setTimeout(() => setNote(null), 4000);
    };
    addEventListener('moments:say', show);
    return () => { removeEventListener('moments:say', show); clearTimeout(timer); };
  }, []);
  return html`<div class="notes" role="status" aria-live="polite">${note && html`<div class="note ${note.bad ? 'bad' : ''}">${note.text}</div>`}</div>`;
}
