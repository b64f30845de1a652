const filters = {
  text: document.getElementById('filter-text'),
  protocol: document.getElementById('filter-protocol'),
  backbone: document.getElementById('filter-backbone'),
  unverified: document.getElementById('filter-unverified'),
};

function passes(row, provenances, words) {
  const data = row.dataset;
  return provenances.has(data.provenance)
    && (data.verified === '1' || (filters.unverified !== null && filters.unverified.checked))
    && (filters.backbone.value === '' || filters.backbone.value === data.backbone)
    && words.every((word) => data.search.includes(word));
}

function applyFilters() {
  const provenances = new Set(all('input[name="provenance"]:checked').map((box) => box.value));
  const words = filters.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  let seen = false;
  let total = 0;
  for (const board of all('.board')) {
    board.hidden = filters.protocol.value !== '' && filters.protocol.value !== board.dataset.protocol;
    board.classList.toggle('follows', !board.hidden && seen);
    seen = seen || !board.hidden;
    let here = 0;
    for (const row of all('tr[data-row]', board)) {
      row.hidden = !passes(row, provenances, words);
      here += row.hidden ? 0 : 1;
      total += 1;
    }
    for (const body of all('tbody.rows', board)) body.hidden = all('tr[data-row]:not([hidden])', body).length === 0;
    board.querySelector('.none').hidden = here > 0;
    board.querySelector('.scroll').hidden = here === 0;
    shown += board.hidden ? 0 : here;
    drawScatter(board);
  }
  fitBoards();
  document.getElementById('count').textContent = shown === total
    ? 'All ' + total + ' rows' : shown + ' of ' + total + ' rows';
}

/* A table that is wider than its place gets narrower cells; if that is not enough, it becomes a list of cards. */
function fitBoards() {
  for (const board of all('.board:not([hidden])')) {
    board.classList.remove('tight', 'cards');
    const place = board.querySelector('.scroll');
    const wide = () => place.scrollWidth > place.clientWidth;
    if (window.innerWidth > 760 && !wide()) continue;
    board.classList.add('tight');
    board.classList.toggle('cards', window.innerWidth <= 760 || wide());
  }
}

/* Rows without a value stay last in both directions; rows with equal values keep their order. */
function sortBoard(board, index, descending) {
  const head = all('thead th[data-key]', board)[index];
  const numeric = head.dataset.numeric === '1';
  for (const body of all('tbody.rows', board)) {
    const keyed = all('tr[data-row]', body).map((row) => {
      const cell = row.children[index + 1];
      const text = cell.textContent.trim();
      const value = numeric ? (cell.dataset.value ? Number(cell.dataset.value) : null) : (text || null);
      return { row: row, value: value };
    });
    keyed.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
      const order = numeric ? a.value - b.value : a.value.localeCompare(b.value, 'en', { sensitivity: 'base' });
      return descending ? -order : order;
    });
    body.append(...keyed.map((item) => item.row));
  }
  for (const other of all('thead th[data-key]', board)) other.setAttribute('aria-sort', 'none');
  head.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
  board.querySelector('[data-sorter]').value = String(index);
}

function bestFirst(head) { return head.dataset.direction === 'up'; }

function setUpTables() {
  for (const board of all('.board')) {
    const order = all('tbody.rows', board).map((body) => [body, all('tr[data-row]', body)]);
    const heads = all('thead th[data-key]', board);
    heads.forEach((head, index) => {
      head.querySelector('.sort').addEventListener('click', () => {
        const state = head.getAttribute('aria-sort');
        sortBoard(board, index, state === 'none' ? bestFirst(head) : state === 'ascending');
      });
    });
    board.querySelector('[data-sorter]').addEventListener('change', (event) => {
      if (event.target.value !== '') {
        sortBoard(board, Number(event.target.value), bestFirst(heads[Number(event.target.value)]));
        return;
      }
      for (const [body, rows] of order) body.append(...rows);
      for (const head of heads) head.setAttribute('aria-sort', 'none');
    });
  }
  document.getElementById('filters').addEventListener('submit', (event) => event.preventDefault());
  for (const kind of ['input', 'change']) document.getElementById('filters').addEventListener(kind, applyFilters);
}
