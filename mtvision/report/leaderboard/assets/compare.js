let picked = [];

function updateTray() {
  for (const box of all('.compare')) {
    box.checked = picked.includes(box.value);
    box.closest('tr').classList.toggle('picked', box.checked);
  }
  const names = picked.map((id) => DATA.rows[id].method);
  const apart = picked.length === 2 ? whyApart(DATA.rows[picked[0]], DATA.rows[picked[1]]) : '';
  document.getElementById('tray').hidden = picked.length === 0;
  document.getElementById('tray-open').disabled = picked.length !== 2 || apart !== '';
  document.getElementById('tray-text').textContent = apart ? apart
    : picked.length === 2 ? names[0] + ' and ' + names[1] : picked.length ? names[0] + '. Choose a second row.' : '';
}
function whyApart(left, right) {
  if (left.protocol !== right.protocol) return 'These rows follow different protocols; their numbers do not compare.';
  if (left.group !== right.group) return 'These rows do not compare. ' + left.group + ' against ' + right.group + '.';
  return '';
}
function setUpComparison() {
  document.getElementById('main').addEventListener('change', (event) => {
    if (!event.target.matches('.compare')) return;
    const id = event.target.value;
    picked = event.target.checked ? [...picked, id].slice(-2) : picked.filter((other) => other !== id);
    updateTray();
  });
  document.getElementById('tray-clear').addEventListener('click', () => { picked = []; updateTray(); document.getElementById('main').focus(); });
  document.getElementById('tray-open').addEventListener('click', () => openComparison(picked[0], picked[1]));
  updateTray();
}

function headlines(detail) {
  return new Map(detail.scores.filter((score) => score.headline).map((score) => [score.task + ' ' + score.title, score]));
}
function differencePart(left, right) {
  const others = headlines(right);
  const rows = [];
  for (const [name, a] of headlines(left)) {
    const b = others.get(name);
    let change = '';
    if (b && a.evaluator !== b.evaluator) change = 'other evaluator';
    else if (b && a.value !== null && b.value !== null) {
      const value = (b.value - a.value) * a.factor;
      const better = a.higher === null ? null : (value > 0) === a.higher;
      change = el('span', { class: value === 0 || better === null ? null : better ? 'good' : 'bad' },
        signed(value, a.digits) + (value === 0 || better === null ? '' : better ? ' better' : ' worse'));
    }
    const text = (score) => (score ? score.text + (score.spread ? ' ± ' + score.spread : '') : '');
    rows.push({ cells: [name + arrow(a.higher), text(a), text(b), change] });
  }
  return [el('h3', {}, 'Headline scores'),
    grid(['Score', left.method, right.method, 'Second minus first'], rows, [1, 2, 3]),
    el('p', { class: 'hint' }, 'A difference of means. Whether seeds explain it: mtvision table --against.')];
}

function picturesOf(detail) {
  const run = detail.seeds.find((item) => item.pictures.length);
  return new Map(run ? run.pictures : []);
}
function slider(left, right) {
  const a = picturesOf(left);
  const b = picturesOf(right);
  const common = [...a.keys()].filter((name) => b.has(name));
  if (!common.length) {
    const why = a.size && b.size ? 'The two runs wrote no picture of the same image.'
      : 'There are no pictures of both rows in this page. Build it with --runs and the work directories.';
    return [el('h3', {}, 'Image by image'), el('p', { class: 'hint' }, why)];
  }
  const state = { index: 0, place: 50 };
  const below = el('img', {});
  const above = el('img', {});
  const cover = el('div', { class: 'above' }, above);
  const seam = el('div', { class: 'seam' });
  const name = el('p', { class: 'hint', role: 'status', 'aria-live': 'polite' });
  const range = el('input', { type: 'range', class: 'range', min: '0', max: '100', step: '1', value: '50',
    'aria-label': 'How much of the first row is shown, from the left' });
  const move = () => {
    cover.style.clipPath = 'inset(0 ' + (100 - range.value) + '% 0 0)';
    seam.style.left = range.value + '%';
    range.setAttribute('aria-valuetext', range.value + ' % ' + left.method);
  };
  const show = () => {
    const key = common[state.index];
    above.src = DATA.pictures[a.get(key)];
    above.alt = left.method + ' on ' + key;
    below.src = DATA.pictures[b.get(key)];
    below.alt = right.method + ' on ' + key;
    name.textContent = key + ', ' + (state.index + 1) + ' of ' + common.length;
  };
  const step = (by) => { state.index = (state.index + by + common.length) % common.length; show(); };
  range.addEventListener('input', move);
  const stage = el('div', { class: 'stage' }, [below, cover, seam]);
  stage.style.position = 'relative';
  const drag = (event) => {
    if (event.buttons !== 1) return;
    const area = stage.getBoundingClientRect();
    range.value = String(Math.round((event.clientX - area.left) / area.width * 100));
    move();
  };
  stage.addEventListener('pointerdown', drag);
  stage.addEventListener('pointermove', drag);
  for (const image of [above, below]) image.draggable = false;
  show();
  move();
  return [el('h3', {}, 'Image by image'),
    el('div', { class: 'steps' }, [
      el('button', { type: 'button', class: 'quiet', onclick: () => step(-1) }, 'Previous'),
      el('button', { type: 'button', class: 'quiet', onclick: () => step(1) }, 'Next'), name]),
    el('div', { class: 'slide-bar' }, [el('span', {}, '← ' + left.method), el('span', {}, ''), el('span', {}, right.method + ' →')]),
    el('div', { class: 'slide' }, stage), range];
}
function openComparison(first, second) {
  const left = DATA.rows[first];
  const right = DATA.rows[second];
  openDialog(document.getElementById('comparison'), left.method + ' and ' + right.method,
    left.backbone + (left.backbone === right.backbone ? '' : ' and ' + right.backbone) + ', ' + left.protocol,
    [...differencePart(left, right), ...slider(left, right)]);
}
