// Asks for the first page of the timeline, and for who is on it, while the rest of the
// page is still on its way. This file is no module, and stands before the style sheet, so
// that it waits for nothing; and it is not async, so that it never runs after the modules,
// which would ask a second time.
(() => {
  let session = null;
  try { session = JSON.parse(localStorage.getItem('moments.session')); } catch { /* nobody is logged in */ }
  if (!session || !/^(#\/?)?$/.test(location.hash)) return;
  const get = async (path) => {
    const res = await fetch(path, { headers: { Authorization: `Bearer ${session.token}` }, cache: 'no-store', credentials: 'omit' });
    if (!res.ok) throw new Error(res.status);
    return { doc: await res.json(), session: res.headers.get('Moments-Session') };
  };
  const path = '/timeline?limit=10';
  const ask = async () => {
    const first = await get(path);
    const ids = new Set();
    for (const p of first.doc.items) {
      for (const id of [p.author_id, ...p.like_ids, ...(p.remind_ids || []), ...p.comments.flatMap((c) => [c.writer_id, c.reply_to_user_id])]) if (id) ids.add(id);
    }
    ids.delete(session.user.id);
    const people = ids.size > 0 ? (await get(`/users?ids=${[...ids].slice(0, 100).join(',')}`)).doc.items : [];
    return { page: first.doc, session: first.session, people };
  };
  const first = { path, token: session.token, answer: ask(), got: null };
  first.answer.then((got) => { first.got = got; }, () => {}); // it is asked again, and then it is told
  window.momentsFirst = first;
})();
