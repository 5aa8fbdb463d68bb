// Sets the theme before the first paint: this file is no module, so that it runs at once.
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    let chosen = null;
    try { chosen = localStorage.getItem('moments.theme'); } catch { /* no storage: follow the system */ }
    const theme = chosen || (dark.matches ? 'dark' : 'light');
    document.documentElement.dataset.theme = theme;
    document.querySelector('meta[name=theme-color]').content = theme === 'dark' ? '#111111' : '#ededed';
  };
  // Who is logged in sees the form of the page before its script has run.
  try { document.documentElement.classList.toggle('in', !!localStorage.getItem('moments.session')); } catch { /* nobody is */ }
  dark.addEventListener('change', apply);
  addEventListener('moments:theme', apply);
  apply();
})();
