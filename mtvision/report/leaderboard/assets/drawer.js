function facts(entries) {
  const list = el('dl', { class: 'facts' });
  for (const [name, value] of entries) {
    if (value !== null && value !== undefined && value !== '') list.append(el('dt', {}, name), el('dd', {}, value));
  }
  return list;
}
function grid(heads, rows, numeric) {
  const cell = (tag, value, index) => el(tag, { class: numeric.includes(index) ? 'number' : null }, value);
  return el('div', { class: 'over' }, el('table', {}, [
    el('thead', {}, el('tr', {}, heads.map((head, index) => fill(cell('th', head, index), { scope: 'col' })))),
    el('tbody', {}, rows.map((row) => el('tr', { class: row.kind }, row.cells.map((value, index) => cell('td', value, index))))),
  ]));
}
function arrow(higher) { return higher === true ? ' ↑' : higher === false ? ' ↓' : ''; }
function signed(value, digits) { return (value >= 0 ? '+' : '−') + Math.abs(value).toFixed(digits); }

function scorePart(detail) {
  const several = detail.seeds.length > 1;
  let task = null;
  const rows = detail.scores.map((score) => {
    const fresh = score.task !== task;
    task = score.task;
    return { kind: (fresh ? 'first ' : '') + (score.headline ? 'head' : ''), cells: [
      fresh ? score.task : '', score.title + arrow(score.higher),
      score.text + (score.spread ? ' ± ' + score.spread : '') + (score.level ? ', ' + score.level : '')] };
  });
  const parts = [el('h3', {}, 'Scores'), grid(['Task', 'Score', several ? 'Mean ± std' : 'Value'], rows, [2])];
  for (const score of detail.scores.filter((item) => item.headline && item.evaluator)) {
    parts.push(el('p', { class: 'hint' }, 'The evaluator of ' + score.task + ' is: ' + score.evaluator
      + '. It does not compare with the protocol’s own.'));
  }
  if (detail.kind === 'published') return parts;  // a published value is what was printed
  const stored = detail.scores.map((score) => ({ cells: [score.task + ' ' + score.score,
    ...score.values.map((value) => (value === null ? '–' : String(value)))] }));
  const table = grid(['Score', ...detail.seeds.map((run) => (run.seed === null ? 'Value' : 'Seed ' + run.seed))], stored, []);
  table.classList.add('digits');
  return [...parts, el('details', {}, [el('summary', {}, 'As stored, all digits'), table])];
}
function gainPart(detail) {
  if (detail.gain === null) return [];
  const gain = detail.gain;
  return [el('h3', {}, 'Gain over single-task'),
    facts([['Baseline', gain.baseline], ['Convention', gain.convention],
      ...detail.seeds.map((run) => [run.seed === null ? 'Δm' : 'Δm, seed ' + run.seed, run.percent === null ? '' : signed(run.percent, 2) + ' %']),
      ...Object.entries(gain.parts).map(([name, value]) => [name.replaceAll('_', ' ') + (detail.seeds.length > 1 ? ', first seed' : ''), signed(value, 2) + ' %'])])];
}
function publishedPart(detail) {
  if (!detail.published.length) return [];
  return [el('h3', {}, 'Published and reproduced'),
    grid(['Score', 'Published', 'Reproduced', 'Difference', 'Verdict', 'Published value'],
      detail.published.map((item) => ({ cells: [item.score, item.published, item.reproduced, item.difference, item.verdict,
        item.certainty === 'memory' ? 'from memory, unverified' : item.certainty] })), [1, 2, 3]),
    el('p', { class: 'hint' }, 'Difference: + is better than published. Within seed noise: the published value lies in the 95 % prediction interval of the seeds.')];
}
function commandPart(detail) {
  const run = detail.seeds[0];
  const parts = [];
  if (run.command) {
    const copy = el('button', { type: 'button', class: 'quiet', onclick: () => {
      const done = () => { copy.textContent = 'Copied'; };
      if (navigator.clipboard) navigator.clipboard.writeText(run.command).then(done, () => {});
    } }, 'Copy');
    parts.push(el('h3', {}, 'Command'), el('div', { class: 'command' }, [el('pre', { tabindex: '0' }, run.command), copy]));
  }
  if (detail.config !== null) {
    parts.push(el('h3', {}, 'Config'), el('details', {}, [
      el('summary', {}, detail.config.name || 'completed config'), el('pre', { tabindex: '0' }, detail.config.text)]),
    el('p', { class: 'hint' }, 'SHA-256 ' + detail.config.sha256));
  }
  return parts;
}
function originPart(detail) {
  const runs = detail.seeds.filter((run) => run.created || run.commit);
  const parts = [el('h3', {}, 'Origin'), facts([
    ['Protocol', detail.protocol], ['Provenance', detail.provenance], ['Source', detail.source], ['Licence', detail.licence],
    ['Certainty', detail.certainty === 'memory' ? 'from memory, unverified' : detail.certainty],
    ...detail.notes.map((note) => ['Note', note])])];
  if (runs.length) {
    parts.push(grid(['Seed', 'Finished', 'Commit', 'Checkpoint'], runs.map((run) => ({ cells: [
      run.seed === null ? '–' : run.seed, run.created.replace('T', ' ').replace('Z', ''),
      run.commit ? el('code', {}, run.commit.slice(0, 10) + (run.dirty ? ' + changes' : '')) : '–',
      run.checkpoint ? el('code', {}, run.checkpoint.slice(0, 10)) : '–'] })), []));
  }
  const versions = Object.entries(detail.versions).map(([name, version]) => name + ' ' + version).join(', ');
  if (detail.cost.length) parts.push(el('h3', {}, 'Cost'), facts(detail.cost));
  if (detail.training.length || versions) parts.push(el('h3', {}, 'Training'), facts([...detail.training, ['Versions', versions]]));
  return parts;
}

