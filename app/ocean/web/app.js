// The page: it asks how everything is, again and again, and shows only what has changed.

import { el, say, set } from './dom.js';
import { switchLanguage, t, time } from './i18n.js';
import { makeMap, queue } from './map.js';

const every = 500; // ms
const $ = (id) => document.getElementById(id);
const upper = (name) => name.toUpperCase();
const delays = [0, 10, 40, 75, 150, 300, 1000];
const rates = [0, 1e6, 10e6, 100e6]; // bits a second

let state = null;
let reachable = true;

async function post(path, body) {
  const res = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  if (!res.ok) throw new Error((await res.text()).trim());
}

function warn(text) {
  $('banner').hidden = !text;
  say($('banner'), text || '');
}

// act does something, shows why it failed, and looks at once.
async function act(what) {
  try { await what(); warn(''); } catch (e) { warn(e.message); return false; }
  await look();
  return true;
}

const line = (a, b, change) => act(() => post(`/api/lines/${a}/${b}`, change));

function toggle(a, b) {
  const l = state.lines.find((x) => x.a === a && x.b === b);
  return line(a, b, { cut: !(l.there.cut || l.back.cut) });
}

const showMap = makeMap($('map'), toggle);

// The controls of each line, made once.
const rows = new Map();

function lineRow(l) {
  const p = {
    name: el('span', { class: 'route' }), state: el('span', { class: 'pill' }), more: el('summary'),
    figures: Object.fromEntries(['rttWord', 'rtt', 'thereWord', 'thereIs', 'backWord', 'backIs', 'alarm'].map((n) => [n, el('span', { class: n === 'alarm' ? 'alarm' : null })])),
    both: el('button', { class: 'button small', type: 'button', onclick: () => toggle(l.a, l.b) }),
    there: el('button', { class: 'button small', type: 'button', onclick: () => one(l.a, l.b, l.a) }),
    back: el('button', { class: 'button small', type: 'button', onclick: () => one(l.a, l.b, l.b) }),
    delay: el('select', { onchange: (e) => line(l.a, l.b, { delay_ms: Number(e.target.value) }) }, ...delays.map((d) => el('option', { value: d }))),
    rate: el('select', { onchange: (e) => line(l.a, l.b, { rate: Number(e.target.value) / 8 }) }, ...rates.map((r) => el('option', { value: r }))),
    delayWord: el('span'), rateWord: el('span'),
  };
  p.li = el('li', { class: 'card line' },
    el('div', { class: 'row' }, el('span', { class: 'who' }, p.name, p.state), p.both), el('div', { class: 'figures' }, ...Object.values(p.figures)),
    el('details', {}, p.more,
      el('div', { class: 'row tools' }, el('label', { class: 'field' }, p.delayWord, p.delay), el('label', { class: 'field' }, p.rateWord, p.rate)),
      el('div', { class: 'row tools' }, p.there, p.back)));
  return p;
}

function one(a, b, from) {
  const l = state.lines.find((x) => x.a === a && x.b === b);
  return line(a, b, { from, cut: !(from === l.a ? l.there : l.back).cut });
}

function showLines() {
  const words = t();
  for (const [key, p] of rows) if (!state.lines.some((l) => l.a + '-' + l.b === key)) { p.li.remove(); rows.delete(key); }
  for (const l of state.lines) {
    const key = l.a + '-' + l.b;
    if (!rows.has(key)) { rows.set(key, lineRow(l)); $('lines').append(rows.get(key).li); }
    const p = rows.get(key), there = queue(state, l.a, l.b), back = queue(state, l.b, l.a);
    const cut = l.there.cut && l.back.cut, half = l.there.cut !== l.back.cut, silent = !cut && !half && (there.state !== 'up' || back.state !== 'up');
    say(p.name, `${upper(l.a)} – ${upper(l.b)}`);
    say(p.state, cut ? words.cut : half ? words.half : silent ? words.silent : words.whole);
    set(p.state, 'class', 'pill ' + (cut || half ? 'bad' : silent ? 'warn' : 'good'));
    const f = p.figures;
    say(f.rttWord, words.rtt); say(f.rtt, there.rtt_ms ? time(there.rtt_ms) : '–');
    for (const [word, is, from, to, q] of [[f.thereWord, f.thereIs, l.a, l.b, there], [f.backWord, f.backIs, l.b, l.a, back]]) {
      say(word, `${upper(from)} → ${upper(to)}`);
      say(is, q.depth ? `${q.depth} ${words.waiting}, ${words.oldest} ${time(q.lag_ms)}` : words.nothingWaits);
      set(is, 'class', q.depth ? 'loud' : null);
    }
    say(f.alarm, [there.alarm, back.alarm].filter(Boolean).map((a) => `${words.alarm}: ${a}`).join(' '));
    f.alarm.hidden = !f.alarm.textContent;
    say(p.more, words.settings);
    say(p.both, cut || half ? words.healLine : words.cutLine);
    set(p.both, 'aria-label', `${cut || half ? words.healLine : words.cutLine}: ${upper(l.a)} – ${upper(l.b)}`);
    set(p.both, 'class', cut || half ? 'button small heal' : 'button small');
    say(p.there, (l.there.cut ? words.healOne : words.cutOne)(upper(l.a), upper(l.b)));
    say(p.back, (l.back.cut ? words.healOne : words.cutOne)(upper(l.b), upper(l.a)));
    say(p.delayWord, words.delay); say(p.rateWord, words.rate);
    choose(p.delay, l.there.delay_ms, (v) => time(v));
    choose(p.rate, l.there.rate * 8, (v) => (v ? `${v / 1e6} Mbit/s` : words.noLimit));
  }
}

