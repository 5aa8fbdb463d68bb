// SPDX-License-Identifier: Apache-2.0
// Kept requests: a list to find them in, and the waterfall of one.
import { html, useMemo, useRef, useState } from './lib.js';
import { lang, t } from './i18n.js';
import { useAsk } from './api.js';
import { bytes, clock, ms, num, pct, whole } from './format.js';
import { Answer, Empty, Input, Problem, Select, Table, Toggle } from './ui.js';
import { link } from './route.js';

const classes = ['business_error', 'internal', 'bad_request', 'timeout', 'overloaded', 'draining', 'canceled', 'panic', 'network', 'local_rejected', 'circuit_open', 'no_instance', 'connect_error', 'unsent'];
const because = (kept) => kept.split('+').map((k) => t.keptFor[k] || k).join(' + ');

function Ended({ r }) {
  const ok = !r.class || r.class === 'ok';
  return html`<span class=${ok ? 'quiet' : 'bad'}>${ok ? '' : '✕ '}${r.class || 'ok'}${r.status ? ` ${r.status}` : ''}</span>`;
}

export function Traces({ route, go, last, live, every }) {
  const q = route.q;
  if (q.id) return html`<${Trace} route=${route} />`;
  return html`<${List} route=${route} go=${go} last=${last} live=${live} every=${every} />`;
}

function List({ route, go, last, live, every }) {
  const q = route.q;
  const filters = { entry: q.entry || '', service: q.service || '', edge: q.edge || '', code: q.code || '', min_ms: q.min_ms || '', max_ms: q.max_ms || '', attr: q.attr || '', text: q.text || '', failed: q.failed || '' };
  const ask = useAsk('traces', { ...filters, last, limit: 100 }, { live, every });
  const entries = useAsk('entries', { last });
  const services = useAsk('services', { last });
  const set = (k) => (v) => go({ [k]: v === true ? '1' : v || '' }, true);
  const any = Object.values(filters).some(Boolean);
  const columns = useMemo(() => [
    { key: 'entry', head: t.entry, wide: true, sort: (r) => r.entry, cell: (r) => html`<span class="name">${r.entry || r.method}</span>${!r.whole && html`<span class="sub">${t.partial}</span>`}` },
    { key: 'start', head: t.when, num: true, sort: (r) => r.start, cell: (r) => clock(r.start) },
    { key: 'duration', head: t.duration, num: true, sort: (r) => r.duration_ms, cell: (r) => ms(r.duration_ms) },
    { key: 'ended', head: t.ended, sort: (r) => r.class, cell: (r) => html`<${Ended} r=${r} />` },
    { key: 'spans', head: t.spans, num: true, sort: (r) => r.spans, cell: (r) => html`${num(r.spans)}${r.failed ? html` <span class="bad">✕ ${r.failed}</span>` : ''}` },
    { key: 'kept', head: t.kept, cell: (r) => html`<span class="quiet">${because(r.kept)}</span>` },
    { key: 'processes', head: t.processes, wide: true, cell: (r) => html`<span class="quiet">${r.processes.join(', ')}</span>` },
    { key: 'id', head: t.trace, cell: (r) => html`<code class="quiet">${r.id.slice(0, 8)}</code>` },
  ], [lang]);
  const options = (list, any) => [['', any], ...list.map((e) => [e.name, e.name])];
  const withCurrent = (list, v) => (v && !list.some(([o]) => o === v) ? [...list, [v, v]] : list);
  return html`<section><header class="head"><div><h1>${t.traces}</h1><p class="lead">${t.tracesLead}</p></div></header>
    <div class="filters" data-test="trace-filters">
      <${Select} label=${t.entry} value=${filters.entry} test="filter-entry" options=${withCurrent(options(entries.data?.entries || [], t.anyEntry), filters.entry)} onChange=${set('entry')} />
      <${Select} label=${t.service} value=${filters.service} options=${withCurrent(options(services.data?.services || [], t.anyService), filters.service)} onChange=${set('service')} />
      <${Input} label=${t.edge} placeholder=${t.edgeHint} value=${filters.edge} onChange=${set('edge')} />
      <${Select} label=${t.code} value=${filters.code} options=${withCurrent([['', t.anyCode], ...classes.map((c) => [c, c])], filters.code)} onChange=${set('code')} />
      <${Input} label=${t.atLeast} value=${filters.min_ms} inputmode="decimal" onChange=${(v) => set('min_ms')(number(v))} test="min" />
      <${Input} label=${t.atMost} value=${filters.max_ms} inputmode="decimal" onChange=${(v) => set('max_ms')(number(v))} />
      <${Input} label=${t.attribute} placeholder=${t.attributeHint} value=${filters.attr} onChange=${set('attr')} />
      <${Input} search label=${t.text} placeholder=${t.search} value=${filters.text} onChange=${set('text')} test="search" />
      <${Toggle} label=${t.onlyFailed} value=${!!filters.failed} onChange=${set('failed')} test="only-failed" />
      ${any && html`<button class="button small" onClick=${() => go(Object.fromEntries(Object.keys(filters).map((k) => [k, ''])), true)}>${t.clear}</button>`}
    </div>
    <${Answer} ask=${ask}>${(data) => (data.traces.length ? html`<div class="card"><${Table} test="traces" columns=${columns} rows=${data.traces} rowKey=${(r) => r.id} href=${(r) => link('traces', { id: r.id })} />
      <p class="foot">${t.ofTraces(data.traces.length, data.all)} · ${t.keptTraces(whole(data.kept))}</p></div>`
      : any && data.kept ? html`<${Empty} title=${t.noMatch} hint=${t.noMatchHint} />` : html`<${Empty} title=${t.noTraces} hint=${t.noTracesHint} />`)}<//></section>`;
}
const number = (v) => (Number.isFinite(Number(v)) && Number(v) >= 0 ? v : '');

