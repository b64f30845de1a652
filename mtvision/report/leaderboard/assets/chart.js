function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) ticks.push(value);
  return ticks.map((value) => Number(value.toPrecision(12)));
}
function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 3, 5]) ticks.push(factor * 10 ** power);
  }
  const inside = ticks.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  const decades = inside.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
  return inside.length > 9 && decades.length > 1 ? decades : inside.length > 1 ? inside : niceTicks(low, high, 4);
}
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(0).replace('e', ' e').replace('+', '');
  return String(Number(value.toPrecision(4)));
}
function scale(low, high, from, to, log) {
  const f = log ? Math.log : (value) => value;
  return (value) => from + (f(value) - f(low)) / (f(high) - f(low)) * (to - from);
}
function widened(values, log, share) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (log) {
    const factor = low === high ? 2 : (high / low) ** share;
    return [low / factor, high * factor];
  }
  const room = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * share;
  return [low - room, high + room];
}
function axes(box, xTicks, yTicks, x, y, xTitle, yTitle) {
  const parts = [];
  for (const value of yTicks) {
    parts.push(svg('line', { class: 'grid', x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    parts.push(svg('text', { x: box.left - 8, y: y(value) + 4, 'text-anchor': 'end' }, short(value)));
  }
  let edge = -Infinity;
  for (const value of xTicks) {
    const text = short(value);
    if (x(value) - text.length * 3.5 < edge) continue;
    edge = x(value) + text.length * 3.5 + 8;
    parts.push(svg('line', { class: 'grid', x1: x(value), x2: x(value), y1: box.top, y2: box.bottom }));
    parts.push(svg('text', { x: x(value), y: box.bottom + 18, 'text-anchor': 'middle' }, text));
  }
  parts.push(svg('line', { class: 'axis', x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  parts.push(svg('text', { x: box.right, y: box.bottom + 36, 'text-anchor': 'end' }, xTitle));
  if (yTitle) parts.push(svg('text', { x: 0, y: box.top - 10 }, yTitle));
  return parts;
}

const COSTS = {
  macs: 'Multiply–accumulates, G', parameters: 'Parameters, M', trainable: 'Trained parameters, M',
  active: 'Active parameters, M', latency: 'Latency, ms',
};
const UNITS = { macs: 1e-9, parameters: 1e-6, trainable: 1e-6, active: 1e-6, latency: 1 };
const chosen = new Map();

function columnsOf(board) {
  return all('thead th[data-key]', board).map((head, index) => ({
    key: head.dataset.key, index: index + 1, up: head.dataset.direction, factor: Number(head.dataset.factor),
    label: head.textContent.replace(/\s+/g, ' ').trim(),
  }));
}
function numberOf(row, column) {
  const value = row.children[column.index].dataset.value;
  return value === undefined ? null : Number(value);
}
function stdOf(row, column) { return Number(row.children[column.index].dataset.std || 0); }
function pointsOf(rows, xColumn, yColumn) {
  return rows.map((row) => ({ row: row, x: numberOf(row, xColumn), y: numberOf(row, yColumn) }))
    .filter((point) => point.x !== null && point.y !== null)
    .map((point) => ({ ...point, x: point.x * UNITS[xColumn.key], std: stdOf(point.row, yColumn) }));
}
/* A chart needs two different costs; otherwise the table says it better. */
function spreadOf(rows, xColumn, yColumn) {
  return new Set(pointsOf(rows, xColumn, yColumn).map((point) => point.x)).size;
}
/* Pareto fronts, one per group of comparable rows: rows that no other row of the group beats in both cost and score. Left out
   are numbers that do not compare within it: those of another evaluator or baseline, and unverified ones. */
function frontiers(points, column) {
  const groups = new Map();
  for (const point of points) {
    const label = point.row.dataset.group;
    groups.set(label, [...(groups.get(label) || []), point]);
  }
  return [...groups.values()].map((members) => frontier(members, column));
}
function frontier(points, column) {
  const sign = column.up === 'down' ? -1 : 1;
  const comparable = points.filter((point) => point.row.dataset.verified === '1'
    && point.row.children[column.index].querySelector('sup') === null);
  const order = comparable.sort((a, b) => a.x - b.x || sign * (b.y - a.y));
  const front = [];
  for (const point of order) {
    if (!front.length || sign * point.y > sign * front[front.length - 1].y) front.push(point);
  }
  return front;
}

function drawScatter(board) {
  const figure = board.querySelector('.scatter');
  const columns = columnsOf(board);
  const xs = columns.filter((column) => column.key in COSTS);
  const ys = columns.filter((column) => column.key === 'gain' || column.key.includes('/'));
  ys.sort((a, b) => (b.key === 'gain') - (a.key === 'gain'));
  const every = all('tr[data-row]', board);
  xs.sort((a, b) => (b.key === 'macs') - (a.key === 'macs'));
  const usable = xs.filter((x) => ys.some((y) => spreadOf(every, x, y) > 1));
  figure.hidden = usable.length === 0;
  if (figure.hidden) return;
  const state = chosen.get(board) || { x: usable[0].key };
  chosen.set(board, state);
  const xColumn = usable.find((column) => column.key === state.x) || usable[0];
  const yUsable = ys.filter((y) => spreadOf(every, xColumn, y) > 1);
  const yColumn = yUsable.find((column) => column.key === state.y) || yUsable[0];
  const rows = every.filter((row) => !row.hidden);
  const points = pointsOf(rows, xColumn, yColumn).filter((point) => point.x > 0);
  const left = rows.length - points.length;
  const focused = document.activeElement && figure.contains(document.activeElement)
    ? document.activeElement.dataset.axis : null;
  const control = (label, axis, entries, value) => {
    const field = picker(label, entries, value, (next) => { state[axis] = next; drawScatter(board); });
    field.querySelector('select').dataset.axis = axis;
    return field;
  };
  const bars = points.some((point) => point.std > 0);
  const caption = el('figcaption', {}, plural(points.length) + ' drawn'
    + (left ? '; ' + left + ' without both numbers.' : '.')
    + (bars ? ' Bars: ± one standard deviation over seeds.' : '')
    + ' Dashed lines: Pareto fronts, one per group of comparable rows. Select a point for its details.');
  const drawn = points.length ? scatterSvg(points, xColumn, yColumn, caption) : { chart: el('p', { class: 'hint' }, 'No row to draw.'), list: '' };
  figure.replaceChildren(
    el('div', { class: 'scatter-bar' }, [
      control('Vertical', 'y', yUsable.map((c) => [c.key, c.label]), yColumn.key),
      control('Horizontal', 'x', usable.map((c) => [c.key, COSTS[c.key]]), xColumn.key),
      provenanceKey(points),
    ]),
    backboneKey(points), drawn.chart, ...[drawn.list].filter(Boolean), caption);
  if (focused) figure.querySelector('[data-axis="' + focused + '"]').focus();
}
function plural(count) { return count + (count === 1 ? ' row' : ' rows'); }
/* Shapes say where a row is from, colours which backbone it has. */
function provenanceKey(points) {
  const kinds = [...new Set(points.map((point) => point.row.dataset.provenance))].sort();
  return el('ul', { class: 'key', 'aria-label': 'Shapes: provenance' }, kinds.map((kind) => el('li', {}, [
    svg('svg', { viewBox: '0 0 14 14', 'aria-hidden': 'true' }, marker(kind, 7, 7, 5)), kind])));
}
const REST = 7;
function backboneKey(points) {
  const names = new Map();
  for (const { row } of points) {
    const colour = Number(row.dataset.colour);
    names.set(colour, colour === REST ? 'other backbones' : row.dataset.family);
  }
  const order = [...names.keys()].sort((a, b) => a - b);
  return el('ul', { class: 'key backbones', 'aria-label': 'Colours: backbone' },
    order.map((colour) => el('li', {}, el('span', { class: 'name c' + colour }, names.get(colour)))));
}
function marker(kind, x, y, size) {
  const side = size * 0.9;
  if (kind === 'released') return svg('rect', { class: 'dot ' + kind, x: x - side, y: y - side, width: 2 * side, height: 2 * side });
  if (kind === 'paper') {
    const path = [[0, -size], [size, 0], [0, size], [-size, 0]].map(([dx, dy]) => (x + dx * 1.1) + ' ' + (y + dy * 1.1)).join('L');
    return svg('path', { class: 'dot ' + kind, d: 'M' + path + 'Z' });
  }
  return svg('circle', { class: 'dot ' + kind, cx: x, cy: y, r: size });
}

function scatterSvg(points, xColumn, yColumn, caption) {
  const narrow = window.innerWidth <= 760;
  const box = narrow ? { left: 44, right: 352, top: 24, bottom: 250, width: 360, height: 292 }
    : { left: 56, right: 1130, top: 24, bottom: 300, width: 1150, height: 342 };
  const xr = widened(points.map((point) => point.x), true, 0.08);
  const ends = points.flatMap((point) => [point.y - point.std, point.y, point.y + point.std]);
  const yr = widened(ends.map((value) => value * yColumn.factor), false, 0.12);
  const x = scale(xr[0], xr[1], box.left, box.right, true);
  const y = scale(yr[0], yr[1], box.bottom, box.top, false);
  const placed = points.map((point) => ({
    ...point, px: x(point.x), py: y(point.y * yColumn.factor),
    ends: point.std > 0 ? [1, -1].map((sign) => y((point.y + sign * point.std) * yColumn.factor)) : null,
  }));
  const fronts = frontiers(placed, yColumn);
  const front = fronts.flat();
  const paths = fronts.map((members) => svg('path', { class: 'front', d: members
    .map((point, index) => (index ? 'L' : 'M') + point.px.toFixed(1) + ' ' + point.py.toFixed(1)).join('') }));
  const chart = svg('svg', { class: 'chart', viewBox: '0 0 ' + box.width + ' ' + box.height, role: 'group',
    'aria-label': yColumn.label + ' against ' + COSTS[xColumn.key] },
  [...axes(box, logTicks(xr[0], xr[1]), niceTicks(yr[0], yr[1], 5), x, y, COSTS[xColumn.key] + ' (log scale)', yColumn.label),
    ...paths, ...placed.filter((point) => point.ends).map(errorBar)]);
  const named = names(placed, front, box);
  chart.append(...named.texts);
  for (const point of placed) chart.append(pointMark(point, xColumn, yColumn, caption));
  return { chart: chart, list: numberedList(named.numbered) };
}
function errorBar(point) {
  const [top, bottom] = point.ends;
  const caps = [top, bottom].map((end) => 'M' + (point.px - 4) + ' ' + end + 'h8').join('');
  return svg('path', { class: 'error c' + point.row.dataset.colour, d: 'M' + point.px + ' ' + top + 'V' + bottom + caps, 'aria-hidden': 'true' });
}
/* Names without a place in the chart: a number there, the name below it. */
function numberedList(points) {
  if (!points.length) return '';
  return el('ol', { class: 'numbered', 'aria-label': 'Names of the numbered points' }, points.map((point) => el('li', {},
    el('button', { type: 'button', class: 'named', onclick: () => openDrawer(point.row.dataset.row) },
      DATA.rows[point.row.dataset.row].method))));
}
function pointMark(point, xColumn, yColumn, caption) {
  const detail = DATA.rows[point.row.dataset.row];
  const printed = point.row.children[yColumn.index].textContent.replace(/\s+/g, ' ').trim();
  const label = detail.method + ', ' + detail.backbone + ' (' + detail.provenance + '): '
    + yColumn.label + ' ' + printed + ', ' + COSTS[xColumn.key] + ' ' + short(point.x);
  const before = caption.textContent;
  const open = () => openDrawer(point.row.dataset.row);
  return svg('g', {
    class: 'point c' + point.row.dataset.colour, tabindex: '0', role: 'button', 'aria-label': label, 'data-point': point.row.dataset.row,
    onclick: open,
    onkeydown: (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); open(); } },
    onmouseenter: () => { caption.textContent = label; }, onfocus: () => { caption.textContent = label; },
    onmouseleave: () => { caption.textContent = before; }, onblur: () => { caption.textContent = before; },
  }, [svg('circle', { class: 'hit', cx: point.px, cy: point.py, r: 12 }),
    svg('circle', { class: 'ring', cx: point.px, cy: point.py, r: 9 }),
    marker(point.row.dataset.provenance, point.px, point.py, 5)]);
}
/* Names beside points, those of the frontier first, where they cover neither points nor other names. */
const PLACES = [[10, 4, 'start'], [-10, 4, 'end'], [0, -11, 'middle'], [0, 20, 'middle']];
function freePlace(point, width, taken, box) {
  for (const [dx, dy, anchor] of PLACES) {
    const start = point.px + dx - (anchor === 'end' ? width : anchor === 'middle' ? width / 2 : 0);
    const area = [start, point.py + dy - 11, start + width, point.py + dy + 3];
    const free = area[0] >= box.left && area[2] <= box.width && area[1] >= box.top - 8 && area[3] <= box.bottom
      && taken.every((other) => area[2] < other[0] || area[0] > other[2] || area[3] < other[1] || area[1] > other[3]);
    if (free) return { area: area, x: point.px + dx, y: point.py + dy, anchor: anchor };
  }
  return null;
}
function names(placed, front, box) {
  const taken = placed.map((point) => [point.px - 7, point.py - 7, point.px + 7, point.py + 7]);
  const texts = [];
  const numbered = [];
  const write = (point, text) => {
    const place = freePlace(point, text.length * 6.6, taken, box);
    if (place === null) return false;
    taken.push(place.area);
    texts.push(svg('text', { class: 'name', x: place.x, y: place.y, 'text-anchor': place.anchor, 'aria-hidden': 'true' }, text));
    return true;
  };
  const left = [];
  for (const point of [...front, ...placed.filter((item) => !front.includes(item))]) {
    const text = DATA.rows[point.row.dataset.row].method;
    if (text.length > 34 || !write(point, text)) left.push(point);
  }
  for (const point of left) {
    if (write(point, String(numbered.length + 1))) numbered.push(point);
  }
  return { texts: texts, numbered: numbered };
}

function lineChart(iterations, series, log, label) {
  const box = { left: 56, right: 660, top: 12, bottom: 190, width: 668, height: 232 };
  const positive = series.every((item) => item.values.every((value) => value === null || value > 0));
  const values = series.flatMap((item) => item.values).filter((value) => value !== null);
  if (!values.length) return el('p', { class: 'hint' }, 'No finite values.');
  const useLog = log && positive;
  const yr = widened(values, useLog, 0.06);
  const first = iterations[0];
  const last = iterations[iterations.length - 1];
  const xr = first === last ? [first - 1, last + 1] : [0, last];
  const x = scale(xr[0], xr[1], box.left, box.right, false);
  const y = scale(yr[0], yr[1], box.bottom, box.top, useLog);
  const yTicks = useLog ? logTicks(yr[0], yr[1]) : niceTicks(yr[0], yr[1], 4);
  const chart = svg('svg', { class: 'chart', viewBox: '0 0 ' + box.width + ' ' + box.height, role: 'img', 'aria-label': label },
    axes(box, niceTicks(xr[0], xr[1], 6), yTicks, x, y, 'iteration', ''));
  series.forEach((item, index) => {
    let pen = 'M';
    let path = '';
    item.values.forEach((value, position) => {
      if (value === null) { pen = 'M'; return; }
      path += pen + x(iterations[position]).toFixed(1) + ' ' + y(value).toFixed(1);
      pen = 'L';
    });
    chart.append(svg('path', { class: 'line k' + index % 8, d: path }));
  });
  const legend = el('ul', { class: 'legend' }, series.map((item, index) => el('li', {}, [
    svg('svg', { viewBox: '0 0 18 8', 'aria-hidden': 'true' }, svg('line', { class: 'line k' + index % 8, x1: 0, x2: 18, y1: 4, y2: 4 })),
    item.name])));
  return el('div', {}, series.length > 1 ? [chart, legend] : [chart]);
}
