const find = (selector) => element.querySelector(selector);
const plot = find('.plot'), hint = find('.hint');
const left = 46, right = 14, top = 12, bottom = 24, height = 260;
let width = 0, points = [];

// Round numbers, closer together on a short axis.
function ticks(low, high) {
  const found = [], digits = high / low > 12 ? [1, 2, 5] : [1, 2, 3, 4, 6, 8];
  for (let ten = 1; ten <= high; ten *= 10) for (const n of digits) if (n * ten >= low && n * ten <= high) found.push(n * ten);
  return found;
}

function draw() {
  const value = props.value;
  if (!value || !width) return;
  const calls = value.lines.flatMap((line) => line.points.map((point) => point.calls));
  const low = Math.min(...value.ends, ...calls), high = Math.max(...value.ends, ...calls);
  const from = low / 1.2, to = Math.max(high, low + 1) * 1.2;
  const across = (n) => left + (width - left - right) * Math.log(n / from) / Math.log(to / from);
  const up = (share) => top + (height - top - bottom) * (1 - share);
  plot.replaceChildren();
  plot.setAttribute('viewBox', `0 0 ${width} ${height}`);
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    plot.append(svg('line', { class: 'rule', x1: left, x2: width - right, y1: up(share), y2: up(share) }));
    plot.append(svg('text', { class: 'tick', x: left - 8, y: up(share) + 4, 'text-anchor': 'end' }, `${100 * share} %`));
  }
  for (const n of ticks(from, to)) {
    plot.append(svg('line', { class: 'rule', x1: across(n), x2: across(n), y1: height - bottom, y2: height - bottom + 5 }));
    plot.append(svg('text', { class: 'tick', x: across(n), y: height - 5, 'text-anchor': 'middle' }, String(n)));
  }
  points = [];
  for (const { row, points: own } of value.lines) {
    const places = own.map((point) => ({ row, x: across(point.calls), y: up(point.share), ...point }));
    const d = places.map(({ x, y }, k) => `${k ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');
    if (d) plot.append(svg('path', { class: `line ${tones(row)}`, d }));
    points.push(...places);
  }
  for (const point of points) plot.append(point.node = marker(point.row, point.x.toFixed(1), point.y.toFixed(1)));
  element.dataset.points = points.length;
}

function receive() {
  const value = props.value;
  if (!value) return;
  find('.title').textContent = value.title;
  const said = value.lines.flatMap((line) => line.points.map((point) => point.text)).join('; ');
  plot.setAttribute('aria-label', `${value.title} against network calls. ${said || 'No points yet'}.`);
  find('.axis').textContent = 'Network calls for a picture, logarithmic';
  find('.legend').replaceChildren(...value.lines.map(({ name, row }) => {
    const entry = make('li');
    entry.append(symbol(row), make('span', '', name));
    return entry;
  }));
  tell(null);
  draw();
}

// Equal samplers lie on each other: whatever is under the pointer is named.
function tell(event) {
  let near = [];
  if (event) {
    const box = plot.getBoundingClientRect(), scale = width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    const gap = (point) => Math.hypot(point.x - x, point.y - y), closest = Math.min(...points.map(gap));
    if (closest < 36) {
      const first = points.find((point) => gap(point) === closest);
      near = points.filter((point) => Math.hypot(point.x - first.x, point.y - first.y) < 2);
    }
  }
  for (const point of points) point.node.classList.toggle('near', near.includes(point));
  hint.textContent = near.map((point) => point.text).join('\n') || 'Point at the plot to read it: what is equal lies on top of each other.';
}

plot.addEventListener('pointermove', tell);
plot.addEventListener('pointerdown', tell);
plot.addEventListener('pointerleave', () => tell(null));

new ResizeObserver(() => {
  const now = plot.clientWidth;
  if (now && now !== width) { width = now; draw(); }
}).observe(plot);
watch('value', receive);
receive();
