// The picture: who lives where, more or less, and two strands for each line, one a
// direction. What waits for a line lies at its beginning, and flies over when it goes.

import { el, say, set } from './dom.js';
import { t, time } from './i18n.js';

// Where regions are drawn, in shares of the picture. Others stand in a row in the middle.
const places = {
  sh: [.26, .31], shanghai: [.26, .31], sz: [.15, .55], shenzhen: [.15, .55], hk: [.2, .7], 'hong-kong': [.2, .7],
  ca: [.82, .33], canada: [.82, .33], us: [.86, .6], sg: [.44, .8], jp: [.38, .3], eu: [.93, .2], au: [.66, .8],
};
const narrow = matchMedia('(max-width: 640px)');
const still = matchMedia('(prefers-reduced-motion: reduce)');
const upper = (name) => name.toUpperCase();
const most = 8; // dots that lie at the beginning of a strand
const flight = 900; // ms

export function makeMap(root, toggle) {
  let drawnFor = '';
  const parts = new Map();

  function place(names) {
    const [w, h] = narrow.matches ? [400, 400] : [760, 430];
    set(root, 'viewBox', `0 0 ${w} ${h}`);
    const free = names.filter((n) => !places[n]);
    return { w, h, at: new Map(names.map((n) => {
      const [x, y] = places[n] || [(free.indexOf(n) + 1) / (free.length + 1), .5];
      return [n, [x * w, y * h]];
    })) };
  }

  // strand is the way from a to b: a little to its right, so that both ways are seen.
  function strand([x1, y1], [x2, y2], bend) {
    const dx = x2 - x1, dy = y2 - y1, length = Math.hypot(dx, dy) || 1;
    const mx = (x1 + x2) / 2 - dy / length * bend, my = (y1 + y2) / 2 + dx / length * bend;
    return { d: `M${x1} ${y1}Q${mx} ${my} ${x2} ${y2}`, middle: [(x1 + 2 * mx + x2) / 4, (y1 + 2 * my + y2) / 4] };
  }

  // way is one direction: the cable, which parts where it is cut, what runs in it, and what
  // waits for it.
  function way(d) {
    const cable = el('path', { d, class: 'cable', pathLength: 100 });
    return { cable, run: el('path', { d, class: 'run' }), dots: el('g', { class: 'dots' }), depth: 0 };
  }

  function draw(state) {
    root.replaceChildren();
    parts.clear();
    const { w, h, at } = place(state.regions.map((r) => r.name));
    root.append(sea(w, h));
    for (const line of state.lines) {
      const a = at.get(line.a), b = at.get(line.b), gap = 10;
      const far = Math.abs(a[0] - b[0]) > w * .3;
      // The line that lies higher bends up, the lower one down, a short one towards the sea.
      const bend = far ? ((a[1] + b[1]) / 2 < h * .45 ? -1 : 1) * h * .17 * Math.sign(b[0] - a[0] || 1) : -Math.sign(b[1] - a[1] || 1) * h * .09;
      const up = bend < 0 === (b[0] >= a[0]), [x, y] = strand(a, b, bend).middle;
      const labels = far ? { x, 'text-anchor': 'middle' } : { x: x + 24, 'text-anchor': 'start' };
      const p = {
        there: way(strand(a, b, bend - gap / 2).d), back: way(strand(b, a, -bend - gap / 2).d),
        label: el('text', { ...labels, y: far ? y + (up ? -40 : 36) : y - 3, class: 'label' }),
        sub: el('text', { ...labels, y: far ? y + (up ? -23 : 53) : y + 14, class: 'label sub' }), title: el('title'),
      };
      p.g = el('g', {
        class: 'wire', role: 'button', tabindex: '0', 'data-line': `${line.a}-${line.b}`,
        onclick: () => toggle(line.a, line.b),
        onkeydown: (e) => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); if (!e.repeat) toggle(line.a, line.b); } },
      }, p.title, el('path', { d: strand(a, b, bend).d, class: 'hit' }), ...[p.there, p.back].flatMap((s) => [s.cable, s.run, s.dots]), handle(x, y), p.label, p.sub);
      parts.set(line.a + '-' + line.b, p);
      root.append(p.g);
    }
    for (const r of state.regions) {
      const [x, y] = at.get(r.name), person = state.scene.views.find((v) => v.region === r.name);
      const text = (dy, name) => el('text', { x, y: y + dy, class: name, 'text-anchor': 'middle' });
      // Words stand on the side to which no line goes.
      const [name, sub, note] = y < h / 2 ? [-53, -36, -70] : [44, 61, 78];
      const p = { g: el('g', { class: 'place' }), name: text(name, 'name'), sub: text(sub, 'sub'), note: text(note, 'note') };
      p.g.append(el('circle', { cx: x, cy: y, r: 25 }), el('text', { x, y: y + 7, class: 'letter', 'text-anchor': 'middle' }, person ? person.person[0] : upper(r.name)), p.name, p.sub, p.note);
      parts.set(r.name, p);
      root.append(p.g);
    }
  }

  // wait shows so many dots at the beginning of a strand; those that do not wait any more
  // fly to its end.
  function wait(s, depth, flies) {
    const length = s.cable.getTotalLength(), shown = Math.min(depth, most), at = (i) => Math.min(36 + i * 10, length / 2 - 24);
    while (s.dots.childElementCount < shown) {
      const { x, y } = s.cable.getPointAtLength(at(s.dots.childElementCount));
      s.dots.append(el('circle', { cx: x, cy: y, r: 4 }));
    }
    while (s.dots.childElementCount > shown) {
      const dot = s.dots.lastChild, from = at(s.dots.childElementCount - 1);
      dot.remove();
      if (flies && !still.matches) fly(s, dot, from, length - 30);
    }
  }

  function fly(s, dot, from, to) {
    let began = 0;
    s.run.after(dot);
    const step = (now) => {
      began ||= now;
      const share = Math.min(1, (now - began) / flight), eased = share * share * (3 - 2 * share);
      const { x, y } = s.cable.getPointAtLength(from + (to - from) * eased);
      set(dot, 'cx', x); set(dot, 'cy', y);
      if (share < 1 && dot.isConnected) requestAnimationFrame(step); else dot.remove();
    };
    requestAnimationFrame(step);
  }

  return function show(state) {
    const form = [narrow.matches, ...state.regions.map((r) => r.name), ...state.scene.views.map((v) => v.region + v.person)].join();
    if (form !== drawnFor) { draw(state); drawnFor = form; }
    const words = t();
    for (const line of state.lines) {
      const p = parts.get(line.a + '-' + line.b), cut = line.there.cut && line.back.cut, half = line.there.cut !== line.back.cut;
      let waiting = 0, oldest = 0;
      for (const [s, from, to, one] of [[p.there, line.a, line.b, line.there], [p.back, line.b, line.a, line.back]]) {
        const q = queue(state, from, to), is = one.cut ? 'cut' : q.state === 'up' || q.state === 'suspect' ? q.state : 'down';
        set(s.cable, 'class', 'cable ' + is); set(s.run, 'class', 'run ' + is);
        wait(s, q.depth, !one.cut);
        waiting += q.depth; oldest = Math.max(oldest, q.lag_ms);
      }
      set(p.g, 'aria-pressed', String(cut || half));
      set(p.g, 'class', cut || half ? 'wire cut' : 'wire');
      const { delay_ms: there } = line.there, { delay_ms: back } = line.back;
      const name = cut ? words.cut : half ? words.half : there === back ? time(there) : `${time(there)} / ${time(back)}`;
      const queued = waiting > 0 ? `${waiting} ${words.waiting}${oldest >= 1000 ? ` · ${time(oldest)}` : ''}` : '';
      say(p.label, name); say(p.sub, queued);
      set(p.label, 'class', cut || half ? 'label bad' : 'label');
      set(p.g, 'aria-label', `${words.lineOf(upper(line.a), upper(line.b))}: ${name}${queued ? `, ${queued}` : ''}`);
      say(p.title, cut || half ? words.healLine : words.cutLine);
    }
    for (const r of state.regions) {
      const p = parts.get(r.name), view = state.scene.views.find((v) => v.region === r.name);
      set(p.g, 'class', r.up ? 'place' : 'place off');
      say(p.name, view ? `${view.person} · ${upper(r.name)}` : upper(r.name));
      say(p.sub, state.scene.post && view && !view.absent && !view.problem ? words.comments(view.count) : '');
      say(p.note, !r.up ? words.down : r.clock_ms ? words.clock((r.clock_ms > 0 ? '+' : '−') + time(Math.abs(r.clock_ms))) : '');
    }
  };
}

