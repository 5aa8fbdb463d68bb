// One's own side: profile, privacy, tags, sessions, password, and the end of the account.
import { useCallback, useEffect, useState } from './vendor/htm-preact-3.1.1.js';
import { usePhoto } from './album.js';
import { api, keepSession, newKey, session } from './api.js';
import { People } from './compose.js';
import { ago, explain, t } from './i18n.js';
import { learn, person } from './people.js';
import { Ask, Avatar, html, Icon, Modal, say } from './ui.js';

function Page({ title, children }) {
  return html`<section class="me" aria-label=${title}><header class="bar"><a class="round" href="#/me" aria-label=${t.back} data-test="back"><${Icon} name="back" /></a><h1>${title}</h1></header>${children}</section>`;
}

/** Loads something once and says so when it fails. */
function useLoaded(path) {
  const [value, setValue] = useState(null);
  const load = useCallback(() => api('GET', path).then(setValue, (p) => say(explain(p), true)), [path]);
  useEffect(() => { load(); }, [load]);
  return [value, setValue, load];
}

const Waiting = () => html`<div class="foot"><span class="spin" role="status" aria-label=${t.loading}></span></div>`;
const windows = ['all', '6_months', '1_month', '3_days'];

function Privacy() {
  const [set, setSet] = useLoaded('/me/settings');
  const [list, , reload] = useLoaded('/friend-settings?limit=100');
  if (list) learn(...list.items.map((x) => x.user));
  const change = async (part) => {
    const before = set;
    setSet({ ...set, ...part });
    try { setSet(await api('PATCH', '/me/settings', part)); } catch (p) { setSet(before); say(explain(p), true); }
  };
  const clear = async (x) => {
    try {
      if (x.blocked) await api('DELETE', `/blocks/${x.user.id}`);
      if (x.chat_only || x.hide_mine || x.hide_theirs) await api('PATCH', `/friends/${x.user.id}/settings`, { chat_only: false, hide_mine: false, hide_theirs: false });
      reload();
    } catch (p) { say(explain(p), true); }
  };
  const said = (x) => [x.blocked && t.blocked, x.chat_only && t.chatOnly, x.hide_mine && t.hideMine, x.hide_theirs && t.hideTheirs].filter(Boolean).join(' · ');
  return html`<${Page} title=${t.privacy}>
    ${!set && html`<${Waiting} />`}
    ${set && html`<h2>${t.albumWindow}</h2><div class="card choices" role="radiogroup" aria-label=${t.albumWindow}>${windows.map((w) => html`<label class="choice" key=${w}>
      <input type="radio" name="window" checked=${set.album_window === w} onChange=${() => change({ album_window: w })} data-test="window-${w}" /><span class="grow">${t.windows[w]}</span></label>`)}</div>
      <div class="card choices"><label class="choice"><span class="grow"><b>${t.strangers}</b><small>${t.strangersHint}</small></span>
        <input type="checkbox" role="switch" checked=${set.open_to_strangers} onChange=${() => change({ open_to_strangers: !set.open_to_strangers })} data-test="strangers" /></label></div>`}
    ${list && list.items.length > 0 && html`<h2>${t.aboutPeople}</h2><ul class="card">${list.items.map((x) => html`<li class="person" key=${x.user.id}>
      <a href="#/u/${x.user.id}" class="grow who-line"><${Avatar} who=${x.user} size="mid" /><span><b>${x.user.display_name}</b><small>${said(x)}</small></span></a>
      <button type="button" class="plain small" onClick=${() => clear(x)}>${t.clear}</button></li>`)}</ul>`}
  <//>`;
}

function TagEditor({ tag, friends, onClose, onSaved }) {
  const [name, setName] = useState(tag.name);
  const [people, setPeople] = useState(tag.id ? null : []);
  const [had, setHad] = useState([]);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    if (tag.id) api('GET', `/tags/${tag.id}`).then((x) => { setHad(x.user_ids); setPeople(x.user_ids); }, (p) => { say(explain(p), true); onClose(); });
  }, [tag.id]);
  const save = async (e) => {
    e.preventDefault();
    try {
      if (tag.id) {
        await api('PATCH', `/tags/${tag.id}`, { name: name.trim(), add: people.filter((x) => !had.includes(x)), remove: had.filter((x) => !people.includes(x)) });
      } else await api('POST', '/tags', { name: name.trim(), users: people });
      onSaved();
    } catch (p) { setProblem(p); }
  };
  return html`<${Modal} label=${tag.id ? tag.name : t.newTag} onClose=${onClose} full=${true}><form class="composer" onSubmit=${save}>
    <div class="row head"><button type="button" class="plain small" onClick=${onClose}>${t.cancel}</button><h2 class="grow">${tag.id ? tag.name : t.newTag}</h2>
      <button class="primary small" disabled=${!name.trim() || !people} data-test="save-tag">${t.save}</button></div>
    <div class="scroll"><label class="labelled">${t.tagName}<input autofocus maxlength="32" value=${name} onInput=${(e) => setName(e.target.value)} data-test="tag-name" /></label>
      ${problem && html`<p class="error" role="alert">${explain(problem)}</p>`}
      ${people ? html`<${People} friends=${friends} chosen=${people} chosenTags=${[]} onChange=${setPeople} />` : html`<${Waiting} />`}</div>
  </form><//>`;
}

