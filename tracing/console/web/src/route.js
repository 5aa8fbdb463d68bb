// SPDX-License-Identifier: Apache-2.0
// Where we are stands in the address after '#': what is seen can be sent to somebody.

export function parse() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  return { page: path || 'entries', q: Object.fromEntries(new URLSearchParams(query || '')) };
}
export function link(page, q = {}) {
  const kept = new URLSearchParams();
  for (const [k, v] of Object.entries(q)) if (v !== '' && v != null && v !== false) kept.set(k, v === true ? '1' : String(v));
  const text = kept.toString();
  return `#/${page}${text ? '?' + text : ''}`;
}
