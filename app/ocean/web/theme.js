// Sets the theme before the first paint: this file is no module, so that it runs at once.
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    let chosen = null;
    try { chosen = localStorage.getItem('ocean.theme'); } catch { /* no storage: follow the system */ }
    document.documentElement.dataset.theme = chosen || (dark.matches ? 'dark' : 'light');
  };
  dark.addEventListener('change', apply);
  addEventListener('ocean:theme', apply);
  apply();
})();
