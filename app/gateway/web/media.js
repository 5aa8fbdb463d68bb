// Photos and videos: the grid of a post and the picture in full.
import { useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { t } from './i18n.js';
import { html, Icon } from './ui.js';

export const isVideo = (m) => (m.content_type || '').startsWith('video/');

const none = {};
/** Where a medium is fetched from, in each of its sizes. */
const urls = (m) => m.urls || none;
const large = (m) => urls(m).feed || urls(m).thumbnail || urls(m).full;
const clock = (ms) => `${Math.floor(ms / 60000)}:${String(Math.floor(ms / 1000) % 60).padStart(2, '0')}`;

/** A picture that keeps its place until it has come. */
function Photo({ src, alt, eager, onLost }) {
  const [state, setState] = useState('');
  return html`<img class="photo ${state}" src=${src} alt=${alt} loading=${eager ? 'eager' : 'lazy'} decoding="async" draggable="false"
    onLoad=${() => setState('here')} onError=${() => { setState('lost'); onLost(); }} />`;
}

/** The place of a single picture: as large as its form allows, known before it comes. */
function single(m) {
  const w = m.width || 4; const h = m.height || 3;
  const ratio = Math.min(2.4, Math.max(0.5, w / h));
  return { aspectRatio: String(ratio), width: ratio >= 1 ? 'min(100%, 300px)' : `min(100%, ${Math.round(300 * ratio)}px)` };
}

/** onLost is told when a picture does not come: its link may have ended. */
export function Grid({ media, near, who, onLost }) {
  const [at, setAt] = useState(-1);
  if (media.length === 0) return null;
  const one = media.length === 1;
  if (one && isVideo(media[0])) return html`<${Video} media=${media[0]} />`;
  return html`<div class="grid ${one ? 'one' : ''} ${media.length === 4 ? 'four' : ''}">
    ${media.map((m, i) => html`<button type="button" key=${m.id || i} class="tile" style=${one ? single(m) : undefined} data-test="photo"
      aria-label=${t.photoOf(i + 1, media.length)} onClick=${() => setAt(i)}>
      <${Photo} src=${one ? large(m) : urls(m).thumbnail || large(m)} alt="" eager=${near} onLost=${onLost} /></button>`)}
  </div>
  ${at >= 0 && html`<${Lightbox} media=${media} start=${at} who=${who} onClose=${() => setAt(-1)} />`}`;
}

/** A video at its first picture, which stands for it until it is played: without a time
 *  some browsers show nothing. */
const atFirst = (url) => url && `${url}#t=0.05`;

function Video({ media }) {
  const [playing, setPlaying] = useState(false);
  const video = useRef();
  useEffect(() => { // what has left the screen makes no noise
    if (!playing) return undefined;
    const seen = new IntersectionObserver((e) => { if (!e[0].isIntersecting && video.current) video.current.pause(); });
    seen.observe(video.current);
    return () => seen.disconnect();
  }, [playing]);
  return html`<div class="video" style=${single(media)} data-test="video">
    <video ref=${video} src=${atFirst(urls(media).full)} preload="metadata" playsinline controls=${playing} aria-label=${t.video}></video>
    ${!playing && html`<button type="button" class="play" aria-label=${t.playVideo} data-test="play"
      onClick=${() => { setPlaying(true); video.current.play().catch(() => {}); video.current.focus(); }}><${Icon} name="play" /></button>
      ${media.duration_ms > 0 && html`<span class="clock">${clock(media.duration_ms)}</span>`}`}
  </div>`;
}

/** One picture on the whole screen; the others a swipe or an arrow key away. */
function Lightbox({ media, start, who, onClose }) {
  const [at, setAt] = useState(start);
  const [sharp, setSharp] = useState('');
  const [pull, setPull] = useState({ x: 0, y: 0 });
  const dialog = useRef();
  const from = useRef(null);
  const swiped = useRef(false);
  const go = (by) => setAt((i) => Math.min(media.length - 1, Math.max(0, i + by)));

  useEffect(() => {
    const before = document.activeElement;
    const box = dialog.current;
    box.showModal();
    box.focus(); // not one of its buttons: the keys are the dialog's
    document.documentElement.classList.add('still');
    return () => {
      document.documentElement.classList.remove('still');
      box.close(); // while it is open nothing else takes the focus
      if (before && before.isConnected) before.focus();
    };
  }, []);
  useEffect(() => { // the next one is there before it is asked for
    for (const i of [at - 1, at + 1]) if (media[i]) new Image().src = urls(media[i]).full;
  }, [at]);

  const down = (e) => { if (e.isPrimary && !e.target.closest('button')) { from.current = { x: e.clientX, y: e.clientY }; swiped.current = false; } };
  const move = (e) => {
    if (!from.current || !e.isPrimary) return;
    const x = e.clientX - from.current.x; const y = e.clientY - from.current.y;
    if (Math.abs(x) + Math.abs(y) > 8) swiped.current = true;
    setPull(Math.abs(x) > Math.abs(y) ? { x, y: 0 } : { x: 0, y: Math.max(0, y) });
  };
  const up = () => {
    if (!from.current) return;
    from.current = null;
    if (pull.x < -50) go(1);
    if (pull.x > 50) go(-1);
    if (pull.y > 90) onClose();
    setPull({ x: 0, y: 0 });
  };
  const m = media[at];
  const { full } = urls(m);
  return html`<dialog class="lightbox" ref=${dialog} tabindex="-1" aria-label="${who}: ${t.photoOf(at + 1, media.length)}" data-test="lightbox"
    onCancel=${(e) => { e.preventDefault(); onClose(); }}
    onKeyDown=${(e) => { if (e.key === 'ArrowRight') go(1); if (e.key === 'ArrowLeft') go(-1); }}
    onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up}
    onClick=${(e) => { if (!swiped.current && !e.target.closest('button')) onClose(); }}>
    <div class="stage" style=${{ transform: `translate(${pull.x}px, ${pull.y}px)`, opacity: String(1 - Math.min(0.6, pull.y / 500)) }}>
      ${sharp !== full && html`<img src=${large(m)} alt="" draggable="false" />`}
      <img class=${sharp === full ? '' : 'coming'} key=${full} src=${full} alt=${t.photoOf(at + 1, media.length)} draggable="false" onLoad=${() => setSharp(full)} />
    </div>
    ${media.length > 1 && html`<div class="count" role="status">${at + 1} / ${media.length}</div>
      ${at > 0 && html`<button type="button" class="turn left" aria-label=${t.previous} onClick=${() => go(-1)}><${Icon} name="back" /></button>`}
      ${at < media.length - 1 && html`<button type="button" class="turn right" aria-label=${t.next} onClick=${() => go(1)} data-test="next"><${Icon} name="back" /></button>`}`}
    <button type="button" class="turn shut" aria-label=${t.close} onClick=${onClose} data-test="close"><${Icon} name="cross" /></button>
  </dialog>`;
}

/** A link as a card. */
export function LinkCard({ link }) {
  let host = '';
  try { host = new URL(link.url).host; } catch { return null; }
  return html`<a class="linkcard" href=${link.url} target="_blank" rel="noopener noreferrer nofollow">
    <span class="linkicon">${link.media_url ? html`<img src=${link.media_url} alt="" />` : html`<${Icon} name="link" />`}</span>
    <span class="grow"><b>${link.title || host}</b><small>${host}</small></span></a>`;
}
