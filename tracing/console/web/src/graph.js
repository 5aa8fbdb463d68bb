// SPDX-License-Identifier: Apache-2.0
// The call graph of one entry, live; and two periods of it, compared.
import { html, useEffect, useMemo, useState } from './lib.js';
import { t } from './i18n.js';
import { useAsk } from './api.js';
import { bytes, clock, ms, num, pct, rate, whole } from './format.js';
import { Answer, Empty, Input, Name, Segments, Select, State, Table, Toggle } from './ui.js';
import { Picture, edgeID, narrow } from './picture.js';
import { link } from './route.js';

// manyEdges is from where numbers on all edges would be a grey cloud.
const manyEdges = 150;

function useEntries(last, live, every) {
  const ask = useAsk('entries', { last }, { live, every: every * 3 });
  return ask.data?.entries || [];
}

function Chooser({ route, go, entries }) {
  const name = route.q.entry || '';
  const options = [['', t.allEntries], ...entries.map((e) => [e.name, e.name])];
  if (name && !options.some(([v]) => v === name)) options.push([name, name]);
  return html`<${Select} label=${t.entry} value=${name} options=${options} onChange=${(v) => go({ entry: v, around: '', select: '' })} test="entry" />`;
}

function Filters({ route, go, labels }) {
  const q = route.q;
  return html`<${Select} label=${t.hops} value=${q.hops || ''} test="hops" options=${[['', t.noLimit], ...[1, 2, 3, 4, 6].map((n) => [String(n), String(n)])]} onChange=${(v) => go({ hops: v }, true)} />
    <${Select} label=${t.minor} value=${q.min_share || ''} test="minor" options=${[['', t.minorOff], ...['0.001', '0.01', '0.05', '0.2'].map((v) => [v, t.below(pct(Number(v)))])]} onChange=${(v) => go({ min_share: v }, true)} />
    <${Toggle} label=${t.labels} value=${labels} onChange=${(v) => go({ labels: v ? '1' : '0' }, true)} test="labels" />`;
}

const nodeShare = (s) => (s.calls ? s.failed / s.calls : 0);
const errorCell = (s) => html`<span class=${s.failed ? 'bad' : 'quiet'}>${s.calls ? pct(nodeShare(s)) : '–'}</span>`;

function notesOf(e) {
  const notes = [];
  if (e.link) notes.push(t.link);
  if (e.cycle) notes.push(t.cycle);
  for (const [c, n] of Object.entries(e.stats.results)) if (c !== 'ok') notes.push(`${whole(n)} ${c}`);
  if (e.stats.attempts > e.stats.calls) notes.push(`${whole(e.stats.attempts)} ${t.attempts}`);
  if (e.check && !e.check.ok) notes.push(t.endsDiffer(e.check.lost));
  return notes.join(', ');
}