// choose shows a value in a list of some, also one that the command line has set.
function choose(select, value, word) {
  if (![...select.options].some((o) => Number(o.value) === value)) select.append(el('option', { value }));
  for (const o of select.options) say(o, word(Number(o.value)));
  if (document.activeElement !== select) select.value = String(value);
}

// The column of each region, made once; its comments by their ids, so that what a reader
// holds does not move.
const columns = new Map();

function column(view) {
  const p = { comments: new Map(), replyTo: '' };
  p.region = el('a', { class: 'region', target: '_blank', rel: 'noreferrer' }); p.person = el('h3'); p.count = el('span', { class: 'quiet' });
  p.text = el('p', { class: 'text' }); p.note = el('p', { class: 'quiet note' });
  p.list = el('ol', { class: 'comments', tabindex: '0' });
  p.input = el('input', { maxlength: 500, autocomplete: 'off', enterkeyhint: 'send' });
  p.send = el('button', { class: 'button primary', type: 'submit' });
  p.target = el('span', { class: 'quiet' }); p.stop = el('button', { class: 'link', type: 'button', onclick: () => { p.replyTo = ''; showViews(); p.input.focus(); } });
  p.targetRow = el('p', { class: 'target', hidden: true }, p.target, p.stop);
  p.form = el('form', { onsubmit: async (e) => {
    e.preventDefault();
    const text = p.input.value.trim();
    if (!text) return;
    p.send.disabled = true;
    if (await act(() => post('/api/comments', { region: view.region, text, reply_to: p.replyTo }))) { p.input.value = ''; p.replyTo = ''; showViews(); }
    p.send.disabled = false;
    p.input.focus();
  } }, p.targetRow, el('div', { class: 'say' }, p.input, p.send));
  p.node = el('section', { class: 'card view' }, el('header', {}, el('span', { class: 'avatar', 'aria-hidden': 'true' }, view.person[0]), el('div', {}, p.person, p.region), p.count), p.text, p.note, p.list, p.form);
  return p;
}

function comment(p, c) {
  const node = { writer: el('b'), to: el('span', { class: 'quiet' }), text: el('span'), where: el('span', { class: 'where' }) };
  node.reply = el('button', { class: 'link', type: 'button', onclick: () => { p.replyTo = c.id; showViews(); p.input.focus(); } });
  node.li = el('li', { class: 'fresh', 'data-id': c.id, 'data-reply-to': c.reply_to || null }, el('div', {}, node.writer, ' ', node.to, ' ', node.text), el('div', { class: 'meta' }, node.where, node.reply));
  node.li.addEventListener('animationend', () => node.li.classList.remove('fresh'));
  return node;
}

