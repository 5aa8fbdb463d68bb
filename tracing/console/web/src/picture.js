// SPDX-License-Identifier: Apache-2.0
// The picture of a call graph. The console has laid it out; here it is drawn, moved
// through by keys, and followed live without a jump.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from './lib.js';
import { t } from './i18n.js';
import { ms, pct, rate, num } from './format.js';
import { marks } from './ui.js';

const cells = (s) => [...s].reduce((n, c) => n + (c.codePointAt(0) >= 0x1100 ? 2 : 1), 0);
function fit(s, width) {
  if (cells(s) <= width) return s;
  let n = 1, out = '';
  for (const c of s) {
    n += cells(c);
    if (n > width) break;
    out += c;
  }
  return out + '…';
}

// narrow moves the columns of a layout together: it leaves as much room between them as
// labels of any length may need, those here are short. Everything between two columns
// moves in proportion, so ways keep their shape.
export function narrow(g, factor) {
  const columns = new Map();
  for (const n of g.nodes) {
    const c = columns.get(n.layer);
    columns.set(n.layer, c ? { left: Math.min(c.left, n.x), right: Math.max(c.right, n.x + n.w) } : { left: n.x, right: n.x + n.w });
  }
  const stops = [];
  let x = 0, before = 0;
  for (const c of [...columns.values()].sort((a, b) => a.left - b.left)) {
    x += before ? (c.left - before) * factor : c.left;
    stops.push([c.left, x]);
    x += c.right - c.left;
    stops.push([c.right, x]);
    before = c.right;
  }
  if (!stops.length) return g;
  const move = (v) => {
    const i = stops.findIndex(([from]) => v <= from);
    if (i === 0) return stops[0][1] - (stops[0][0] - v);
    if (i < 0) return stops.at(-1)[1] + (v - stops.at(-1)[0]);
    const [a, ax] = stops[i - 1], [b, bx] = stops[i];
    return b === a ? bx : ax + ((v - a) / (b - a)) * (bx - ax);
  };
  const point = (text) => text.replace(/(-?\d+(?:\.\d+)?) (-?\d+(?:\.\d+)?)/g, (_, px, py) => `${move(Number(px)).toFixed(1)} ${py}`);
  return {
    ...g, width: Math.ceil(move(g.width)),
    nodes: g.nodes.map((n) => ({ ...n, x: move(n.x) })),
    edges: g.edges.map((e) => ({ ...e, path: point(e.path), tip: e.tip.replace(/^M(-?\d+) /, (_, px) => `M${move(Number(px)).toFixed(1)} `), label_x: move(e.label_x + 14) - 12 })),
  };
}

const edgeWidth = (calls) => Math.min(1 + Math.log10(1 + calls) / 2, 5);
const share = (s) => (s.calls ? s.failed / s.calls : 0);

// facts are what is written on an edge: of now, of before, or how they differ.
export function edgeText(e, mode, seconds) {
  const s = mode === 'before' ? e.base : e.stats;
  if (mode === 'change') return changeText(e);
  if (!s.calls) return mode ? '–' : '0/s';
  const parts = [seconds ? rate(s.rate) : num(s.calls)];
  if (s.failed) parts.push(`✕ ${pct(share(s))}`);
  parts.push(ms(s.p99_ms));
  return parts.join('  ');
}
export function changeText(x) {
  if (x.change === 'new') return t.added;
  if (x.change === 'gone') return t.gone;
  const p99 = x.base.p99_ms && x.stats.p99_ms ? x.stats.p99_ms / x.base.p99_ms : 1;
  const parts = [x.change || '×1.00'];
  if (p99 > 1.2 || p99 < 0.83) parts.push(`p99 ×${p99.toFixed(2)}`);
  const more = share(x.stats) - share(x.base);
  if (Math.abs(more) >= 0.001) parts.push(`✕ ${more > 0 ? '+' : '−'}${pct(Math.abs(more))}`);
  return parts.join('  ');
}
function changed(x) {
  if (x.change === 'new' || x.change === 'gone') return 2;
  const f = Number((x.change || '×1').slice(1));
  const p99 = x.base?.p99_ms && x.stats.p99_ms ? x.stats.p99_ms / x.base.p99_ms : 1;
  return Math.max(f, 1 / (f || 1e-9), p99, 1 / p99) > 1.5 || Math.abs(share(x.stats) - share(x.base)) > 0.01 ? 1 : 0;
}

export function describeNode(g, n) {
  const parts = [`${t.kinds[n.kind] || n.kind} ${n.name}`];
  if (n.stats.calls) parts.push(`${rate(n.stats.rate)}, ${t.errors} ${pct(share(n.stats))}, ${t.p99} ${ms(n.stats.p99_ms)}`);
  if (n.mark?.severity) parts.push(n.mark.text);
  if (n.cycle) parts.push(t.cycle);
  return parts.join(', ');
}