// Tables say what the picture shows, all of it.
function Tables({ g, select, selected }) {
  const compared = g.compared;
  const base = compared ? [
    { key: 'before', head: t.rateBefore, num: true, sort: (r) => r.base.rate, cell: (r) => html`<span class="quiet">${rate(r.base.rate)}</span>` },
    { key: 'change', head: t.change, num: true, sort: (r) => (r.change === 'new' ? Infinity : Number((r.change || '×1').slice(1)) || 0), cell: (r) => html`<strong>${r.change === 'new' ? t.added : r.change === 'gone' ? t.gone : r.change}</strong>` },
  ] : [];
  const base2 = compared ? [
    { key: 'eb', head: t.errorsBefore, num: true, sort: (r) => nodeShare(r.base), cell: (r) => html`<span class="quiet">${r.base.calls ? pct(nodeShare(r.base)) : '–'}</span>` },
    { key: 'p99b', head: t.p99Before, num: true, sort: (r) => r.base.p99_ms, cell: (r) => html`<span class="quiet">${r.base.calls ? ms(r.base.p99_ms) : '–'}</span>` },
  ] : [];
  const figures = [
    { key: 'rate', head: t.rate, num: true, sort: (r) => r.stats.rate, cell: (r) => rate(r.stats.rate) }, ...base,
    ...(compared ? [] : [{ key: 'per', head: t.perRequest, num: true, sort: (r) => r.stats.per_request || 0, cell: (r) => html`<span class="quiet">${r.stats.per_request ? num(r.stats.per_request) : '–'}</span>` }]),
    { key: 'errors', head: t.errors, num: true, sort: (r) => nodeShare(r.stats), cell: (r) => errorCell(r.stats) },
    { key: 'p50', head: t.p50, num: true, sort: (r) => r.stats.p50_ms, cell: (r) => html`<span class="quiet">${r.stats.calls ? ms(r.stats.p50_ms) : '–'}</span>` },
    { key: 'p99', head: t.p99, num: true, sort: (r) => r.stats.p99_ms, cell: (r) => (r.stats.calls ? ms(r.stats.p99_ms) : '–') }, ...base2,
  ];
  const edges = [
    { key: 'caller', head: t.caller, wide: true, sort: (r) => g.nodes[r.from].name, cell: (r) => html`<${Name} name=${g.nodes[r.from].name} />` },
    { key: 'callee', head: t.callee, wide: true, sort: (r) => g.nodes[r.to].name, cell: (r) => html`<${Name} name=${g.nodes[r.to].name} />` },
    ...figures,
    { key: 'calls', head: t.calls, num: true, sort: (r) => r.stats.calls, cell: (r) => html`<span class="quiet">${whole(r.stats.calls)}</span>` },
    ...(g.traces ? [{ key: 'critical', head: t.critical, num: true, sort: (r) => r.critical || 0, cell: (r) => (r.critical ? pct(r.critical) : '–') }] : []),
    { key: 'note', head: t.note, wide: true, cell: (r) => notesOf(r) },
  ];
  const nodes = [
    { key: 'name', head: t.node, wide: true, sort: (r) => r.name, cell: (r) => html`<${Name} name=${r.name} />` },
    ...figures,
    ...(g.traces ? [{ key: 'critical', head: t.critical, num: true, sort: (r) => r.critical || 0, cell: (r) => (r.critical ? pct(r.critical) : '–') }] : []),
    { key: 'state', head: t.state, sort: (r) => r.mark?.severity ?? -1, cell: (r) => r.mark && html`<${State} severity=${r.mark.severity} text=${r.mark.severity ? r.mark.text : ''} />` },
  ];
  return html`<h2>${t.edges}</h2><div class="card"><${Table} test="edges" caption=""  columns=${edges} rows=${g.edges} rowKey=${(r) => edgeID(g, r)} onOpen=${(r) => select({ edge: edgeID(g, r) })} selected=${(r) => selected?.edge === edgeID(g, r)} /></div>
    <h2>${t.nodes}</h2><div class="card"><${Table} test="nodes" columns=${nodes} rows=${g.nodes} rowKey=${(r) => r.id} onOpen=${(r) => select({ id: r.id })} selected=${(r) => selected?.id === r.id} /></div>`;
}

function Figures({ s, base, seconds }) {
  const row = (name, f, ok = true) => ok && html`<div><dt>${name}</dt><dd>${f(s)}${base && html` <span class="was">${f(base)}</span>`}</dd></div>`;
  return html`<dl class="figures">
    ${row(t.rate, (x) => rate(x.rate))}${row(t.calls, (x) => whole(x.calls))}${row(t.perRequest, (x) => num(x.per_request), !!s.per_request)}
    ${row(t.errors, (x) => (x.calls ? pct(nodeShare(x)) : '–'))}${row(t.p50, (x) => ms(x.p50_ms))}${row(t.p90, (x) => ms(x.p90_ms))}${row(t.p99, (x) => ms(x.p99_ms))}${row(t.mean, (x) => ms(x.mean_ms))}
    ${row(t.bytes, (x) => (x.calls ? `${bytes(x.request_bytes / x.calls)} / ${bytes(x.response_bytes / x.calls)}` : '–'))}</dl>`;
}

function Results({ results }) {
  const list = Object.entries(results || {});
  if (!list.length) return null;
  return html`<h3>${t.results}</h3><dl class="figures">${list.map(([c, n]) => html`<div><dt>${c}</dt><dd class=${c === 'ok' ? '' : 'bad'}>${whole(n)}</dd></div>`)}</dl>`;
}

