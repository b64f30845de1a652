function setUpTheme() {
  const button = document.getElementById('theme');
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  const stored = () => { try { return localStorage.getItem('mtvision-theme'); } catch { return null; } };
  const show = () => {
    const theme = document.documentElement.dataset.theme;
    button.setAttribute('aria-pressed', String(theme ? theme === 'dark' : system.matches));
  };
  if (['light', 'dark'].includes(stored())) document.documentElement.dataset.theme = stored();
  button.addEventListener('click', () => {
    const next = button.getAttribute('aria-pressed') === 'true' ? 'light' : 'dark';
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem('mtvision-theme', next); } catch { /* a page from disk may have no storage */ }
    show();
  });
  system.addEventListener('change', show);
  show();
}

setUpTheme();
setUpTables();
setUpComparison();
document.getElementById('main').addEventListener('click', (event) => {
  const button = event.target.closest('.open');
  if (button) openDrawer(button.closest('tr').dataset.row);
});
applyFilters();
let narrow = window.innerWidth <= 760;
window.addEventListener('resize', () => {
  if (narrow === (window.innerWidth <= 760)) return;
  narrow = !narrow;
  all('.board').forEach(drawScatter);
});
