// Register and log in.
import { useState } from './vendor/htm-preact-3.1.1.js';
import { api, keepSession, newKey } from './api.js';
import { explain, t } from './i18n.js';
import { html, icon } from './ui.js';

export function Auth({ notice, onDone }) {
  const [making, setMaking] = useState(false);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);

  async function submit(e) {
    e.preventDefault();
    const form = new FormData(e.target);
    const name = form.get('name').trim();
    const password = form.get('password');
    setBusy(true);
    setProblem(null);
    try {
      if (making) {
        await api('POST', '/accounts', { name, password, display_name: form.get('display_name').trim() }, newKey());
      }
      const s = await api('POST', '/sessions', { name, password });
      keepSession({ token: s.token, user: s.user });
      onDone();
    } catch (p) {
      setProblem(p);
      setBusy(false);
    }
  }

  const bad = (field) => (problem && problem.field === field ? 'true' : undefined);
  return html`<main class="auth">
    <form onSubmit=${submit} aria-labelledby="auth-title">
      <img src=${icon} width="72" height="72" alt="" />
      <h1 id="auth-title">${t.app}</h1>
      <p class="dim">${t.tagline}</p>
      ${notice && !problem && html`<p class="hint" role="status">${notice}</p>`}
      <label>${t.name}
        <input name="name" required minlength="2" maxlength="32" autocomplete="username" autocapitalize="none" spellcheck="false"
          aria-invalid=${bad('name')} aria-describedby=${making ? 'name-hint' : undefined} />
      </label>
      ${making && html`<small id="name-hint">${t.nameHint}</small>`}
      <label>${t.password}
        <input name="password" type="password" required minlength=${making ? 8 : 1} maxlength="128"
          autocomplete=${making ? 'new-password' : 'current-password'} aria-invalid=${bad('password')}
          aria-describedby=${making ? 'password-hint' : undefined} />
      </label>
      ${making && html`<small id="password-hint">${t.passwordHint}</small>
      <label>${t.displayName}<input name="display_name" maxlength="64" autocomplete="nickname" /></label>`}
      ${problem && html`<p class="error" role="alert">${explain(problem)}</p>`}
      <button class="primary wide" disabled=${busy} data-test="submit">${busy ? t.loading : making ? t.register : t.logIn}</button>
      <button type="button" class="link" data-test="switch" onClick=${() => { setMaking(!making); setProblem(null); }}>
        ${making ? t.haveAccount : t.noAccount}
      </button>
    </form>
  </main>`;
}
