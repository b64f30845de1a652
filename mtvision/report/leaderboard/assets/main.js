function setUpTheme() {
  const button = document.getElementById('theme');
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  const stored = () => { try { return localStorage.getItem('mtvision-theme'); } catch { return null; } };
  const next = () => {
    const theme = document.documentElement.dataset.theme || (system.matches ? 'dark' : 'light');
    return theme === 'dark' ? 'light' : 'dark';
  };
  const show = () => { button.textContent = 'Use ' + next() + ' theme'; };
  if (['light', 'dark'].includes(stored())) document.documentElement.dataset.theme = stored();
  button.addEventListener('click', () => {
    const theme = next();
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem('mtvision-theme', theme); } catch { /* a page from disk may have no storage */ }
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
  fitBoards();
  if (narrow === (window.innerWidth <= 760)) return;
  narrow = !narrow;
  all('.board').forEach(drawScatter);
});
