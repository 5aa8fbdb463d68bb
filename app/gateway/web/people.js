// Names for ids: profiles are fetched once, many at a time.
import { api, session } from './api.js';

/** Everybody met so far, by id. */
export const known = new Map();

export const person = (id) => known.get(id) || { id, name: '', display_name: '…' };

// Links to pictures hold for ten minutes, so what is known of people grows old.
const fresh = new Map();
const freshFor = 8 * 60 * 1000;

export function learn(...profiles) {
  for (const p of profiles) {
    if (known.get(p.id) === p) continue;
    known.set(p.id, p);
    fresh.set(p.id, Date.now());
  }
}

export function forgetPeople() { known.clear(); fresh.clear(); }

/** Fetches those of ids that are not known yet. A name that fails to come is no
 *  reason to show nothing, so it never throws. */
export async function meet(ids) {
  if (session) learn(session.user);
  const missing = [...new Set(ids)].filter((id) => id && !(Date.now() - fresh.get(id) < freshFor));
  for (let i = 0; i < missing.length; i += 100) {
    try {
      const { items } = await api('GET', `/users?ids=${missing.slice(i, i + 100).join(',')}`);
      learn(...items);
    } catch { return; }
  }
}

/** The ids of everybody who is named in posts. */
export function named(posts) {
  const ids = [];
  for (const p of posts) {
    ids.push(p.author_id, ...p.like_ids, ...(p.remind_ids || []));
    for (const c of p.comments) ids.push(c.writer_id, c.reply_to_user_id);
  }
  return ids;
}