// Picture draws graph g. mode is '' for live, or 'now', 'before', 'change' of two periods.
export function Picture({ g, mode = '', found = [], selected, onSelect, labels, title, zoom, setZoom }) {
  const box = useRef();
  const [focus, setFocus] = useState(null); // id of the node that has the keys
  const hits = useMemo(() => new Set(found), [found]);
  const wide = box.current?.clientWidth || 0;
  const fitted = Math.min(1.1, Math.max(wide < 640 ? 0.8 : g.edges.length > 300 ? 0.45 : 0.66, (wide - 8) / g.width));
  const scale = zoom || fitted;
  const [, measured] = useState(0);
  useLayoutEffect(() => {
    measured((n) => n + 1);
    const watch = new ResizeObserver(() => measured((n) => n + 1));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const at = g.nodes.findIndex((n) => n.id === focus);
  const current = at >= 0 ? at : g.nodes.findIndex((n) => n.id === selected?.id);
  const near = useMemo(() => {
    if (!selected) return null;
    const set = new Set();
    g.edges.forEach((e, i) => {
      if (selected.edge ? selected.edge === edgeID(g, e) : [g.nodes[e.from].id, g.nodes[e.to].id].includes(selected.id)) set.add(i);
    });
    return set;
  }, [g, selected]);

  // What was found comes into sight.
  const firstFound = found.length ? g.nodes[found[0]]?.id : null;
  useEffect(() => {
    const n = g.nodes.find((x) => x.id === firstFound);
    if (n && box.current) box.current.scrollTo({ left: (n.x + n.w / 2) * scale - box.current.clientWidth / 2, top: (n.y + n.h / 2) * scale - box.current.clientHeight / 2 });
  }, [firstFound]);

  // A picture that is larger than its frame begins at the entry.
  const start = g.nodes.find((n) => n.kind === 'entry') || g.nodes[0];
  const ready = wide > 0 && !!start;
  useEffect(() => {
    if (ready) box.current.scrollTo({ left: start.x * scale - 40, top: (start.y + start.h / 2) * scale - box.current.clientHeight / 2 });
  }, [ready, start?.id]);
  useEffect(() => {
    const n = selected?.id && g.nodes.find((x) => x.id === selected.id);
    if (n) reveal(n);
  }, [selected?.id]);

  const step = (key) => {
    if (current < 0) return 0;
    const me = g.nodes[current];
    const dist = (n) => {
      const dx = n.x + n.w / 2 - me.x - me.w / 2, dy = n.y + n.h / 2 - me.y - me.h / 2;
      switch (key) {
        case 'ArrowRight': return dx > 5 ? dx + Math.abs(dy) * 2 : Infinity;
        case 'ArrowLeft': return dx < -5 ? -dx + Math.abs(dy) * 2 : Infinity;
        case 'ArrowDown': return dy > 5 ? dy + Math.abs(dx) * 3 : Infinity;
        default: return dy < -5 ? -dy + Math.abs(dx) * 3 : Infinity;
      }
    };
    let best = current, least = Infinity;
    g.nodes.forEach((n, i) => {
      // Along an edge first: to where calls go, or come from.
      const d = dist(n);
      const joined = g.edges.some((e) => (e.from === current && e.to === i) || (e.to === current && e.from === i));
      const cost = joined ? d : d * 3 + 200;
      if (i !== current && cost < least) { least = cost; best = i; }
    });
    return best;
  };
  const keys = (e) => {
    if (e.key.startsWith('Arrow') && g.nodes.length) {
      e.preventDefault();
      const next = g.nodes[step(e.key)];
      setFocus(next.id);
      box.current.querySelector(`[data-node="${CSS.escape(next.id)}"]`)?.focus({ preventScroll: true });
      reveal(next);
    } else if (e.key === 'Enter' || e.key === ' ') {
      const node = e.target.closest('[data-node]');
      if (node) { e.preventDefault(); onSelect({ id: node.dataset.node }); }
    } else if (e.key === 'Escape') onSelect(null);
    else if (e.key === '+' || e.key === '=') setZoom(Math.min(scale * 1.25, 3));
    else if (e.key === '-') setZoom(Math.max(scale / 1.25, 0.15));
    else if (e.key === '0') setZoom(0);
  };
  const reveal = (n) => {
    const b = box.current, l = n.x * scale, top = n.y * scale;
    if (l < b.scrollLeft + 10 || l + n.w * scale > b.scrollLeft + b.clientWidth - 10) b.scrollLeft = l - b.clientWidth / 2 + (n.w * scale) / 2;
    if (top < b.scrollTop + 10 || top + n.h * scale > b.scrollTop + b.clientHeight - 10) b.scrollTop = top - b.clientHeight / 2 + (n.h * scale) / 2;
  };
  const drag = useRef(null);
  const down = (e) => {
    if (e.pointerType !== 'mouse' || e.button !== 0) return; // touch scrolls by itself
    drag.current = { x: e.clientX, y: e.clientY, l: box.current.scrollLeft, top: box.current.scrollTop };
  };
  const move = (e) => {
    if (!drag.current || !(e.buttons & 1)) { drag.current = null; return; }
    box.current.scrollLeft = drag.current.l - (e.clientX - drag.current.x);
    box.current.scrollTop = drag.current.top - (e.clientY - drag.current.y);
  };
  const stop = near || found.length ? 'dimmed' : '';
  return html`<div class="picture" ref=${box} onKeyDown=${keys} onPointerDown=${down} onPointerMove=${move} onPointerUp=${() => (drag.current = null)} data-test="picture">
    <svg class=${`graph ${stop}`} viewBox=${`0 0 ${g.width} ${g.height}`} width=${Math.round(g.width * scale)} height=${Math.round(g.height * scale)} role="group" aria-label=${`${title}. ${t.pictureHint}`}
      onClick=${(e) => { if (e.target.tagName === 'svg') onSelect(null); }}>
      <g>${g.edges.map((e, i) => {
        const s = mode === 'before' ? e.base : e.stats;
        const id = edgeID(g, e);
        const cls = ['edge', s.failed ? 'failed' : '', e.link ? 'link' : '', e.cycle ? 'cycle' : '', e.critical >= 0.01 ? 'critical' : '', mode === 'change' ? `ch${changed(e)}` : '',
          mode && !s.calls && mode !== 'change' ? 'absent' : '', near?.has(i) ? 'near' : '', selected?.edge === id ? 'selected' : ''].join(' ');
        const text = edgeText(e, mode, g.seconds);
        const signs = `${e.check && !e.check.ok ? '≠ ' : ''}${e.cycle ? '↺ ' : ''}${e.critical >= 0.01 ? '◆ ' : ''}`;
        return html`<g key=${id} class=${cls} onClick=${() => onSelect({ edge: id })}>
          <path class="hit" d=${e.path} /><path class="way" stroke-width=${edgeWidth(s.calls).toFixed(1)} d=${e.path} /><path class="tip" d=${e.tip} />
          ${(labels || near?.has(i)) && html`<text x=${e.label_x} y=${e.label_y - 2}>${signs}${text}</text>`}
          <title>${`${g.nodes[e.from].name} → ${g.nodes[e.to].name}: ${text}`}</title></g>`;
      })}</g>
      <g>${g.nodes.map((n, i) => {
        const severity = n.mark?.severity || 0;
        const s = mode === 'before' ? n.base : n.stats;
        const y = n.y + (n.h - 76) / 2;
        const cls = `node ${n.kind} s${severity} ${hits.has(i) ? 'hit' : ''} ${selected?.id === n.id ? 'selected' : ''} ${near && [...near].some((k) => g.edges[k].from === i || g.edges[k].to === i) ? 'near' : ''} ${mode === 'change' ? `ch${changed(n)}` : ''} ${mode && mode !== 'change' && !s.calls ? 'absent' : ''}`;
        const line = mode === 'change' ? changeText(n) : s.calls ? edgeText({ stats: s, base: s }, '', g.seconds) : '';
        return html`<g key=${n.id} class=${cls} role="button" tabindex=${i === Math.max(current, 0) ? 0 : -1} aria-label=${describeNode(g, n)} aria-pressed=${selected?.id === n.id} data-node=${n.id}
          onClick=${() => onSelect({ id: n.id })} onFocus=${() => setFocus(n.id)}>
          <rect class="body" x=${n.x} y=${n.y} width=${n.w} height=${n.h} rx=${n.kind === 'entry' ? 14 : 7} />
          ${severity > 0 && html`<rect class="edge-mark" x=${n.x} y=${n.y} width="6" height=${n.h} rx="3" />`}
          <text class="title" x=${n.x + 14} y=${y + 22}>${fit(n.method, Math.floor((n.w - 26) / 8.2))}</text>
          <text class="sub" x=${n.x + 14} y=${y + 38}>${fit(n.kind === 'method' ? n.service : t.kinds[n.kind], Math.floor((n.w - 26) / 6.2))}</text>
          <text class=${s.failed ? 'facts failed' : 'facts'} x=${n.x + 14} y=${y + 54}>${fit(line, Math.floor((n.w - 22) / 6.4))}</text>
          ${severity > 0 && html`<text class="mark" x=${n.x + 14} y=${y + 69}>${marks[severity]} ${fit(n.mark.text, Math.floor((n.w - 40) / 6.2))}</text>`}
          <title>${describeNode(g, n)}</title></g>`;
      })}</g>
    </svg></div>`;
}

export const edgeID = (g, e) => `${g.nodes[e.from].id}->${g.nodes[e.to].id}${e.link ? ':link' : ''}`;
