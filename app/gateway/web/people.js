// Names for ids: profiles are fetched once, many at a time.
import { api, session } from './api.js';

const known = new Map();

export const person = (id) => known.get(id) || { id, name: '', display_name: '…' };

export function learn(...profiles) {
  for (const p of profiles) known.set(p.id, p);
}

export function forgetPeople() { known.clear(); }

/** Fetches those of ids that are not known yet. A name that fails to come is no
 *  reason to show nothing, so it never throws. */
export async function meet(ids) {
  if (session) learn(session.user);
  const missing = [...new Set(ids)].filter((id) => id && !known.has(id));
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
    ids.push(p.author_id, ...p.like_ids);
    for (const c of p.comments) ids.push(c.writer_id, c.reply_to_user_id);
  }
  return ids;
}