function showViews() {
  const words = t(), scene = state.scene, views = scene.views;
  say($('scene-lead'), scene.lacks ? words.lacks[scene.lacks] || scene.lacks : words.sceneLead);
  $('again').disabled = Boolean(scene.lacks);
  const has = new Map(views.map((v) => [v.region, new Set(v.comments.map((c) => c.id))]));
  const said = new Map(views.flatMap((v) => v.comments.map((c) => [c.id, c])));
  for (const [region, p] of columns) if (!has.has(region)) { p.node.remove(); columns.delete(region); }
  for (const v of views) {
    if (!columns.has(v.region)) { columns.set(v.region, column(v)); $('views').append(columns.get(v.region).node); }
    const p = columns.get(v.region), region = state.regions.find((r) => r.name === v.region);
    say(p.person, v.guest ? words.visiting(v.person) : v.person); say(p.region, upper(v.region)); set(p.region, 'href', region ? region.url : null);
    set(p.node, 'aria-label', `${v.person}, ${upper(v.region)}`);
    set(p.node, 'data-region', v.region);
    set(p.list, 'aria-label', words.commentsIn(upper(v.region)));
    say(p.text, v.absent || !scene.post ? '' : scene.text);
    say(p.count, scene.post && !v.absent && !v.problem ? words.comments(v.count) : '');
    say(p.note, v.problem || (v.absent ? words.absent : scene.post && v.comments.length === 0 ? words.nobodyYet : v.count > v.comments.length ? words.more(v.count - v.comments.length) : ''));
    if (!v.problem) showComments(p, v, has, said, views);
    const target = said.get(p.replyTo);
    p.targetRow.hidden = !target;
    if (target) { say(p.target, words.replyTo(target.writer, target.text)); say(p.stop, words.stop); }
    set(p.input, 'placeholder', words.say(v.person)); set(p.input, 'aria-label', words.say(v.person)); say(p.send, words.send);
    p.input.disabled = Boolean(scene.lacks) || v.absent;
  }
}

function showComments(p, v, has, said, views) {
  const words = t(), kept = new Set();
  let before = null;
  for (const c of v.comments) {
    kept.add(c.id);
    if (!p.comments.has(c.id)) p.comments.set(c.id, comment(p, c));
    const n = p.comments.get(c.id), parent = said.get(c.reply_to);
    say(n.writer, c.writer || '?'); say(n.to, c.reply_to ? words.replied(parent ? parent.writer : '?') : '');
    say(n.text, c.deleted ? words.deleted : c.text);
    const spoken = views.map((o) => (has.get(o.region).has(c.id) ? words.here : words.notHere)(upper(o.region))).join(', ');
    if (n.spoken !== spoken) {
      n.spoken = spoken;
      n.where.replaceChildren(...views.map((o) => el('span', { class: has.get(o.region).has(c.id) ? 'is' : 'not' }, upper(o.region))));
      set(n.where, 'role', 'img'); set(n.where, 'aria-label', spoken); set(n.where, 'title', spoken);
    }
    say(n.reply, words.reply);
    const next = before ? before.nextSibling : p.list.firstChild;
    if (next !== n.li) p.list.insertBefore(n.li, next);
    before = n.li;
  }
  for (const [id, n] of p.comments) if (!kept.has(id)) { n.li.remove(); p.comments.delete(id); }
}

function showWords() {
  const words = t();
  document.title = words.app;
  say($('brand'), words.app); say($('language'), words.language); say($('skip'), words.skip); say($('theme'), '◐'); set($('theme'), 'aria-label', words.theme);
  say($('sea-title'), words.title); say($('sea-lead'), words.lead); say($('scene-title'), words.scene); say($('again'), words.newPost);
}

function show() {
  showWords();
  if (!state) return;
  showMap(state); showLines(); showViews();
}

async function look() {
  try {
    const res = await fetch('/api/state', { signal: AbortSignal.timeout(5000) });
    if (!res.ok) throw new Error(res.statusText);
    state = await res.json();
    if (!reachable) warn('');
    reachable = true;
    show();
  } catch {
    reachable = false;
    warn(t().lost);
  }
}

// A page that nobody sees does not ask.
async function watch() {
  for (;;) {
    if (document.visibilityState === 'visible') await look();
    await new Promise((done) => { setTimeout(done, every); });
  }
}

$('language').addEventListener('click', () => { switchLanguage(); for (const c of columns.values()) for (const n of c.comments.values()) n.spoken = ''; show(); });
$('theme').addEventListener('click', () => {
  const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  try { localStorage.setItem('ocean.theme', next); } catch { /* as long as the page is open */ }
  document.documentElement.dataset.theme = next;
  dispatchEvent(new Event('ocean:theme'));
});
$('again').addEventListener('click', () => act(() => post('/api/posts', {})));
matchMedia('(max-width: 640px)').addEventListener('change', show);
showWords();
watch();
