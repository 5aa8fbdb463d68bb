// Writing a post: text, photos or a video, whom it is for, whom to remind, where, a link.
import { useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';
import { api, newKey } from './api.js';
import { explain, t } from './i18n.js';
import { person } from './people.js';
import { Avatar, html, Icon, Modal, say } from './ui.js';
import { forgetUpload, upload } from './upload.js';

const maxText = 2000;
const maxPlace = 100;
const maxRemind = 10;
const maxPhotos = 9;
const MB = 1 << 20;

const blank = () => ({ text: '', media: [], location: '', link: null, audience: 'friends', people: [], tags: [], remind: [], key: '' });

/** What is being written stays when the dialog is closed or sending fails. */
let draft = blank();

let running = 0; // names the files of this page

/** The files of a post, each on its way by itself. */
function useFiles() {
  const [, redraw] = useState(0);
  const drawn = useRef(true);
  useEffect(() => { drawn.current = true; return () => { drawn.current = false; }; }, []);
  const tell = () => { if (drawn.current) redraw((n) => n + 1); };

  const begin = (item) => {
    item.stop = new AbortController();
    item.problem = null;
    upload(item.file, (share) => { item.share = share; tell(); }, item.stop.signal).then((m) => {
      item.done = m;
      tell();
    }, (p) => {
      if (item.stop.signal.aborted) return;
      item.problem = p;
      tell();
    });
  };
  const add = (files) => {
    for (const file of files) {
      const video = file.type.startsWith('video/');
      if (draft.media.some((m) => m.video) || (video && draft.media.length > 0)) { say(t.photosOrVideo, true); return; }
      if (draft.media.length >= maxPhotos) { say(t.ninePhotos, true); return; }
      if (file.size > (video ? 200 : 20) * MB) { say(t.tooLarge(file.name, video ? 200 : 20), true); continue; }
      const item = { id: ++running, file, video, preview: URL.createObjectURL(file), share: 0, done: null };
      draft.media = [...draft.media, item];
      draft.key = '';
      begin(item);
    }
    tell();
  };
  const drop = (item) => {
    item.stop.abort();
    URL.revokeObjectURL(item.preview);
    draft.media = draft.media.filter((m) => m !== item);
    draft.key = '';
    tell();
  };
  const move = (item, by) => {
    const i = draft.media.indexOf(item);
    const list = draft.media.filter((m) => m !== item);
    list.splice(Math.max(0, i + by), 0, item);
    draft.media = list;
    tell();
  };
  return { add, drop, move, again: (item) => { begin(item); tell(); } };
}

function Tile({ item, at, of, files }) {
  const percent = Math.round(item.share * 100);
  return html`<div class="tile upload ${item.problem ? 'bad' : ''}" data-test="upload">
    ${item.video ? html`<video src=${item.preview} muted preload="metadata" aria-hidden="true"></video>` : html`<img class="photo here" src=${item.preview} alt=${t.photoOf(at + 1, of)} />`}
    ${!item.done && !item.problem && html`<div class="veil"><progress max="100" value=${percent} aria-label=${t.uploading(item.file.name)}></progress><span>${percent}%</span></div>`}
    ${item.done && html`<span class="sr" data-test="uploaded">${t.uploaded}</span>`}
    ${item.problem && html`<button type="button" class="veil" title=${explain(item.problem)} aria-label="${explain(item.problem)} ${t.retry}" onClick=${() => files.again(item)}><${Icon} name="refresh" /></button>`}
    <button type="button" class="drop" aria-label=${t.removePhoto(at + 1)} onClick=${() => files.drop(item)}><${Icon} name="cross" /></button>
    ${at > 0 && html`<button type="button" class="shift" aria-label=${t.moveForward(at + 1)} onClick=${() => files.move(item, -1)}><${Icon} name="back" /></button>`}
  </div>`;
}

/** A list of people, and tags if given, of which some are chosen. */
export function People({ friends, chosen, tags, chosenTags, onChange, most = Infinity }) {
  const [find, setFind] = useState('');
  const low = find.trim().toLowerCase();
  const shown = friends.filter((f) => !low || f.display_name.toLowerCase().includes(low) || f.name.toLowerCase().includes(low));
  const flip = (list, id) => (list.includes(id) ? list.filter((x) => x !== id) : [...list, id]);
  const full = chosen.length >= most;
  return html`<div class="people">
    ${tags && tags.length > 0 && html`<div class="chips" role="group" aria-label=${t.tags}>${tags.map((tag) => html`<button type="button" key=${tag.id} class="chip"
      aria-pressed=${chosenTags.includes(tag.id)} data-test="chip" onClick=${() => onChange(chosen, flip(chosenTags, tag.id))}>${tag.name} <small>${tag.people}</small></button>`)}</div>`}
    ${friends.length > 8 && html`<input type="search" placeholder=${t.search} aria-label=${t.search} value=${find} onInput=${(e) => setFind(e.target.value)} />`}
    <ul class="checks">${shown.map((f) => html`<li key=${f.id}><label>
      <input type="checkbox" checked=${chosen.includes(f.id)} disabled=${full && !chosen.includes(f.id)} data-test="check"
        onChange=${() => onChange(flip(chosen, f.id), chosenTags)} />
      <${Avatar} who=${f} size="mid" /><span class="grow">${f.display_name}</span></label></li>`)}</ul>
    ${friends.length === 0 && html`<p class="dim pad">${t.noFriends}</p>`}
  </div>`;
}

const audiences = ['friends', 'only_me', 'allow', 'deny'];

function WhoSees({ friends, tags, onDone }) {
  const [, redraw] = useState(0);
  const set = (change) => { Object.assign(draft, change, { key: '' }); redraw((n) => n + 1); };
  const open = draft.audience === 'allow' || draft.audience === 'deny';
  return html`<div class="composer" data-test="who-sees">
    <${Head} title=${t.whoSees} onBack=${onDone} />
    <div class="scroll">
      <div class="choices" role="radiogroup" aria-label=${t.whoSees}>${audiences.map((a) => html`<label key=${a} class="choice">
        <input type="radio" name="audience" value=${a} checked=${draft.audience === a} onChange=${() => set({ audience: a })} data-test="audience-${a}" />
        <span class="grow"><b>${t.audience[a]}</b><small>${t.audienceHint[a]}</small></span></label>`)}</div>
      ${open && html`<${People} friends=${friends} chosen=${draft.people} tags=${tags} chosenTags=${draft.tags} onChange=${(people, chosen) => set({ people, tags: chosen })} />`}
    </div>
  </div>`;
}

function Remind({ friends, onDone }) {
  const [, redraw] = useState(0);
  return html`<div class="composer">
    <${Head} title=${t.remind} onBack=${onDone} />
    <div class="scroll"><${People} friends=${friends} chosen=${draft.remind} most=${maxRemind}
      onChange=${(remind) => { draft.remind = remind; draft.key = ''; redraw((n) => n + 1); }} /></div>
  </div>`;
}

function Head({ title, onBack }) {
  return html`<div class="row head"><button type="button" class="round" aria-label=${t.back} onClick=${onBack} autofocus data-test="done"><${Icon} name="back" /></button>
    <h2 class="grow">${title}</h2><button type="button" class="primary small" onClick=${onBack}>${t.done}</button></div>`;
}

function summary(tags) {
  if (draft.audience === 'friends' || draft.audience === 'only_me') return t.audience[draft.audience];
  const names = [...draft.tags.map((id) => (tags.find((x) => x.id === id) || {}).name), ...draft.people.map((id) => person(id).display_name)].filter(Boolean);
  if (draft.audience === 'allow' && names.length === 0) return t.audience.only_me;
  return `${t.audience[draft.audience]}${names.length ? ` ${names.join(', ')}` : ''}`;
}

/** onPosted gets the post to be shown at once, what becomes of it, and how it looked. */
export function Composer({ friends, onPost, onClose }) {
  const [, redraw] = useState(0);
  const [part, setPart] = useState('');
  const [tags, setTags] = useState([]);
  const files = useFiles();
  const picker = useRef();
  const set = (change) => { Object.assign(draft, change, { key: '' }); redraw((n) => n + 1); };
  useEffect(() => { api('GET', '/tags').then((p) => setTags(p.items), () => {}); }, []);

  const text = draft.text.trim();
  const length = [...text].length;
  const waiting = draft.media.some((m) => !m.done);
  const badLink = draft.link && draft.link.url && !/^https?:\/\/[^\s/]+/i.test(draft.link.url);
  const ok = (length > 0 || draft.media.length > 0 || (draft.link && draft.link.url)) && length <= maxText && !waiting && !badLink;

  function submit(e) {
    e.preventDefault();
    if (!ok) return;
    const sent = draft;
    sent.key = sent.key || newKey(); // the same post sent again is one post
    const body = { text, audience: sent.audience };
    if (sent.media.length) body.media = sent.media.map((m) => m.done.id);
    if (sent.link && sent.link.url) body.link = { url: sent.link.url.trim(), title: sent.link.title.trim() };
    if (sent.location.trim()) body.location = sent.location.trim();
    if (sent.remind.length) body.remind = sent.remind;
    if (sent.audience === 'allow') { body.allow_users = sent.people; body.allow_tags = sent.tags; }
    if (sent.audience === 'deny') { body.deny_users = sent.people; body.deny_tags = sent.tags; }
    draft = blank();
    onPost({
      body, key: sent.key,
      media: sent.media.map((m) => ({ ...m.done, content_type: m.video ? 'video/mp4' : 'image/jpeg', urls: { thumbnail: m.preview, feed: m.preview, full: m.preview } })),
      onDone: () => sent.media.forEach((m) => forgetUpload(m.done.sum)),
      onFailed: () => { if (!draft.text && draft.media.length === 0) draft = sent; },
    });
  }

  const row = (icon, label, value, to, testName) => html`<button type="button" class="option" onClick=${() => setPart(to)} data-test=${testName}>
    <${Icon} name=${icon} /><span>${label}</span><span class="value">${value}</span><${Icon} name="back" /></button>`;

  return html`<${Modal} label=${t.newPost} onClose=${part ? () => setPart('') : onClose} full=${true}>
    ${part === 'who' && html`<${WhoSees} friends=${friends} tags=${tags} onDone=${() => setPart('')} />`}
    ${part === 'remind' && html`<${Remind} friends=${friends} onDone=${() => setPart('')} />`}
    ${part === '' && html`<form class="composer" onSubmit=${submit}
      onPaste=${(e) => { if (e.clipboardData.files.length) { e.preventDefault(); files.add(e.clipboardData.files); } }}
      onDragOver=${(e) => e.preventDefault()} onDrop=${(e) => { e.preventDefault(); files.add(e.dataTransfer.files); }}>
      <div class="row head">
        <button type="button" class="plain small" onClick=${onClose}>${t.cancel}</button>
        <h2 class="grow">${t.newPost}</h2>
        <button class="primary small" disabled=${!ok} data-test="publish">${t.post}</button>
      </div>
      <div class="scroll">
        <textarea autofocus rows="5" placeholder=${t.placeholder} aria-label=${t.placeholder} value=${draft.text} data-test="text"
          onInput=${(e) => set({ text: e.target.value })}
          onKeyDown=${(e) => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) submit(e); }}></textarea>
        ${length > maxText - 200 && html`<p class=${length <= maxText ? 'dim' : 'error'} role="status">${length <= maxText ? t.left(maxText - length) : t.over(length - maxText)}</p>`}
        <div class="grid picks">
          ${draft.media.map((m, i) => html`<${Tile} key=${m.id} item=${m} at=${i} of=${draft.media.length} files=${files} />`)}
          ${draft.media.length < maxPhotos && !draft.media.some((m) => m.video) && html`<button type="button" class="tile add" aria-label=${t.addPhotos} onClick=${() => picker.current.click()}><${Icon} name="plus" /></button>`}
        </div>
        <input ref=${picker} type="file" hidden multiple accept="image/jpeg,image/png,image/webp,image/gif,video/mp4" aria-label=${t.addPhotos} data-test="files"
          onChange=${(e) => { files.add([...e.target.files]); e.target.value = ''; }} />
        <div class="options">
          <label class="option"><${Icon} name="pin" /><span>${t.place}</span><input value=${draft.location} maxlength=${maxPlace} placeholder=${t.placeHint} data-test="place" onInput=${(e) => set({ location: e.target.value })} /></label>
          ${row('people', t.whoSees, summary(tags), 'who', 'visibility')}
          ${row('at', t.remind, draft.remind.map((id) => person(id).display_name).join(', '), 'remind', 'remind')}
          <label class="option"><${Icon} name="link" /><span>${t.link}</span><input type="url" inputmode="url" value=${draft.link ? draft.link.url : ''} placeholder="https://" aria-invalid=${badLink ? 'true' : undefined} data-test="link"
            onInput=${(e) => set({ link: { title: '', ...draft.link, url: e.target.value } })} /></label>
          ${draft.link && draft.link.url && html`<label class="option"><span class="icon"></span><span>${t.linkTitle}</span><input value=${draft.link.title} maxlength="100" onInput=${(e) => set({ link: { ...draft.link, title: e.target.value } })} /></label>`}
        </div>
      </div>
    </form>`}
  <//>`;
}