function Details({ g, selected, close, go, entry }) {
  const edge = selected.edge && g.edges.find((e) => edgeID(g, e) === selected.edge);
  const node = selected.id && g.nodes.find((n) => n.id === selected.id);
  const at = edge || node;
  useEffect(() => { if (!at) close(); }, [at]);
  if (!at) return null;
  const critical = at.critical > 0 && html`<p class="note">◆ ${t.critical}: ${pct(at.critical)} <span class="quiet">(${t.criticalOf(g.traces, g.unfair)})</span></p>`;
  return html`<aside class="details" aria-label=${t.details} data-test="details"><button class="icon close" aria-label=${t.close} onClick=${close}>×</button>
    ${node ? html`<p class="kicker">${t.kinds[node.kind]}</p><h3 class="big">${node.method}</h3>${node.kind === 'method' && html`<p class="sub">${node.service}</p>`}
      ${node.mark && html`<p><${State} severity=${node.mark.severity} text=${node.mark.severity ? node.mark.text : ''} /></p>`}`
      : html`<p class="kicker">${edge.link ? t.link : t.callsTo}</p><h3 class="big">${g.nodes[edge.from].name}<br /><span class="quiet">→</span> ${g.nodes[edge.to].name}</h3>`}
    <${Figures} s=${at.stats} base=${g.compared ? at.base : null} />
    ${critical}
    ${edge?.server && html`<h3>${t.serverSide}</h3><dl class="figures"><div><dt>${t.calls}</dt><dd>${whole(edge.server.calls)}</dd></div><div><dt>${t.p50}</dt><dd>${ms(edge.server.p50_ms)}</dd></div><div><dt>${t.p99}</dt><dd>${ms(edge.server.p99_ms)}</dd></div></dl>`}
    ${edge?.check && html`<p class=${edge.check.ok ? 'note good' : 'note bad'}>${edge.check.ok ? `= ${t.bothEnds}` : `≠ ${t.endsDiffer(edge.check.lost)}`} <span class="quiet">${whole(edge.check.attempts)} ${t.attempts} · ${whole(edge.check.served)} ${t.served}${edge.check.uncertain ? ` · ${whole(edge.check.uncertain)} ${t.uncertain}` : ''}</span></p>`}
    <${Results} results=${at.stats.results} />
    <p class="actions">
      <a class="button small" href=${edge ? link('traces', { entry, edge: `${g.nodes[edge.from].kind === 'entry' ? '' : g.nodes[edge.from].name}->${g.nodes[edge.to].name}` }) : node.kind === 'entry' ? link('traces', { entry: node.name }) : link('traces', { entry, edge: `->${node.name}` })}>${t.seeTraces}</a>
      ${node?.kind === 'method' && html`<a class="button small" href=${link('services', { name: node.service })}>${t.seeService}</a>`}
      ${node && html`<button class="button small" onClick=${() => go({ around: node.id, hops: '1' }, true)}>${t.aroundHere}</button>`}</p></aside>`;
}

function Body({ data, route, go, mode, title }) {
  const g = useMemo(() => narrow(data.graph, mode === 'change' ? 0.78 : 0.62), [data.graph, mode]);
  const [selected, setSelected] = useState(null);
  const [zoom, setZoom] = useState(0);
  const labels = route.q.labels ? route.q.labels === '1' : g.edges.length <= manyEdges;
  const found = route.q.search ? data.found : [];
  if (!g.edges.length && g.nodes.every((n) => !n.stats.calls && !n.base?.calls)) return html`<${Empty} title=${t.emptyGraph} hint=${t.emptyGraphHint} />`;
  return html`
    <div class="card graph-card"><div class="toolbar">
      <p class="legend" aria-label=${t.legend}><span class="k failed">✕ ${t.legendFailed}</span><span class="k s1">▲ ${t.severity[1]}</span><span class="k s2">‖ ${t.severity[2]}</span><span class="k s3">■ ${t.severity[3]}</span>${g.edges.some((e) => e.link) && html`<span class="k link">┄ ${t.legendLink}</span>`}${g.traces > 0 && html`<span class="k critical">◆ ${t.legendCritical} (${t.criticalOf(g.traces, g.unfair)})</span>`}</p>
      <span class="zoom"><button class="icon" aria-label=${t.zoomOut} onClick=${() => setZoom(Math.max((zoom || 0.8) / 1.25, 0.15))}>−</button><button class="icon" aria-label=${t.fit} title=${t.fit} onClick=${() => setZoom(0)}>⤢</button><button class="icon" aria-label=${t.zoomIn} onClick=${() => setZoom(Math.min((zoom || 0.8) * 1.25, 3))}>+</button></span></div>
      <div class="stage"><${Picture} g=${g} mode=${mode} found=${found} selected=${selected} onSelect=${setSelected} labels=${labels} title=${t.pictureOf(title)} zoom=${zoom} setZoom=${setZoom} />
      ${selected && html`<${Details} g=${g} selected=${selected} close=${() => setSelected(null)} go=${go} entry=${data.entry} />`}</div>
      <p class="foot">${t.nMethods(num(g.nodes.length))} · ${t.nEdges(num(g.edges.length))}${g.hidden_nodes + g.hidden_edges > 0 ? ` · ${t.hidden(g.hidden_nodes, g.hidden_edges)}` : ''}${g.overflow ? ` · ${t.overflow(whole(g.overflow))}` : ''}
        ${route.q.search ? html` · <span role="status">${t.found(data.found.length)}</span>` : ''}
        ${route.q.around ? html` · <button class="button small" onClick=${() => go({ around: '', hops: '' }, true)}>${t.aroundAll}</button>` : ''}
        <span class="downloads">${['svg', 'dot', 'mermaid', 'text', 'json'].map((f) => html`<a href=${`/api/graph?${new URLSearchParams({ ...data.params, format: f })}`} target="_blank" rel="noopener">${f === 'dot' || f === 'svg' || f === 'json' ? f.toUpperCase() : f[0].toUpperCase() + f.slice(1)}</a>`)}</span></p></div>
    <${Tables} g=${g} select=${setSelected} selected=${selected} />`;
}