// queue gives what waits in a region for another one.
export function queue(state, from, to) {
  const region = state.regions.find((r) => r.name === from);
  return (region && region.queues.find((q) => q.to === to)) || { depth: 0, lag_ms: 0, rtt_ms: 0, state: '' };
}

// handle is what tells that a line can be cut, scissors, and mended, two ends that meet.
function handle(x, y) {
  return el('g', { class: 'handle', transform: `translate(${x} ${y})` }, el('circle', { r: 15 }),
    el('path', { class: 'scissors', d: 'M-6-6 6 4M-6 6 6-4M-6.5-6.5m-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0M-6.5 6.5m-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0' }),
    el('path', { class: 'mend', d: 'M-9 0H-3.5M3.5 0H9M-3.5-4V4M3.5-4V4' }));
}

// sea hints at the water, and at the land on both sides.
function sea(w, h) {
  const x = (share) => share * w, y = (share) => share * h;
  const wave = (at, from) => el('path', { d: `M${x(from)} ${y(at)}q10-6 20 0t20 0t20 0t20 0` });
  return el('g', { 'aria-hidden': 'true' },
    el('g', { class: 'waves' }, ...[[.12, .5], [.5, .42], [.62, .6], [.9, .5], [.4, .66], [.86, .3]].map(([at, from]) => wave(at, from))),
    el('g', { class: 'coast' },
      el('path', { d: `M0 0H${x(.32)}Q${x(.27)} ${y(.1)} ${x(.31)} ${y(.2)}T${x(.26)} ${y(.44)}T${x(.23)} ${y(.7)}T${x(.1)} ${y(.86)}T0 ${h}Z` }),
      el('path', { d: `M${w} 0H${x(.72)}Q${x(.75)} ${y(.12)} ${x(.76)} ${y(.24)}T${x(.79)} ${y(.5)}T${x(.87)} ${y(.8)}T${w} ${h}Z` })));
}
