// Somebody's album: by day under its month, as a book of pictures.
import { useCallback, useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { api, keepSession, session } from './api.js';
import { Cover, usePosts } from './feed.js';
import { explain, lang, t } from './i18n.js';
import { learn, meet, person } from './people.js';
import { isVideo } from './media.js';
import { html, Icon, Modal, say } from './ui.js';
import { forgetUpload, upload } from './upload.js';

const month = (iso) => new Date(iso).toLocaleDateString(lang, { year: 'numeric', month: 'long' });
// The reader's own days, as they are written beside the posts.
const dayKey = (iso) => { const d = new Date(iso); return `${d.getFullYear()}-${d.getMonth()}-${d.getDate()}`; };
const monthKey = (iso) => dayKey(iso).replace(/-\d+$/, '');

/** Takes a photo for a place of one's own profile. */
export function usePhoto(member, onDone) {
  const input = useRef();
  const [busy, setBusy] = useState(false);
  const take = async (e) => {
    const file = e.target.files[0];
    e.target.value = '';
    if (!file) return;
    setBusy(true);
    try {
      const m = await upload(file, () => {}, new AbortController().signal);
      const user = await api('PATCH', '/me', { [member]: m.id });
      forgetUpload(m.sum);
      keepSession({ ...session, user });
      learn(user);
      onDone(user);
    } catch (p) {
      say(explain(p), true);
    }
    setBusy(false);
  };
  const field = html`<input ref=${input} type="file" hidden accept="image/jpeg,image/png,image/webp" aria-label=${t.choosePhoto} onChange=${take} data-test=${member} />`;
  return { field, busy, open: () => input.current.click() };
}

/** What one may set about somebody. */
function About({ who, isFriend, onUnfriend, onClose, onChanged }) {
  const [set, setSet] = useState(null);
  useEffect(() => { api('GET', `/friends/${who.id}/settings`).then(setSet, (p) => { say(explain(p), true); onClose(); }); }, [who.id]);
  const flip = async (member) => {
    const before = set;
    setSet({ ...set, [member]: !set[member] });
    try {
      setSet(await api('PATCH', `/friends/${who.id}/settings`, { [member]: !before[member] }));
      onChanged();
    } catch (p) {
      setSet(before);
      say(explain(p), true);
    }
  };
  const block = async () => {
    try {
      await api(set.blocked ? 'DELETE' : 'PUT', `/blocks/${who.id}`);
      setSet({ ...set, blocked: !set.blocked });
      onChanged();
    } catch (p) { say(explain(p), true); }
  };
  const row = (member, label, hint) => html`<label class="choice"><span class="grow"><b>${label}</b><small>${hint}</small></span>
    <input type="checkbox" role="switch" checked=${set[member]} onChange=${() => flip(member)} data-test=${member} /></label>`;
  return html`<${Modal} label=${t.aboutFriend(who.display_name)} onClose=${onClose}>
    <div class="sheet"><div class="row head"><h2 class="grow">${who.display_name}</h2><button type="button" class="round" aria-label=${t.close} onClick=${onClose} data-test="close-about"><${Icon} name="cross" /></button></div>
      ${!set && html`<div class="foot"><span class="spin" role="status" aria-label=${t.loading}></span></div>`}
      ${set && html`<div class="choices">
        ${row('hide_mine', t.hideMine, t.hideMineHint)}${row('hide_theirs', t.hideTheirs, t.hideTheirsHint)}${row('chat_only', t.chatOnly, t.chatOnlyHint)}</div>
        <div class="rows">
          ${isFriend && html`<button type="button" class="leave" onClick=${onUnfriend} data-test="unfriend">${t.unfriend}</button>`}
          <button type="button" class="leave" onClick=${block} data-test="block">${set.blocked ? t.unblock : t.block}</button></div>`}
    </div><//>`;
}

function Day({ post, first }) {
  const at = new Date(post.created_at);
  const pictures = (post.media || []).filter((m) => !isVideo(m));
  const video = (post.media || []).find(isVideo);
  const names = { day: at.getDate(), month: at.toLocaleDateString(lang, { month: 'short' }) };
  return html`<li class="day" data-test="day"><div class="date" aria-hidden="true">${first && html`<b>${names.day}</b><small>${names.month}</small>`}</div>
    <a href="#/p/${post.id}" class="entry"><time class="sr" datetime=${post.created_at}>${at.toLocaleDateString(lang)}</time>
      ${pictures.length > 0 && html`<span class="mini n${Math.min(4, pictures.length)}">${pictures.slice(0, 4).map((m) => html`<img key=${m.id} src=${(m.urls || {}).thumbnail} alt="" loading="lazy" decoding="async" />`)}</span>`}
      ${video && html`<span class="mini film"><${Icon} name="play" /></span>`}
      <span class="grow ${pictures.length || video ? '' : 'alone'}"><span class="words">${post.text || (post.link && post.link.title) || ''}</span>
        ${pictures.length > 1 && html`<small>${t.photos(pictures.length)}</small>`}
        ${post.audience && post.audience !== 'friends' && html`<small>${t.audience[post.audience]}</small>`}</span>
    </a></li>`;
}

export function Album({ id, isFriend, onUnfriend, onChanged }) {
  const [only, setOnly] = useState(''); // one month alone
  const list = usePosts(`/users/${id}/album${only && `?month=${only}`}`);
  const [who, setWho] = useState(person(id));
  const [about, setAbout] = useState(false);
  const mine = id === session.user.id;
  const cover = usePhoto('cover_media_id', setWho);
  const end = useRef();
  const picker = useRef();
  const more = list.state === 'more';
  useEffect(() => { meet([id]).then(() => setWho(person(id))); }, [id]);
  useEffect(() => { list.load(true); }, [list.load]);
  useEffect(() => {
    if (!more) return undefined;
    const seen = new IntersectionObserver((e) => e.some((x) => x.isIntersecting) && list.load(false), { rootMargin: '600px' });
    seen.observe(end.current);
    return () => seen.disconnect();
  }, [more, list.items.length, list.load]);
  const close = useCallback(() => setAbout(false), []);

  const months = [];
  for (const post of list.items) {
    const key = monthKey(post.created_at);
    if (months.length === 0 || months[months.length - 1].key !== key) months.push({ key, posts: [] });
    months[months.length - 1].posts.push(post);
  }
  return html`<section class="feed album" aria-label=${who.display_name}>
    <${Cover} who=${who}><div class="tools"><a class="round" href="#/" aria-label=${t.back} title=${t.back}><${Icon} name="back" /></a>
      ${mine && html`<button type="button" class="round" aria-label=${t.changeCover} title=${t.changeCover} disabled=${cover.busy} onClick=${cover.open} data-test="change-cover"><${Icon} name="camera" /></button>${cover.field}`}
      ${!mine && html`<button type="button" class="round" aria-label=${t.aboutFriend(who.display_name)} onClick=${() => setAbout(true)} data-test="about"><span class="three"><i></i><i></i><i></i></span></button>`}
    </div><//>
    <div class="months">
      ${only && html`<button type="button" class="link" onClick=${() => setOnly('')}>${t.allMonths}</button>`}
      <button type="button" class="chip" onClick=${() => picker.current.showPicker()} data-test="pick-month">${only ? month(`${only}-15`) : t.month}</button>
      <input ref=${picker} type="month" tabindex="-1" value=${only} max=${new Date().toISOString().slice(0, 7)} aria-label=${t.month} data-test="month" onChange=${(e) => setOnly(e.target.value)} /></div>
    ${months.map((m) => html`<section key=${m.key} class="amonth"><h2>${month(m.posts[0].created_at)}</h2>
      <ol>${m.posts.map((p, i) => html`<${Day} key=${p.id} post=${p} first=${i === 0 || dayKey(p.created_at) !== dayKey(m.posts[i - 1].created_at)} />`)}</ol></section>`)}
    <div class="foot" ref=${end}>
      ${list.state === 'loading' && html`<span class="spin" role="status" aria-label=${t.loading}></span>`}
      ${list.state === 'end' && list.items.length === 0 && html`<div class="empty"><${Icon} name="aperture" /><p>${t.emptyAlbum}</p></div>`}
      ${list.state === 'end' && list.items.length > 0 && html`<span class="dim">${t.end}</span>`}
      ${list.state === 'failed' && html`<p class="error" role="alert">${explain(list.problem)}</p><button type="button" class="plain" onClick=${() => list.load(true)}>${t.retry}</button>`}
    </div>
    ${about && html`<${About} who=${who} isFriend=${isFriend} onUnfriend=${onUnfriend} onClose=${close} onChanged=${onChanged} />`}
  </section>`;
}