function curvePart(detail) {
  const runs = detail.seeds.filter((run) => run.curves !== null);
  if (!runs.length) return [];
  const state = { run: 0, log: true };
  const place = el('div', { class: 'curves' });
  const bar = el('div', { class: 'curve-bar' });
  const draw = () => {
    const curves = runs[state.run].curves;
    const names = Object.keys(curves.series);
    const group = (title, chosenNames, strip) => {
      const series = chosenNames.map((name) => ({ name: strip(name), values: curves.series[name] }));
      return series.length ? [el('h4', {}, title), lineChart(curves.iterations, series, state.log, title + ' over iterations')] : [];
    };
    const tail = (name) => name.slice(name.indexOf('/') + 1).replaceAll('_', ' ');
    const weights = names.filter((name) => name.startsWith('weight/')
      && new Set(curves.series[name].filter((value) => value !== null)).size > 1);
    const rest = names.filter((name) => name === 'total');
    place.replaceChildren(
      ...group('Loss by task', names.filter((name) => name.startsWith('loss/')), tail),
      ...group('Total loss', rest, (name) => name),
      ...group('Balancer weights', weights, tail),
      ...group('Learning rate', names.filter((name) => name === 'lr'), (name) => name));
  };
  if (runs.length > 1) {
    bar.append(picker('Seed', runs.map((run, index) => [String(index), 'seed ' + run.seed]), '0', (value) => { state.run = Number(value); draw(); }));
  }
  const toggle = el('button', { type: 'button', class: 'quiet', 'aria-pressed': 'true', onclick: () => {
    state.log = !state.log;
    toggle.setAttribute('aria-pressed', String(state.log));
    draw();
  } }, 'Log scale');
  bar.append(toggle);
  draw();
  return [el('h3', {}, 'Curves'), bar, place];
}
function picturePart(detail) {
  const run = detail.seeds.find((item) => item.pictures.length);
  if (!run) return [];
  return [el('h3', {}, 'Predictions'), ...run.pictures.map(([name, index]) => el('figure', { class: 'panel' }, [
    el('img', { src: DATA.pictures[index], alt: 'Image, predictions and labels of ' + name }), el('figcaption', {}, name)]))];
}

function openDrawer(id) {
  const detail = DATA.rows[id];
  const subtitle = detail.backbone + ', ' + detail.protocol
    + (detail.seeds.length > 1 ? ', ' + detail.seeds.length + ' seeds' : '');
  openDialog(document.getElementById('drawer'), detail.method, subtitle, [
    ...scorePart(detail), ...gainPart(detail), ...publishedPart(detail), ...commandPart(detail),
    ...curvePart(detail), ...picturePart(detail), ...originPart(detail)]);
}
