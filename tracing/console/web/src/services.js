// SPDX-License-Identifier: Apache-2.0
// Services, their methods, the processes they run in, and every item of these over time.
import { html, useMemo, useState } from './lib.js';
import { lang, t } from './i18n.js';
import { useAsk } from './api.js';
import { clock, ms, num, pct, rate, unitValue, whole } from './format.js';
import { Answer, Chart, Empty, Input, Segments, Select, Spark, State, Table, Toggle } from './ui.js';
import { link } from './route.js';

const figures = (extra = []) => [
  { key: 'rate', head: t.rate, num: true, sort: (r) => r.rate, cell: (r) => rate(r.rate) },
  { key: 'errors', head: t.errors, num: true, sort: (r) => r.failed_share, cell: (r) => html`<span class=${r.failed ? 'bad' : 'quiet'}>${pct(r.failed_share)}</span>` },
  { key: 'p50', head: t.p50, num: true, sort: (r) => r.p50_ms, cell: (r) => html`<span class="quiet">${ms(r.p50_ms)}</span>` },
  { key: 'p99', head: t.p99, num: true, sort: (r) => r.p99_ms, cell: (r) => ms(r.p99_ms) },
  { key: 'trend', head: t.rateTrend, cell: (r) => html`<${Spark} values=${r.trend.rate} bad=${r.trend.failed} label=${t.rateTrend} />` },
  ...extra,
];

// Names are methods, without what tells nothing here: the version of their package.
function Names({ list }) {
  if (!list.length) return html`<span class="quiet">–</span>`;
  return html`<span class="quiet">${list.map((n) => html`<span class="line" title=${n}>${n.includes(' ') ? n : n.slice(n.lastIndexOf('.', n.lastIndexOf('/')) + 1)}</span>`)}</span>`;
}

export function Services(props) {
  const { route } = props;
  if (route.q.process) return html`<${Items} ...${props} />`;
  if (route.q.name) return html`<${Service} ...${props} />`;
  return html`<${List} ...${props} />`;
}

function List({ route, go, last, live, every, status }) {
  const ask = useAsk('services', { last }, { live, every });
  const text = (route.q.search || '').toLowerCase();
  const columns = useMemo(() => [
    { key: 'name', head: t.service, wide: true, sort: (r) => r.name, cell: (r) => html`<span class="name">${r.name}</span>` },
    ...figures([
      { key: 'methods', head: t.methods, num: true, sort: (r) => r.methods, cell: (r) => html`<span class="quiet">${r.methods}</span>` },
      { key: 'state', head: t.state, sort: (r) => r.mark?.severity ?? -1, cell: (r) => r.mark && html`<${State} severity=${r.mark.severity} text=${r.mark.severity ? r.mark.text : ''} />` },
      { key: 'processes', head: t.processes, wide: true, cell: (r) => html`<span class="quiet">${r.processes.join(', ') || '–'}</span>` },
    ]),
  ], [lang]);
  const procs = (status?.processes || []).filter((p) => p.name.toLowerCase().includes(text) || p.services.some((s) => s.toLowerCase().includes(text)));
  return html`<section><header class="head"><div><h1>${t.services}</h1><p class="lead">${t.servicesLead}</p></div>
      <${Input} search hideLabel label=${t.search} placeholder=${t.search} value=${route.q.search} onChange=${(v) => go({ search: v }, true)} test="search" /></header>
    <${Answer} ask=${ask}>${(data) => {
      const rows = data.services.filter((s) => s.name.toLowerCase().includes(text));
      return rows.length ? html`<div class="card"><${Table} test="services" columns=${columns} rows=${rows} rowKey=${(r) => r.name} href=${(r) => link('services', { name: r.name })} /></div>`
        : html`<${Empty} title=${data.services.length ? t.noMatch : t.noServices} />`;
    }}<//>
    <h2>${t.processes}</h2><p class="lead">${t.processesLead}</p>
    <${Processes} list=${procs} /></section>`;
}