function Trace({ route }) {
  const ask = useAsk('trace', { id: route.q.id });
  if (!ask.data && ask.error?.status === 404) return html`<${Empty} title=${t.traceGone} hint=${t.traceGoneHint}><a class="button" href=${link('traces')}>${t.back}</a><//>`;
  if (!ask.data && ask.error) return html`<${Problem} error=${ask.error} retry=${ask.retry} />`;
  return html`<section><p><a class="back" href="#/traces" onClick=${(e) => { if (history.length > 1 && document.referrer !== '' ) { e.preventDefault(); history.back(); } }}>← ${t.traces}</a></p>
    <${Answer} ask=${ask}>${(data) => html`<${Waterfall} data=${data} />`}<//></section>`;
}

function Waterfall({ data }) {
  const [open, setOpen] = useState(null);
  const body = useRef();
  const total = Math.max(data.end_ns - data.start_ns, 1);
  const line = data.trace;
  const keys = (e) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (!step) return;
    const buttons = [...body.current.querySelectorAll('button.span-name')];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next) { e.preventDefault(); next.focus(); }
  };
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  return html`<header class="head"><div><h1>${line.entry || line.method}</h1>
      <p class="lead">${ms(line.duration_ms)} · <${Ended} r=${line} /> · ${clock(line.start, true)} · ${t.nSpans(num(line.spans))} · ${t.nProcesses(num(line.processes.length))} · ${because(line.kept)}</p>
      <p class="sub"><code>${data.id}</code>${data.cut ? ` · ${t.cutTrace}` : ''}</p>
      ${data.linked.length > 0 && html`<p class="chips linked">${t.continues} ${data.linked.map((l) => html`<a class="button small" href=${link('traces', { id: l.id })}>${l.method.slice(l.method.lastIndexOf('/') + 1)} · ${ms(l.duration_ms)}</a>`)}</p>`}</div></header>
    <div class="card scroll"><table class="waterfall" data-test="waterfall" onKeyDown=${keys}><caption class="sr">${t.trace} ${data.id}</caption>
      <thead><tr><th scope="col">${t.span}</th><th scope="col" class="times"><span class="sr">${t.timeline}</span><span class="ticks">${ticks.map((f) => html`<span>${ms((total * f) / 1e6)}</span>`)}</span></th><th scope="col" class="num">${t.duration}</th><th scope="col" class="num">${t.percentile}</th><th scope="col">${t.ended}</th></tr></thead>
      <tbody ref=${body}>${data.spans.map((s, i) => {
        const left = ((s.start_ns - data.start_ns) / total) * 1000, width = Math.max((s.duration_ns / total) * 1000, 2);
        const bad = s.class && s.class !== 'ok';
        return html`<tr key=${i} class=${`${s.kind} ${open === i ? 'opened' : ''}`}><th scope="row"><button class="span-name" style=${{ paddingInlineStart: `${Math.min(s.depth, 20) * 14}px` }} aria-expanded=${open === i} onClick=${() => setOpen(open === i ? null : i)}>
            <span class="name">${s.method.slice(s.method.lastIndexOf('/', s.path ? 0 : undefined) + 1) || s.method}${s.attempt > 1 ? ` #${s.attempt}` : ''}</span>
            <span class="sub">${t.spanKinds[s.kind]} · ${s.process}${s.orphan ? ` · ${t.orphan}` : ''}</span></button></th>
          <td class="times"><svg class="row" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">${[250, 500, 750].map((x) => html`<line x1=${x} x2=${x} y1="0" y2="20" />`)}
            <rect class=${`bar ${s.kind} ${bad ? 'failed' : ''}`} x=${Math.min(left, 998)} y=${s.kind === 'client' ? 7 : 4} width=${width} height=${s.kind === 'client' ? 6 : 12} rx="2" /></svg></td>
          <td class="num">${ms(s.duration_ns / 1e6)}</td>
          <td class="num">${s.percentile == null ? '–' : html`<span class=${s.percentile >= 0.99 ? 'warn' : 'quiet'} title=${t.percentileOf(pct(s.percentile), whole(s.of))}>${percentile(s.percentile)}</span>`}</td>
          <td><${Ended} r=${s} />${s.critical > 0.005 && html` <span class="path" title=${t.critical}>◆ ${pct(Number(s.critical.toPrecision(2)))}</span>`}</td></tr>
          ${open === i && html`<tr class="more"><td colspan="5"><${SpanDetails} s=${s} start=${data.start_ns} /></td></tr>`}`;
      })}</tbody></table></div>`;
}
const percentile = (f) => (f >= 0.9995 ? 'p>99.9' : `p${Number((f * 100).toFixed(f >= 0.99 ? 1 : 0))}`);

