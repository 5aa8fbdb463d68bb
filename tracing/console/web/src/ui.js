// SPDX-License-Identifier: Apache-2.0
// What all pages are made of.
import { html, uPlot, useEffect, useLayoutEffect, useMemo, useRef, useState } from './lib.js';
import { t } from './i18n.js';
import { clock, num } from './format.js';

export const marks = ['', '▲', '‖', '■'];

// State says how admission is, in colour, sign and word.
export function State({ severity = 0, text, quiet }) {
  if (quiet && !severity) return null;
  return html`<span class=${`state s${severity}`}><span aria-hidden="true">${marks[severity] || '●'}</span> ${text || t.severity[severity]}</span>`;
}

export function Empty({ title, hint, children }) {
  return html`<div class="empty" data-test="empty"><svg viewBox="0 0 64 40" aria-hidden="true"><path d="M6 20h14c12 0 8-12 20-12h18M20 20h38M20 20c12 0 8 12 20 12h18" /><circle cx="6" cy="20" r="4" /></svg>
    <p class="title">${title}</p>${hint && html`<p>${hint}</p>`}${children}</div>`;
}

export function Problem({ error, retry }) {
  return html`<div class="empty problem" role="alert"><p class="title">${t.failedToLoad}</p><p>${error.message}</p>
    ${retry && html`<button class="button" onClick=${retry}>${t.retry}</button>`}</div>`;
}

// Answer shows what was asked for once it is there, and says when it is old.
export function Answer({ ask, children }) {
  if (!ask.data && ask.error) return html`<${Problem} error=${ask.error} retry=${ask.retry} />`;
  if (!ask.data) return html`<div class="loading" role="status"><span class="spinner" />${t.loading}</div>`;
  return html`<div class=${ask.fresh ? 'answer' : 'answer waiting'} aria-busy=${!ask.fresh}>
    ${ask.error && html`<p class="banner" role="alert">${t.stale(clock(ask.at))} <button class="button small" onClick=${ask.retry}>${t.retry}</button></p>`}
    ${children(ask.data)}</div>`;
}