function Processes({ list }) {
  const columns = useMemo(() => [
    { key: 'name', head: t.process, wide: true, sort: (r) => r.name, cell: (r) => html`<span class="name">${r.name}</span>${r.name !== r.addr && html`<span class="sub">${r.addr}</span>`}` },
    { key: 'state', head: t.state, sort: (r) => r.state, wide: true, cell: (r) => html`<span class=${r.state === 'failing' ? 'bad' : r.state === 'ok' ? 'good' : 'quiet'}>${r.state === 'failing' ? '✕ ' : ''}${r.state === 'same' ? t.sameAs(r.same_as) : t.procState[r.state]}</span>${(r.error || r.note) && html`<span class="sub">${r.error || r.note}</span>`}${r.lies > 0 && html`<span class="sub warn">${t.lies(r.lies)}</span>`}` },
    { key: 'qos', head: t.qos, sort: (r) => r.severity, cell: (r) => html`<${State} severity=${r.severity} text=${t.states[r.qos] || r.qos} />` },
    { key: 'services', head: t.services, wide: true, cell: (r) => html`<span class="quiet">${r.services.join(', ') || '–'}</span>` },
    { key: 'items', head: t.items, num: true, sort: (r) => r.items, cell: (r) => whole(r.items) },
    { key: 'up', head: t.up, num: true, sort: (r) => r.started, cell: (r) => html`<span class="quiet">${clock(r.started)}</span>` },
    { key: 'restarts', head: t.restarts, num: true, sort: (r) => r.restarts, cell: (r) => html`<span class=${r.restarts ? 'warn' : 'quiet'}>${r.restarts}</span>` },
    { key: 'took', head: t.pullTook, num: true, sort: (r) => r.pull_ms, cell: (r) => html`<span class="quiet">${ms(r.pull_ms)}</span>` },
    { key: 'skew', head: t.skew, num: true, sort: (r) => Math.abs(r.skew_ms), cell: (r) => html`<span class=${Math.abs(r.skew_ms) > 1000 ? 'warn' : 'quiet'}>${r.pulled_at ? ms(r.skew_ms) : '–'}</span>` },
  ], [lang]);
  if (!list.length) return html`<${Empty} title=${t.noProcess} hint=${t.noProcessHint} />`;
  return html`<div class="card"><${Table} test="processes" columns=${columns} rows=${list} rowKey=${(r) => r.addr} href=${(r) => link('services', { process: r.name })} /></div>`;
}

function Service({ route, last, live, every }) {
  const name = route.q.name;
  const ask = useAsk('service', { name, last }, { live, every });
  const [what, setWhat] = useState('rate');
  const columns = useMemo(() => [
    { key: 'name', head: t.method, wide: true, sort: (r) => r.name, cell: (r) => html`<span class="name">${r.name}</span>` },
    ...figures([
      { key: 'callers', head: t.callers, wide: true, cell: (r) => html`<${Names} list=${r.callers} />` },
      { key: 'callees', head: t.callees, wide: true, cell: (r) => html`<${Names} list=${r.callees} />` },
    ]),
  ], [lang]);
  return html`<section><p><a class="back" href=${link('services')}>← ${t.services}</a></p>
    <header class="head"><div><h1>${name}</h1></div></header>
    <${Answer} ask=${ask}>${(data) => {
      const top = [...data.methods].sort((a, b) => b.calls - a.calls).slice(0, 8);
      const lines = top.map((m) => ({ label: m.name, values: m.trend[what] }));
      return html`${data.mark && html`<p><${State} severity=${data.mark.severity} text=${data.mark.severity ? data.mark.text : ''} /></p>`}
        <div class="card pad"><div class="row"><h2>${t.trend}</h2><${Segments} label=${t.trend} value=${what} options=${[['rate', t.rate], ['failed', t.errors], ['p99_ms', t.p99]]} onChange=${setWhat} /></div>
          <${Chart} times=${data.times} lines=${lines} format=${what === 'p99_ms' ? ms : rate} title=${`${name}: ${what}`} /></div>
        <h2>${t.methods}</h2>
        <div class="card"><${Table} test="methods" columns=${columns} rows=${data.methods} rowKey=${(r) => r.full} href=${(r) => link('traces', { edge: `->${r.full}` })} /></div>
        <h2>${t.processes}</h2>
        <p class="chips">${data.processes.length ? data.processes.map((p) => html`<a class="button" href=${link('services', { process: p })}>${p} · ${t.items}</a>`) : html`<span class="quiet">${t.none}</span>`}</p>`;
    }}<//></section>`;
}

function Items({ route, go, last, live, every, status }) {
  const q = route.q;
  const ask = useAsk('items', { process: q.process, group: q.group || '', text: q.search || '', changed: q.changed ?? '1' }, { live, every });
  const names = (status?.processes || []).filter((p) => p.state !== 'same').map((p) => [p.name, p.name]);
  if (!names.some(([v]) => v === q.process)) names.push([q.process, q.process]);
  return html`<section><p><a class="back" href=${link('services')}>← ${t.services}</a></p>
    <header class="head"><div><h1>${q.process}</h1><p class="lead">${t.items}</p></div></header>
    <div class="filters"><${Select} label=${t.process} value=${q.process} options=${names} onChange=${(v) => go({ process: v })} />
      <${Select} label=${t.group} value=${q.group || ''} options=${[['', t.allGroups], ...(ask.data?.groups || []).map((g) => [g.name, `${g.name} (${g.items})`])]} onChange=${(v) => go({ group: v }, true)} test="group" />
      <${Input} search label=${t.search} placeholder=${t.findItem} value=${q.search} onChange=${(v) => go({ search: v }, true)} test="search" />
      <${Toggle} label=${t.moving} value=${(q.changed ?? '1') === '1'} onChange=${(v) => go({ changed: v ? '' : '0' }, true)} test="moving" /></div>
    ${q.item && html`<${ItemChart} route=${route} go=${go} last=${last} live=${live} every=${every} />`}
    <${Answer} ask=${ask}>${(data) => html`<${ItemTable} data=${data} route=${route} go=${go} />`}<//></section>`;
}

