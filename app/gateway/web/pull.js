// Pulling the list down at its top refreshes it.
import { useEffect, useRef, useState } from './vendor/htm-preact-3.1.1.js';

const enough = 70; // px, after the resistance

export function usePull(refresh, active) {
  const [pulled, setPulled] = useState(0);
  const [busy, setBusy] = useState(false);
  const now = useRef({});
  now.current = { refresh, busy, pulled, active };
  useEffect(() => {
    let from = -1;
    const start = (e) => { from = now.current.active && scrollY <= 0 && !now.current.busy && !document.querySelector('dialog[open]') ? e.touches[0].clientY : -1; };
    const move = (e) => {
      if (from < 0) return;
      const by = e.touches[0].clientY - from;
      if (scrollY > 0 || by <= 0) { setPulled(0); return; }
      if (e.cancelable && by > 6) e.preventDefault(); // the browser would reload the page
      setPulled(Math.min(110, by * 0.45));
    };
    const end = async () => {
      if (from < 0) return;
      from = -1;
      if (now.current.pulled < enough) { setPulled(0); return; }
      setBusy(true);
      setPulled(enough - 10);
      await now.current.refresh();
      setBusy(false);
      setPulled(0);
    };
    addEventListener('touchstart', start, { passive: true });
    addEventListener('touchmove', move, { passive: false });
    addEventListener('touchend', end);
    addEventListener('touchcancel', end);
    return () => {
      removeEventListener('touchstart', start);
      removeEventListener('touchmove', move);
      removeEventListener('touchend', end);
      removeEventListener('touchcancel', end);
    };
  }, []);
  return { pulled, busy };
}