// Spark is a small line without axes. values may have gaps.
export function Spark({ values, label, bad, w = 120, h = 26 }) {
  const most = Math.max(...values.map((v) => v ?? 0), 0) || 1;
  const x = (i) => (values.length < 2 ? w / 2 : (i / (values.length - 1)) * (w - 2) + 1);
  const y = (v) => h - 2 - (v / most) * (h - 5);
  const line = (list) => {
    let d = '', pen = false;
    list.forEach((v, i) => {
      if (v == null) { pen = false; return; }
      d += `${pen ? 'L' : 'M'}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
      pen = true;
    });
    return d;
  };
  const solid = !values.includes(null) && values.length > 1;
  return html`<svg class="spark" viewBox=${`0 0 ${w} ${h}`} width=${w} height=${h} role="img" aria-label=${`${label}: ${num(values.findLast((v) => v != null))}`}>
    ${solid && html`<path class="area" d=${`${line(values)}L${w - 1} ${h - 1}L1 ${h - 1}Z`} />`}
    <path class="line" d=${line(values)} />
    ${values.length === 1 && values[0] != null && html`<circle cx=${w / 2} cy=${y(values[0])} r="1.5" />`}
    ${bad && bad.some((v) => v > 0) && html`<path class="line bad" d=${line(bad)} />`}</svg>`;
}

// Table is a table whose columns sort. A column: {key, head, cell(row), sort(row), num, wide}.
export function Table({ columns, rows, caption, rowKey, onOpen, href, first, initial, selected, test, cap = 200 }) {
  const [sort, setSort] = useState(initial || null);
  const [whole, setWhole] = useState(false);
  const sorted = useMemo(() => {
    const column = sort && columns.find((c) => c.key === sort.key);
    if (!column?.sort) return rows;
    const list = rows.map((r, i) => [column.sort(r) ?? -Infinity, i, r]);
    list.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) * sort.dir || a[1] - b[1]);
    return list.map((l) => l[2]);
  }, [rows, sort, columns]);
  const shown = whole ? sorted : sorted.slice(0, cap);
  const move = (e) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (!step || e.target.closest('input,select,textarea')) return;
    const stops = [...e.currentTarget.querySelectorAll('[data-row]')];
    const at = stops.findIndex((s) => s.contains(document.activeElement));
    const next = stops[at + step];
    if (at < 0 || !next) return;
    e.preventDefault();
    (next.matches('a,button,[tabindex]') ? next : next.querySelector('a,button,[tabindex]'))?.focus();
  };
  return html`<div class="scroll" tabindex="-1"><table data-test=${test} onKeyDown=${move}>
    <caption class=${caption ? '' : 'sr'}>${caption}</caption>
    <thead><tr>${columns.map((c) => html`<th scope="col" class=${c.num ? 'num' : ''} aria-sort=${sort?.key === c.key ? (sort.dir > 0 ? 'ascending' : 'descending') : undefined}>
      ${c.sort ? html`<button onClick=${() => setSort({ key: c.key, dir: sort?.key === c.key ? -sort.dir : c.num ? -1 : 1 })}>${c.head}<span class="arrow" aria-hidden="true">${sort?.key === c.key ? (sort.dir > 0 ? '↑' : '↓') : ''}</span></button>` : c.head}</th>`)}</tr></thead>
    <tbody>${shown.map((r, i) => html`<tr key=${rowKey ? rowKey(r) : i} class=${selected && selected(r) ? 'selected' : ''} data-row>
      ${columns.map((c, j) => (j === 0
        ? html`<th scope="row" class=${c.wide ? 'wide' : ''}>${href ? html`<a href=${href(r)}>${c.cell(r)}</a>` : onOpen ? html`<button class="open" onClick=${() => onOpen(r)}>${c.cell(r)}</button>` : html`<span>${c.cell(r)}</span>`}</th>`
        : html`<td class=${`${c.num ? 'num' : ''} ${c.wide ? 'wide' : ''}`}>${c.cell(r)}</td>`))}</tr>`)}</tbody>
  </table>${sorted.length > shown.length && html`<p class="pad"><button class="button small" onClick=${() => setWhole(true)}>${t.showAll(sorted.length)}</button></p>`}</div>`;
}

export function Segments({ label, options, value, onChange, test }) {
  return html`<div class="segments" role="group" aria-label=${label} data-test=${test}>
    ${options.map(([v, text]) => html`<button aria-pressed=${v === value} onClick=${() => onChange(v)}>${text}</button>`)}</div>`;
}

export function Select({ label, value, options, onChange, test, hideLabel }) {
  return html`<label class="field"><span class=${hideLabel ? 'sr' : ''}>${label}</span>
    <select value=${value} data-test=${test} onChange=${(e) => onChange(e.currentTarget.value)}>
    ${options.map(([v, text]) => html`<option value=${v} selected=${v === value}>${text}</option>`)}</select></label>`;
}

// Input waits until typing pauses.
export function Input({ label, value, onChange, placeholder, type = 'text', search, test, hideLabel, list, inputmode }) {
  const [text, set] = useState(value || '');
  const timer = useRef();
  useEffect(() => set(value || ''), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const change = (v) => {
    set(v);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onChange(v), 250);
  };
  return html`<label class=${search ? 'field search' : 'field'}><span class=${hideLabel ? 'sr' : ''}>${label}</span>
    <input type=${type} value=${text} placeholder=${placeholder} data-test=${test} data-search=${search ? '' : undefined} list=${list} inputmode=${inputmode}
      autocomplete="off" spellcheck=${false} maxlength="300" onInput=${(e) => change(e.currentTarget.value)}
      onKeyDown=${(e) => { if (e.key === 'Enter') { clearTimeout(timer.current); onChange(text); } else if (e.key === 'Escape' && text) { e.stopPropagation(); change(''); } }} /></label>`;
}

export function Toggle({ label, value, onChange, test }) {
  return html`<label class="toggle"><input type="checkbox" checked=${value} data-test=${test} onChange=${(e) => onChange(e.currentTarget.checked)} /><span>${label}</span></label>`;
}

// css gives a colour of the page as a canvas understands it.
function css(name) {
  const probe = document.createElement('i');
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
export const lineColours = ['--c0', '--c1', '--c2', '--c3', '--c4', '--c5', '--c6', '--c7'];

// Chart draws lines over time: {label, values, dash}. The axes are painted on a canvas,
// which does not follow the page's colours by itself.
export function Chart({ times, lines, format = num, height = 220, title }) {
  const box = useRef();
  const plot = useRef();
  const [theme, setTheme] = useState(0);
  useEffect(() => {
    const again = () => setTheme((n) => n + 1);
    const media = matchMedia('(prefers-color-scheme: dark)');
    media.addEventListener('change', again);
    addEventListener('themechange', again);
    return () => {
      media.removeEventListener('change', again);
      removeEventListener('themechange', again);
    };
  }, []);
  const shape = lines.map((l) => l.label).join('\n');
  useLayoutEffect(() => {
    const axis = { stroke: css('--dim'), grid: { stroke: css('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' };
    const two = (n) => String(n).padStart(2, '0');
    plot.current = new uPlot({
      width: box.current.clientWidth || 600, height, legend: { live: true }, cursor: { points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_, lo, hi) => [Math.min(lo ?? 0, 0), (hi ?? 0) > 0 ? hi * 1.08 : 1] } },
      axes: [{ ...axis, values: (_, list) => list.map((s) => { const d = new Date(s * 1000); return `${two(d.getHours())}:${two(d.getMinutes())}${d.getSeconds() ? ':' + two(d.getSeconds()) : ''}`; }) },
        { ...axis, size: 72, values: (_, list) => list.map((v) => format(v)) }],
      series: [{ label: t.time, value: (_, v) => (v == null ? '–' : clock(v)) }, ...lines.map((l, i) => ({
        label: l.label, stroke: css(lineColours[i % lineColours.length]), width: 1.6, dash: l.dash, spanGaps: false, points: { show: times.length < 3 },
        value: (_, v) => (v == null ? '–' : format(v)),
      }))],
    }, [times, ...lines.map((l) => l.values)], box.current);
    const watch = new ResizeObserver(() => box.current && plot.current?.setSize({ width: box.current.clientWidth, height }));
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      plot.current.destroy();
    };
  }, [shape, theme, height]);
  useEffect(() => plot.current?.setData([times, ...lines.map((l) => l.values)]), [times, lines]);
  return html`<div class="chart" role="img" aria-label=${title} ref=${box} />`;
}

// Name shows a method over its service, an entry as it is.
export function Name({ name }) {
  const at = name.lastIndexOf('/');
  if (at <= 0 || name.includes(' ')) return html`<span class="name">${name}</span>`;
  return html`<span class="name">${name.slice(at + 1)}</span><span class="sub">${name.slice(0, at)}</span>`;
}