function Tags({ friends }) {
  const [list, , reload] = useLoaded('/tags');
  const [open, setOpen] = useState(null);
  const [asking, setAsking] = useState(null);
  const remove = async () => {
    const tag = asking;
    setAsking(null);
    try { await api('DELETE', `/tags/${tag.id}`); reload(); } catch (p) { say(explain(p), true); }
  };
  return html`<${Page} title=${t.tags}>
    <p class="dim hint">${t.tagsHint}</p>
    ${!list && html`<${Waiting} />`}
    ${list && list.items.length > 0 && html`<ul class="card rows">${list.items.map((tag) => html`<li key=${tag.id} class="tag" data-test="tag">
      <button type="button" class="grow" onClick=${() => setOpen(tag)}><span>${tag.name}</span><span class="dim">${tag.people}</span></button>
      <button type="button" class="bin shown" aria-label=${t.deleteTag(tag.name)} onClick=${() => setAsking(tag)}><${Icon} name="bin" /></button></li>`)}</ul>`}
    <button type="button" class="primary wide" onClick=${() => setOpen({ name: '' })} data-test="new-tag">${t.newTag}</button>
    ${open && html`<${TagEditor} tag=${open} friends=${friends} onClose=${() => setOpen(null)} onSaved=${() => { setOpen(null); reload(); }} />`}
    ${asking && html`<${Ask} title=${t.deleteTag(asking.name)} action=${t.delete} onYes=${remove} onNo=${() => setAsking(null)} />`}
  <//>`;
}

function Sessions() {
  const [list, , reload] = useLoaded('/sessions');
  const end = async (path) => {
    try { await api('DELETE', path); reload(); } catch (p) { say(explain(p), true); }
  };
  return html`<${Page} title=${t.sessions}>
    ${!list && html`<${Waiting} />`}
    ${list && html`<ul class="card">${list.items.map((s) => html`<li class="person" key=${s.id} data-test="session">
      <span class="grow"><b>${s.device || t.unknownDevice}</b><small>${s.current ? t.thisDevice : t.lastUsed(ago(s.last_used_at))}</small></span>
      ${!s.current && html`<button type="button" class="plain small" onClick=${() => end(`/sessions/${s.id}`)}>${t.logOut}</button>`}</li>`)}</ul>
      ${list.items.length > 1 && html`<button type="button" class="danger wide" onClick=${() => end('/sessions?keep=current')} data-test="end-others">${t.endOthers}</button>`}`}
  <//>`;
}

function Password() {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const bad = (field) => (problem && problem.field === field ? 'true' : undefined);
  async function submit(e) {
    e.preventDefault();
    const form = new FormData(e.target);
    setBusy(true);
    setProblem(null);
    try {
      await api('PUT', '/me/password', { old_password: form.get('old'), new_password: form.get('new') }, newKey());
      say(t.passwordChanged);
      location.hash = '#/me';
    } catch (p) { setProblem(p); setBusy(false); }
  }
  return html`<${Page} title=${t.changePassword}><form class="card form" onSubmit=${submit}>
    <input type="text" name="username" autocomplete="username" value=${session.user.name} hidden readonly aria-label=${t.name} />
    <label>${t.oldPassword}<input name="old" type="password" required autocomplete="current-password" aria-invalid=${bad('old_password')} /></label>
    <label>${t.newPassword}<input name="new" type="password" required minlength="8" maxlength="128" autocomplete="new-password" aria-invalid=${bad('new_password')} aria-describedby="pw-hint" /></label>
    <small id="pw-hint">${t.newPasswordHint}</small>
    ${problem && html`<p class="error" role="alert">${explain(problem)}</p>`}
    <button class="primary wide" disabled=${busy} data-test="change-password">${t.save}</button></form><//>`;
}

function Leave({ onGone }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  async function submit(e) {
    e.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await api('POST', '/me/deletion', { password: new FormData(e.target).get('password') });
      onGone();
    } catch (p) { setProblem(p); setBusy(false); }
  }
  return html`<${Page} title=${t.deleteAccount}><form class="card form" onSubmit=${submit}>
    <p>${t.deleteAccountHint}</p>
    <input type="text" name="username" autocomplete="username" value=${session.user.name} hidden readonly aria-label=${t.name} />
    <label>${t.password}<input name="password" type="password" required autocomplete="current-password" /></label>
    ${problem && html`<p class="error" role="alert">${explain(problem)}</p>`}
    <button class="danger wide" disabled=${busy} data-test="delete-account">${t.deleteAccount}</button></form><//>`;
}

function Profile({ onChanged }) {
  const [problem, setProblem] = useState(null);
  const avatar = usePhoto('avatar_media_id', onChanged);
  async function submit(e) {
    e.preventDefault();
    setProblem(null);
    try {
      const user = await api('PATCH', '/me', { display_name: new FormData(e.target).get('display_name').trim() });
      keepSession({ ...session, user });
      learn(user);
      onChanged();
      say(t.saved);
    } catch (p) { setProblem(p); }
  }
  return html`<${Page} title=${t.profile}>
    <div class="card form"><button type="button" class="portrait" onClick=${avatar.open} disabled=${avatar.busy} data-test="change-avatar"><${Avatar} who=${person(session.user.id)} size="big" /><span>${t.changeAvatar}</span></button>${avatar.field}</div>
    <form class="card form" onSubmit=${submit}><label>${t.displayNameOnly}<input name="display_name" required maxlength="64" value=${session.user.display_name} autocomplete="nickname" /></label>
    ${problem && html`<p class="error" role="alert">${explain(problem)}</p>`}
    <button class="primary wide" data-test="save-profile">${t.save}</button></form><//>`;
}

export function Settings({ part, friends, onGone, onChanged }) {
  switch (part) {
    case 'profile': return html`<${Profile} onChanged=${onChanged} />`;
    case 'privacy': return html`<${Privacy} />`;
    case 'tags': return html`<${Tags} friends=${friends} />`;
    case 'sessions': return html`<${Sessions} />`;
    case 'password': return html`<${Password} />`;
    case 'leave': return html`<${Leave} onGone=${onGone} />`;
    default: return null;
  }
}
