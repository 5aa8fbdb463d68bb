// SPDX-License-Identifier: Apache-2.0
// Asking the console.
import { useEffect, useRef, useState } from './lib.js';
import { t } from './i18n.js';

export async function ask(path, params = {}, signal) {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(params)) if (v !== '' && v != null && v !== false) q.set(k, v === true ? '1' : v);
  let res, body;
  try {
    res = await fetch(`/api/${path}?${q}`, { signal, headers: { Accept: 'application/json' } });
    body = await res.json();
  } catch (e) {
    if (e.name === 'AbortError') throw e; // nobody waits any more
    throw Object.assign(new Error(t.offline), { status: 0 });
  }
  if (!res.ok) throw Object.assign(new Error(body.error || `${res.status}`), { status: res.status });
  return body;
}

// useAsk asks now, whenever the question changes, and, while live, every few seconds.
// What was answered before stays until there is something newer.
export function useAsk(path, params, { live = false, every = 10, skip = false } = {}) {
  const key = skip ? '' : `${path}?${JSON.stringify(params)}`;
  const [state, set] = useState({ key: '', data: null, error: null, at: 0 });
  const [again, retry] = useState(0);
  const waiting = useRef(false);
  useEffect(() => {
    if (skip) return undefined;
    const abort = new AbortController();
    let timer;
    const run = async () => {
      waiting.current = true;
      try {
        const data = await ask(path, params, abort.signal);
        set({ key, data, error: null, at: Date.now() / 1000 });
      } catch (error) {
        if (error.name === 'AbortError') return;
        set((s) => (s.key === key ? { ...s, error } : { key, data: null, error, at: 0 }));
      }
      waiting.current = false;
      if (live) timer = setTimeout(run, (document.hidden ? 6 : 1) * every * 1000);
    };
    run();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [key, live, every, again]);
  const current = state.key === key;
  return { data: state.data, fresh: current, error: current ? state.error : null, at: state.at, loading: !current, retry: () => retry((n) => n + 1) };
}