function params(route, last) {
  const { entry = '', hops = '', min_share = '', around = '', search = '', labels = '' } = route.q;
  return { entry, last, hops, min_share, around, search, labels: labels === '0' ? '0' : '' };
}
const clean = (p) => Object.fromEntries(Object.entries(p).filter(([, v]) => v !== ''));

export function Graph({ route, go, last, live, every }) {
  const entries = useEntries(last, live, every);
  const p = clean(params(route, last));
  const ask = useAsk('graph', p, { live, every });
  const entry = route.q.entry || '';
  return html`<section><header class="head"><div><h1>${entry || t.allEntries}</h1><p class="lead">${entry ? t.graphLead : t.graphAll}</p></div></header>
    <div class="filters"><${Chooser} route=${route} go=${go} entries=${entries} /><${Input} search label=${t.search} placeholder=${t.findNode} value=${route.q.search} onChange=${(v) => go({ search: v }, true)} test="search" />
      <${Filters} route=${route} go=${go} labels=${route.q.labels ? route.q.labels === '1' : (ask.data?.graph?.edges.length || 0) <= manyEdges} /></div>
    <${Guarded} ask=${ask}>${(data) => html`<${Body} key=${entry} data=${{ ...data, params: p }} route=${route} go=${go} mode="" title=${entry || t.allEntries} />`}<//></section>`;
}

// Guarded says in its own words what cannot be drawn.
function Guarded({ ask, children }) {
  if (!ask.data && ask.error?.status === 422) return html`<${Empty} title=${t.tooLarge} hint=${ask.error.message} />`;
  return html`<${Answer} ask=${ask}>${(data) => (data.missing === 'base' ? html`<${Empty} title=${t.noBase} hint=${t.noBaseHint} />`
    : data.missing ? html`<${Empty} title=${t.gathering} hint=${t.gatheringHint} />` : children(data))}<//>`;
}

export function Compare({ route, go, last, live, every }) {
  const entries = useEntries(last, live, every);
  const ago = route.q.ago || last;
  const mode = route.q.show || 'change';
  const p = clean({ ...params(route, last), base_ago: ago });
  const ask = useAsk('graph', p, { live, every });
  const entry = route.q.entry || '';
  const span = (s) => `${clock(s.from)} – ${clock(s.to)}`;
  return html`<section><header class="head"><div><h1>${t.compare}</h1><p class="lead">${t.compareLead}</p></div></header>
    <div class="filters"><${Chooser} route=${route} go=${go} entries=${entries} />
      <${Select} label=${t.compareWith} value=${ago} test="ago" options=${t.ago[ago] ? Object.entries(t.ago) : [[ago, ago], ...Object.entries(t.ago)]} onChange=${(v) => go({ ago: v }, true)} />
      <div class="field"><span>${t.show}</span><${Segments} test="show" label=${t.show} value=${mode} options=${[['change', t.change], ['now', t.now], ['before', t.before]]} onChange=${(v) => go({ show: v }, true)} /></div>
      <${Input} search label=${t.search} placeholder=${t.findNode} value=${route.q.search} onChange=${(v) => go({ search: v }, true)} test="search" />
      <${Filters} route=${route} go=${go} labels=${route.q.labels ? route.q.labels === '1' : (ask.data?.graph?.edges.length || 0) <= manyEdges} /></div>
    <${Guarded} ask=${ask}>${(data) => html`
      ${data.base && html`<p class="spans"><span><b>${t.now}</b> ${span(data.period)}</span><span><b>${t.before}</b> ${span(data.base)}</span></p>`}
      <${Body} key=${entry} data=${{ ...data, params: p }} route=${route} go=${go} mode=${mode} title=${entry || t.allEntries} />`}<//></section>`;
}
