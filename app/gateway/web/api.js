// The API of /openapi.yaml: one function, one kind of error.

const kept = 'moments.session';

/** The session of this browser: {token, user}, or null. */
export let session = read();

function read() {
  try {
    const s = JSON.parse(localStorage.getItem(kept));
    if (s) { delete s.user.avatar_url; delete s.user.cover_url; } // they hold for ten minutes only
    return s;
  } catch { return null; }
}

export function keepSession(s) {
  session = s;
  document.documentElement.classList.toggle('in', !!s);
  try {
    if (s) localStorage.setItem(kept, JSON.stringify(s));
    else localStorage.removeItem(kept);
  } catch { /* no storage: the session lives as long as the page */ }
}

/** What went wrong: a problem document, or type "offline" when nothing answered. */
export class Problem extends Error {
  constructor(doc) {
    super(doc.detail || doc.title || doc.type);
    Object.assign(this, doc);
  }
}

/** A key that makes a write happen once, however often it is sent. */
export function newKey() {
  const b = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(b, (x) => x.toString(16).padStart(2, '0')).join('');
}

let sessionToken = ''; // Moments-Session: opaque, goes back as it came

const wentThrough = (yes) => dispatchEvent(new CustomEvent('moments:net', { detail: yes }));

function ended(doc) {
  if (doc.status !== 401 || !session || doc.type !== 'unauthenticated') return;
  keepSession(null);
  dispatchEvent(new Event('moments:session'));
}

/** Sends bytes and tells how far it is; fetch cannot. */
export function send(method, path, blob, headers, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const x = new XMLHttpRequest();
    const stop = () => x.abort();
    x.open(method, path);
    if (session) x.setRequestHeader('Authorization', `Bearer ${session.token}`);
    x.setRequestHeader('Content-Type', 'application/octet-stream');
    for (const [name, value] of Object.entries(headers)) x.setRequestHeader(name, value);
    x.timeout = 120000;
    x.upload.onprogress = (e) => { if (e.lengthComputable) onProgress(e.loaded / e.total); };
    x.onload = () => {
      wentThrough(true);
      if (x.status < 300) return resolve();
      let doc;
      try { doc = JSON.parse(x.responseText); } catch { doc = { type: 'internal', status: x.status }; }
      ended(doc);
      return reject(new Problem(doc));
    };
    x.onerror = x.ontimeout = () => { wentThrough(false); reject(new Problem({ type: 'offline' })); };
    x.onabort = () => reject(signal.reason);
    x.onloadend = () => signal.removeEventListener('abort', stop);
    signal.addEventListener('abort', stop);
    x.send(blob);
  });
}

/** Reads server-sent events until the line ends. An EventSource sends no header, and a
 *  token does not belong into an address. */
export async function stream(path, signal, onEvent) {
  const res = await fetch(path, {
    headers: { Accept: 'text/event-stream', Authorization: `Bearer ${session.token}` }, cache: 'no-store', credentials: 'omit', signal,
  });
  if (!res.ok) throw new Problem({ type: 'internal', status: res.status });
  const lines = res.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ''; ;) {
    const { value, done } = await lines.read();
    if (done) return;
    const events = (rest + value).split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const e of events) {
      let name = 'message';
      let data = '';
      for (const line of e.split(/\r?\n/)) {
        if (line.startsWith('event:')) name = line.slice(6).trim();
        if (line.startsWith('data:')) data += line.slice(5);
      }
      if (data) onEvent(name, JSON.parse(data));
    }
  }
}

function takeFirst(path) {
  const first = window.momentsFirst;
  window.momentsFirst = null;
  return first && first.path === path && session && first.token === session.token ? first : null;
}

function take(got) {
  sessionToken = got.session || sessionToken;
  return got;
}

/** What first.js has asked for before this file was here: {page, people}, once. */
export async function early(path) {
  const first = takeFirst(path);
  try {
    return first && take(await first.answer);
  } catch { return null; }
}

/** As early, if it has come already. */
export function arrived(path) {
  if (!window.momentsFirst || !window.momentsFirst.got) return null;
  const first = takeFirst(path);
  return first && take(first.got);
}

export async function api(method, path, body, key) {
  const headers = {};
  if (session) headers.Authorization = `Bearer ${session.token}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (method !== 'GET') headers['Idempotency-Key'] = key || newKey();
  if (sessionToken) headers['Moments-Session'] = sessionToken;
  let res;
  try {
    res = await fetch(path, {
      method, headers, cache: 'no-store', credentials: 'omit',
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(15000),
    });
  } catch {
    wentThrough(false);
    throw new Problem({ type: 'offline' });
  }
  wentThrough(true);
  sessionToken = res.headers.get('Moments-Session') || sessionToken;
  if (res.status === 204) return null;
  let doc;
  try { doc = await res.json(); } catch { doc = { type: 'internal', status: res.status }; }
  if (res.ok) return doc;
  ended({ ...doc, status: res.status });
  throw new Problem(doc);
}
