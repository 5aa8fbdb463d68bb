// Small things that every part of the page uses.
import { html, useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { t } from './i18n.js';

export { html };

/** The colour of somebody's avatar: always the same for the same person. */
function colour(id) {
  let n = 0;
  for (const c of id) n = (n * 31 + c.codePointAt(0)) % 9973;
  return n % 10;
}

export function Avatar({ who, size = '' }) {
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
  refresh: 'M12 4a8 8 0 0 1 6.900 4H16v2h6V4h-2v2.300A10 10 0 1 0 22 12h-2a8 8 0 1 1-8-8z',
};

/** Drawn by lines, not by areas. */
const lines = {
  aperture: 'M21.1 12a9.1 9.1 0 1 1-18.2 0 9.1 9.1 0 0 1 18.2 0zM12.00 7.40L21.08 12.64M15.98 9.70L15.98 20.18M15.98 14.30L6.91 19.54M12.00 16.60L2.92 11.36M8.02 14.30L8.02 3.82M8.02 9.70L17.09 4.46',
};

export function Icon({ name }) {
  return html`<svg class="icon ${lines[name] ? 'lines' : ''}" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${paths[name] || lines[name]} fill-rule="evenodd" /></svg>`;
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
export function Modal({ label, onClose, children }) {
  const ref = useRef();
  useEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    return () => before && before.isConnected && before.focus();
  }, []);
  return html`<dialog ref=${ref} aria-label=${label} onCancel=${(e) => { e.preventDefault(); onClose(); }}
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
