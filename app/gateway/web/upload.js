// Uploads in parts, which go on where they stopped.
import { api, newKey, Problem, send } from './api.js';
import { sumOf } from './sha256.js';

const kept = 'moments.uploads';

// The key of an upload is kept by what is uploaded, so that after a lost connection or
// a closed page the same file goes on where it stopped, until it was posted.
function keys() {
  try { return JSON.parse(localStorage.getItem(kept)) || {}; } catch { return {}; }
}
function keep(all) {
  try { localStorage.setItem(kept, JSON.stringify(all)); } catch { /* it begins anew next time */ }
}
function keyOf(sum) {
  const all = keys();
  if (!all[sum]) { all[sum] = newKey(); keep(all); }
  return all[sum];
}

/** Forgets an upload: what was posted is another medium when it is posted again. */
export function forgetUpload(sum) {
  const all = keys();
  delete all[sum];
  keep(all);
}

/** Waits until there may be a line again: a while, or the browser says so. */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const done = () => { clearTimeout(timer); removeEventListener('online', done); signal.removeEventListener('abort', stop); resolve(); };
    const stop = () => { done(); reject(signal.reason); };
    const timer = setTimeout(done, ms);
    addEventListener('online', done);
    signal.addEventListener('abort', stop);
  });
}

const passing = (p) => p.type === 'offline' || p.status === 429 || p.status >= 500;

/** Tries until it succeeds, is refused for good, or is given up. */
async function insist(signal, what) {
  for (let wait = 1000; ; wait = Math.min(2 * wait, 15000)) {
    signal.throwIfAborted();
    try {
      return await what();
    } catch (p) {
      if (!(p instanceof Problem) || !passing(p)) throw p;
      await pause(p.retry_after_ms || wait, signal);
    }
  }
}

/** Uploads a photo or a video and gives its description. onProgress gets 0 to 1. */
export async function upload(file, onProgress, signal) {
  const sum = await sumOf(file);
  signal.throwIfAborted();
  const kind = file.type.startsWith('video/') ? 'video' : 'photo';
  const up = await insist(signal, () => api('POST', '/uploads', { kind, size: file.size, sha256: sum }, keyOf(sum)));
  const { missing } = await insist(signal, () => api('GET', `/uploads/${up.id}`));
  const parts = Math.ceil(file.size / up.part_size);
  let sent = parts - missing.length;
  for (const index of missing) {
    const part = file.slice(index * up.part_size, (index + 1) * up.part_size);
    const digest = await sumOf(part);
    await insist(signal, () => send('PUT', `/uploads/${up.id}/parts/${index}`, part, { 'Content-SHA256': digest },
      (share) => onProgress((sent + share) / parts), signal));
    onProgress(++sent / parts);
  }
  try {
    const media = await insist(signal, () => api('POST', `/uploads/${up.id}/complete`));
    return { ...media, sum };
  } catch (p) {
    forgetUpload(sum); // it is refused, and so it would be again
    throw p;
  }
}
