// SPDX-License-Identifier: Apache-2.0
// The entries of the system: where its requests come in.
import { html, useMemo } from './lib.js';
import { t } from './i18n.js';
import { useAsk } from './api.js';
import { ms, num, pct, rate, whole } from './format.js';
import { Answer, Empty, Input, Spark, State, Table } from './ui.js';
import { link } from './route.js';

export function Entries({ route, go, last, live, every }) {
  const ask = useAsk('entries', { last }, { live, every });
  const text = route.q.search || '';
  const columns = useMemo(() => [
    { key: 'name', head: t.entry, wide: true, sort: (r) => r.name, cell: (r) => html`<span class="name" title=${r.named ? r.name : t.unnamed}>${r.name}</span>${!r.named && html`<span class="sub">${t.unnamed}</span>`}` },
    { key: 'rate', head: t.rate, num: true, sort: (r) => r.rate, cell: (r) => rate(r.rate) },
    { key: 'errors', head: t.errors, num: true, sort: (r) => r.failed_share, cell: (r) => html`<span class=${r.failed ? 'bad' : 'quiet'} title=${`${whole(r.failed)} / ${whole(r.calls)}`}>${pct(r.failed_share)}</span>` },
    { key: 'p50', head: t.p50, num: true, sort: (r) => r.p50_ms, cell: (r) => html`<span class="quiet">${ms(r.p50_ms)}</span>` },
    { key: 'p99', head: t.p99, num: true, sort: (r) => r.p99_ms, cell: (r) => ms(r.p99_ms) },
    { key: 'trend', head: t.rateTrend, cell: (r) => html`<${Spark} values=${r.trend.rate} bad=${r.trend.failed} label=${t.rateTrend} />` },
    { key: 'trend99', head: t.p99Trend, cell: (r) => html`<${Spark} values=${r.trend.p99_ms} label=${t.p99Trend} />` },
    { key: 'calls', head: t.calls, num: true, sort: (r) => r.calls, cell: (r) => html`<span class="quiet">${whole(r.calls)}</span>` },
    { key: 'state', head: t.state, sort: (r) => r.mark?.severity ?? -1, cell: (r) => r.mark && html`<${State} severity=${r.mark.severity} text=${r.mark.severity ? r.mark.text : ''} />` },
  ], [t]);
  return html`<section>
    <header class="head"><div><h1>${t.entries}</h1><p class="lead">${t.entriesLead}</p></div>
      <${Input} search hideLabel label=${t.findEntry} placeholder=${t.findEntry} value=${text} onChange=${(v) => go({ search: v }, true)} test="search" /></header>
    <${Answer} ask=${ask}>${(data) => {
      const words = text.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = data.entries.filter((e) => words.every((w) => e.name.toLowerCase().includes(w)));
      if (!data.entries.length) return html`<${Empty} title=${data.period.seconds ? t.noEntries : t.gathering} hint=${data.period.seconds ? t.noEntriesHint : t.gatheringHint} />`;
      if (!rows.length) return html`<${Empty} title=${t.noMatch}><button class="button" onClick=${() => go({ search: '' }, true)}>${t.clear}</button><//>`;
      const all = rows.reduce((s, e) => ({ rate: s.rate + e.rate, failed: s.failed + e.failed, calls: s.calls + e.calls }), { rate: 0, failed: 0, calls: 0 });
      return html`<div class="card"><${Table} test="entries" columns=${columns} rows=${rows} rowKey=${(r) => r.id} href=${(r) => link('graph', { entry: r.name })} initial=${{ key: 'rate', dir: -1 }} />
        <p class="foot">${t.nEntries(num(rows.length))} · ${t.total} ${rate(all.rate)} · ${t.errors} ${pct(all.calls ? all.failed / all.calls : 0)}</p></div>`;
    }}<//></section>`;
}
