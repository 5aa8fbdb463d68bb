// SPDX-License-Identifier: Apache-2.0
// Admission over time: a strip for each process, and the same as a table.
import { html, useMemo, useState } from './lib.js';
import { lang, t } from './i18n.js';
import { useAsk } from './api.js';
import { clock, ms, whole } from './format.js';
import { Answer, Empty, State, Table } from './ui.js';
import { link } from './route.js';

const rank = { off: 0, unknown: 0, open: 0, busy: 1, pinned: 2, overloaded: 3 };

function Strip({ line, from, to }) {
  const w = 1000, x = (s) => ((Math.min(Math.max(s, from), to) - from) / Math.max(to - from, 1)) * w;
  const text = (s) => `${clock(s.from)}–${clock(s.to)} ${t.states[s.state]}${s.level ? ` · ${t.level} ${s.level}` : ''} · ${t.admitted} ${whole(s.admitted)} · ${t.rejected} ${whole(s.rejected)}`;
  return html`<svg class="strip" viewBox=${`0 0 ${w} 28`} preserveAspectRatio="none" role="img" aria-label=${t.strip(line.process)}>
    <rect class="none" x="0" y="0" width=${w} height="28" />
    ${line.samples.map((s) => {
      const a = x(s.from), b = x(s.to);
      if (b <= a) return null;
      const h = s.state === 'unknown' ? 28 : [10, 18, 24, 28][s.severity];
      return html`<g class=${`q ${s.state}`}><rect x=${a.toFixed(2)} y=${28 - h} width=${Math.max(b - a, 0.5).toFixed(2)} height=${h} /><title>${text(s)}</title></g>`;
    })}</svg>`;
}

export function QoS({ last, live, every }) {
  const ask = useAsk('qos', { last }, { live, every });
  const [only, setOnly] = useState('');
  const columns = useMemo(() => [
    { key: 'process', head: t.process, wide: true, sort: (r) => r.process, cell: (r) => html`<span class="name">${r.process}</span>` },
    { key: 'state', head: t.state, sort: (r) => rank[r.state], cell: (r) => html`<${State} severity=${r.severity} text=${t.states[r.state]} />` },
    { key: 'from', head: t.from, num: true, sort: (r) => r.from, cell: (r) => clock(r.from) },
    { key: 'to', head: t.to, num: true, sort: (r) => r.to, cell: (r) => clock(r.to) },
    { key: 'level', head: t.level, cell: (r) => r.level || '–' },
    { key: 'admitted', head: t.admitted, num: true, sort: (r) => r.admitted, cell: (r) => whole(r.admitted) },
    { key: 'rejected', head: t.rejected, num: true, sort: (r) => r.rejected, cell: (r) => html`<span class=${r.rejected ? 'bad' : 'quiet'}>${whole(r.rejected)}</span>` },
    { key: 'held', head: t.heldBack, num: true, sort: (r) => r.held_back, cell: (r) => html`<span class="quiet">${whole(r.held_back)}</span>` },
    { key: 'waiting', head: t.waiting, num: true, sort: (r) => r.waiting, cell: (r) => whole(r.waiting) },
    { key: 'delay', head: t.delay, num: true, sort: (r) => r.delay_ms, cell: (r) => html`<span class="quiet">${ms(r.delay_ms)}</span>` },
  ], [lang]);
  return html`<section><header class="head"><div><h1>${t.qos}</h1><p class="lead">${t.qosLead}</p></div></header>
    <${Answer} ask=${ask}>${(data) => {
      if (!data.processes.length) return html`<${Empty} title=${t.noProcess} hint=${t.noProcessHint} />`;
      const samples = data.processes.flatMap((p) => p.samples);
      if (!samples.length) return html`<${Empty} title=${t.noQoS} hint=${t.gatheringHint} />`;
      const { from, to } = data.period;
      // Equal neighbours become one line of the table.
      const rows = data.processes.filter((p) => !only || p.process === only).flatMap((p) => p.samples.reduce((list, s) => {
        const before = list.at(-1);
        if (before && before.state === s.state && before.level === s.level && s.from - before.to < 5) {
          Object.assign(before, { to: s.to, admitted: before.admitted + s.admitted, rejected: before.rejected + s.rejected, held_back: before.held_back + s.held_back, waiting: Math.max(before.waiting, s.waiting), delay_ms: Math.max(before.delay_ms, s.delay_ms) });
          return list;
        }
        return [...list, { ...s, process: p.process }];
      }, []));
      return html`<div class="card strips" data-test="strips"><div class="strip-row scale"><span></span><span class="ticks">${[0, 0.25, 0.5, 0.75, 1].map((f) => html`<span>${clock(from + (to - from) * f)}</span>`)}</span></div>
        ${data.processes.map((p) => html`<div class="strip-row" key=${p.process}><div class="who"><button class="open" aria-pressed=${only === p.process} onClick=${() => setOnly(only === p.process ? '' : p.process)}>${p.process}</button>
          <span class="sub"><${State} severity=${p.now.severity} text=${t.states[p.now.state]} /> ${p.now.level && p.now.level !== 'everyone' ? p.now.level : ''}</span></div><${Strip} line=${p} from=${from} to=${to} /></div>`)}
        <p class="foot legend"><span class="k q open">▂ ${t.states.open}</span><span class="k s1">▅ ${t.states.busy}</span><span class="k s2">▇ ${t.states.pinned}</span><span class="k s3">█ ${t.states.overloaded}</span></p></div>
        <h2>${t.changes}${only ? html` · ${only} <button class="button small" onClick=${() => setOnly('')}>${t.all}</button>` : ''}</h2>
        <div class="card"><${Table} test="qos" columns=${columns} rows=${rows} href=${(r) => link('services', { process: r.process })} initial=${{ key: 'to', dir: -1 }} /></div>`;
    }}<//></section>`;
}