function SpanDetails({ s, start }) {
  const rows = [
    [t.method, s.method], [t.caller, s.caller], [t.process, s.process], [t.kind, t.spanKinds[s.kind]], [t.started, `+${ms((s.start_ns - start) / 1e6)}`], [t.duration, ms(s.duration_ns / 1e6)],
    [t.percentile, s.percentile == null ? '' : t.percentileOf(pct(s.percentile), whole(s.of))], [t.critical, s.critical ? `${pct(s.critical)} ${t.share}` : ''],
    [t.peer, s.peer], ['path', s.path], ['status', s.status], ['code', s.code], ['reason', s.reason], [t.message, s.message],
    [t.bytes, s.request_bytes || s.response_bytes ? `${bytes(s.request_bytes || 0)} / ${bytes(s.response_bytes || 0)}` : ''], ['span', s.span], ['parent', s.parent], ['tracestate', s.state],
  ].filter(([, v]) => v !== '' && v != null);
  return html`<dl class="figures broad">${rows.map(([k, v]) => html`<div><dt>${k}</dt><dd>${v}</dd></div>`)}</dl>
    ${s.notes?.length > 0 && html`<h3>${t.attributes}</h3><dl class="figures broad">${s.notes.map((n) => html`<div><dt>${n.key}</dt><dd>${n.value}</dd></div>`)}</dl>`}
    ${s.links?.length > 0 && html`<p class="chips linked">${t.causedBy} ${s.links.map((l) => html`<a class="button small" href=${link('traces', { id: l.trace })}>${l.trace.slice(0, 8)}</a>`)}</p>`}`;
}
