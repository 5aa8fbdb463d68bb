// The API of /openapi.yaml: one function, one kind of error.

const kept = 'moments.session';

/** The session of this browser: {token, user}, or null. */
export let session = read();

function read() {
  try { return JSON.parse(localStorage.getItem(kept)); } catch { return null; }
}

export function keepSession(s) {
  session = s;
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
    dispatchEvent(new CustomEvent('moments:net', { detail: false }));
    throw new Problem({ type: 'offline' });
  }
  dispatchEvent(new CustomEvent('moments:net', { detail: true }));
  sessionToken = res.headers.get('Moments-Session') || sessionToken;
  if (res.status === 204) return null;
  let doc;
  try { doc = await res.json(); } catch { doc = { type: 'internal', status: res.status }; }
  if (res.ok) return doc;
  if (res.status === 401 && session && doc.type === 'unauthenticated') {
    keepSession(null);
    dispatchEvent(new Event('moments:session'));
  }
  throw new Problem(doc);
}