function ItemTable({ data, route, go }) {
  const rows = useMemo(() => data.families.flatMap((f) => f.items.map((i) => ({ ...i, f }))), [data]);
  const all = data.groups.reduce((n, g) => n + g.items, 0);
  const columns = useMemo(() => [
    { key: 'name', head: t.item, wide: true, sort: (r) => r.name + r.labels, cell: (r) => html`<span class="mono">${r.name}</span>${r.labels && html`<span class="sub mono">${r.labels}</span>`}` },
    { key: 'value', head: t.value, num: true, sort: (r) => r.value, cell: (r) => (r.f.type === 'histogram' ? whole(r.value) : unitValue(r.value, r.f.unit)) },
    { key: 'rate', head: t.perSecond, num: true, sort: (r) => r.rate ?? -1, cell: (r) => html`<span class="quiet">${r.rate == null ? '–' : r.f.type === 'counter' && r.f.unit ? unitValue(r.rate, r.f.unit) : num(r.rate)}</span>` },
    { key: 'p99', head: 'p50 / p99', num: true, sort: (r) => r.p99 ?? -1, cell: (r) => (r.p99 == null ? '' : html`<span class="quiet">${unitValue(r.p50, r.f.unit)} /</span> ${unitValue(r.p99, r.f.unit)}`) },
    { key: 'help', head: t.help, wide: true, cell: (r) => html`<span class="quiet">${r.f.help}</span>` },
  ], [lang]);
  if (!rows.length) return html`<${Empty} title=${t.noItems} />`;
  const { item, labels } = route.q;
  return html`<div class="card"><${Table} test="items" columns=${columns} rows=${rows} rowKey=${(r) => r.name + r.labels} selected=${(r) => r.name === item && r.labels === (labels || '')}
    onOpen=${(r) => { go({ item: r.name, labels: r.labels }, true); scrollTo({ top: 0, behavior: 'smooth' }); }} />
    <p class="foot">${t.shown(whole(data.all), whole(all))}${data.not_kept ? ` · ${t.notKept(whole(data.not_kept))}` : ''}</p></div>`;
}

// mostLines is how many lines a chart shows: more cannot be told apart.
const mostLines = 8;

function ItemChart({ route, go, last, live, every }) {
  const { process, item, labels } = route.q;
  const ask = useAsk('series', { process, name: item, labels: labels || undefined, last }, { live, every });
  const [table, setTable] = useState(false);
  return html`<div class="card pad item-chart" data-test="item-chart"><div class="row"><div><h2 class="mono">${item}</h2>${labels && html`<p class="sub mono">${labels}</p>`}</div>
      <span><${Segments} label=${t.show} value=${table ? 'table' : 'chart'} options=${[['chart', t.chart], ['table', t.valuesTable]]} onChange=${(v) => setTable(v === 'table')} test="chart-table" />
      <button class="icon" aria-label=${t.close} onClick=${() => go({ item: '', labels: '' }, true)}>×</button></span></div>
    <${Answer} ask=${ask}>${(data) => {
      const lines = data.lines.filter((l) => !labels || l.labels === labels);
      const histogram = data.type === 'histogram';
      const draw = histogram ? lines.filter((l) => l.what !== 'rate') : lines;
      const format = (v) => (data.type === 'counter' ? `${unitValue(v, data.unit)}/s` : unitValue(v, data.unit));
      if (!data.times.length) return html`<${Empty} title=${t.gathering} hint=${t.gatheringHint} />`;
      // Lines without values say nothing, and labels that all lines have tell nothing apart.
      const moving = draw.filter((l) => l.values.some((v) => v != null && (v !== 0 || lines.length === 1)));
      const parts = (l) => l.labels.match(/[^,=]+="(?:[^"\\]|\\.)*"/g) || [];
      const shared = parts(moving[0] || { labels: '' }).filter((p) => moving.every((l) => parts(l).includes(p)));
      const named = (l) => [...parts(l).filter((p) => !shared.includes(p)).map((p) => p.slice(p.indexOf('=') + 2, -1)), histogram ? l.what : ''].filter(Boolean).join(' · ') || data.name;
      const plotted = moving.sort((a, b) => Math.max(...b.values) - Math.max(...a.values)).slice(0, mostLines).map((l) => ({ label: named(l), values: l.values, dash: l.what === 'p50' ? [4, 4] : undefined }));
      const left = moving.length - plotted.length + Math.max(data.all - 20, 0);
      if (!plotted.length) return html`<p class="lead">${data.help}</p><${Empty} title=${t.calmHint} />`;
      return html`<p class="lead">${data.help}${left > 0 ? ` ${t.linesLeft(left)}` : ''}</p>${table
        ? html`<${Table} columns=${[{ key: 't', head: t.time, num: false, sort: (r) => r.time, cell: (r) => clock(r.time) }, ...plotted.map((l, i) => ({ key: `v${i}`, head: l.label, num: true, cell: (r) => format(r.values[i]) }))]}
            rows=${data.times.map((time, i) => ({ time, values: plotted.map((l) => l.values[i]) })).reverse()} caption=${item} cap=${60} />`
        : html`<${Chart} times=${data.times} lines=${plotted} format=${format} title=${item} />`}`;
    }}<//></div>`;
}
