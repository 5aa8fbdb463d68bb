// What happens elsewhere: the red dot and notices over server-sent events, and by asking
// now and then where those do not come through.
import { api, session, stream } from './api.js';

const pollEvery = 20000;

/** Calls on.head and on.notices with what is new, until the given function is called. */
export function live(on) {
  let over = false;
  let timer;
  let line = null;
  let connected = false;

  const ask = async () => {
    clearTimeout(timer);
    if (over || !session) return;
    if (!document.hidden) {
      try {
        const [head, notices] = await Promise.all([api('GET', '/timeline/head'), api('GET', '/notices/unread')]);
        if (over) return;
        on.head(head);
        on.notices(notices.unread);
      } catch { /* the bar says that we are offline */ }
    }
    if (!over && !connected) timer = setTimeout(ask, pollEvery);
  };

  const listen = async () => {
    for (let wait = 1000; !over && session; wait = Math.min(2 * wait, 60000)) {
      line = new AbortController();
      try {
        await stream('/events', line.signal, (name, data) => {
          wait = 1000;
          connected = true;
          clearTimeout(timer);
          if (name === 'head') on.head(data);
          if (name === 'notices') on.notices(data.unread);
        });
      } catch { /* asked again below */ }
      if (over) return;
      const had = connected;
      connected = false;
      // A stream ends with its session, too, a little before the page knows: not at once.
      await new Promise((r) => { setTimeout(r, wait); });
      if (had) ask();
    }
  };

  ask();
  listen();
  const back = () => { if (!document.hidden) ask(); };
  document.addEventListener('visibilitychange', back);
  addEventListener('online', back);
  return () => {
    over = true;
    clearTimeout(timer);
    if (line) line.abort();
    document.removeEventListener('visibilitychange', back);
    removeEventListener('online', back);
  };
}
