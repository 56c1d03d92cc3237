// Draws what the bench announces; it holds no numbers of its own.

const body = element.querySelector('tbody'), note = element.querySelector('.note'), charts = element.querySelector('.charts');
const left = 40, right = 8, top = 8, bottom = 20, height = 172;
// snr is 1 / sigma^2, so its axis is that of sigma turned over: the same curves, mirrored and twice as steep.
const kinds = [
  { title: 'Noise level σ = sₜ / aₜ', sign: 'σ', of: (path, k) => path.sigma[k], at: (stand) => stand.sigma, logs: [-2, 3] },
  { title: 'Signal-to-noise ratio 1 / σ²', sign: 'SNR', of: (path, k) => 1 / path.sigma[k] ** 2, at: (stand) => 1 / stand.sigma ** 2, logs: [-6, 4] },
  { title: 'ᾱ = aₜ², what is left of the picture', sign: 'ᾱ', of: (path, k) => path.a[k] ** 2, at: (stand) => stand.a ** 2, ends: [0, 1] },
  { title: 'β(t), the rate of noising', sign: 'β', of: (path, k) => (path.beta ? path.beta[k] : NaN), at: null, logs: [-1, 3] },
];
let news = null, width = 0;

charts.append(...kinds.map((kind) => {
  const chart = make('figure', 'chart'), caption = make('figcaption');
  caption.append(make('b', '', kind.title), make('span'));
  kind.plot = svg('svg', { class: 'plot', role: 'img' });
  kind.plot.setAttribute('aria-label', `${kind.title} over the time t for every schedule`);
  kind.hint = caption.lastChild;
  chart.append(caption, kind.plot);
  wireUp(kind);
  return chart;
}));

const across = (t) => left + (width - left - right) * t;
function up(kind, value) {
  const [low, high] = kind.logs || kind.ends, place = kind.logs ? Math.log10(value) : value;
  return top + (height - top - bottom) * (high - place) / (high - low);
}
const within = (kind, value) => (kind.logs ? value > 0 && value < Infinity : value >= 0);

function draw() {
  if (!news || !width) return;
  for (const kind of kinds) {
    const [low, high] = kind.logs || kind.ends, stride = kind.logs ? (high - low > 5 ? 2 : 1) : 0.5;
    const clip = `${element.id || 'noise'}-${kind.sign}`;
    kind.plot.replaceChildren();
    kind.plot.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const inside = svg('clipPath', { id: clip });
    inside.append(svg('rect', { x: left - 2, y: top - 2, width: width - left - right + 4, height: height - top - bottom + 4 }));
    kind.plot.append(inside);
    for (let n = low; n <= high; n += stride) {
      const y = top + (height - top - bottom) * (high - n) / (high - low);
      kind.plot.append(svg('line', { class: 'rule', x1: left, x2: width - right, y1: y, y2: y }));
      kind.plot.append(svg('text', { class: 'tick', x: left - 7, y: y + 3.5, 'text-anchor': 'end' }, kind.logs ? power(n) : String(n)));
    }
    for (const t of [0, 0.5, 1]) {
      const anchor = { 0: 'start', 1: 'end' }[t] || 'middle';
      kind.plot.append(svg('text', { class: 'tick', x: across(t), y: height - 5, 'text-anchor': anchor }, t ? String(t) : 't = 0'));
    }
    kind.plot.append(svg('line', { class: 'cursor', y1: top - 3, y2: height - bottom }));
    kind.lines = svg('g', { class: 'lines', 'clip-path': `url(#${clip})` });
    kind.curves = news.paths.map((path, k) => {
      let d = '', pen = 'M';
      for (let i = 0; i < path.t.length; i++) {
        const value = kind.of(path, i);
        if (within(kind, value)) { d += `${pen}${across(path.t[i]).toFixed(1)} ${up(kind, value).toFixed(1)}`; pen = 'L'; } else pen = 'M';
      }
      return svg('path', { class: `line c${k}`, d });
    });
    kind.dots = news.paths.map((_, k) => svg('circle', { class: `dot c${k}`, r: 4 }));
    kind.marks = svg('g', {});
    kind.plot.append(kind.lines, kind.marks);
  }
  mark();
}

function mark() {
  if (!news || !kinds[0].curves) return;
  const { chosen, all, paths } = news;
  for (const kind of kinds) {
    const order = kind.curves.map((_, k) => k).sort((i, j) => (i === chosen) - (j === chosen));
    kind.lines.replaceChildren(...order.map((k) => kind.curves[k])); // the chosen one on top
    kind.marks.replaceChildren(...order.map((k) => kind.dots[k]));
    kind.curves.forEach((curve, k) => curve.classList.toggle('chosen', k === chosen));
    const x = across(all[chosen].t), line = kind.plot.querySelector('.cursor');
    line.setAttribute('x1', x);
    line.setAttribute('x2', x);
    kind.dots.forEach((dot, k) => {
      const value = kind.at ? kind.at(all[k]) : kind.of(paths[k], Math.round(all[k].at));
      const y = within(kind, value) ? up(kind, value) : NaN, seen = y >= top - 3 && y <= height - bottom + 3;
      dot.setAttribute('visibility', seen ? 'visible' : 'hidden');
      dot.classList.toggle('chosen', k === chosen);
      if (seen) { dot.setAttribute('cx', across(all[k].t)); dot.setAttribute('cy', y); }
    });
  }
}

function tell() {
  const { paths, all, chosen, kept } = news;
  if (body.children.length !== paths.length) {
    body.replaceChildren(...paths.map((path, k) => {
      const row = make('tr'), head = make('th'), name = make('span');
      head.scope = 'row';
      const key = svg('svg', { class: 'key', viewBox: '0 0 20 8', 'aria-hidden': 'true' });
      key.append(svg('path', { class: `line c${k}`, d: 'M0 4H20' }));
      name.append(key, path.name);
      head.append(name);
      row.append(head, ...Array.from({ length: 4 }, () => make('td')));
      return row;
    }));
  }
  all.forEach((stand, k) => {
    const texts = [stand.t.toFixed(3), stand.a.toFixed(3), readable(+stand.s.toPrecision(3)), readable(stand.sigma)];
    texts.forEach((text, c) => { body.children[k].children[c + 1].textContent = text; });
    body.children[k].classList.toggle('chosen', k === chosen);
  });
  const short = all.map((stand, k) => (Math.abs(Math.log(stand.sigma / all[chosen].sigma)) > 0.01 ? paths[k].name : '')).filter(Boolean);
  note.textContent = kept === 'time'
    ? 'One time, six noise levels: t alone says nothing about how noisy a picture is.'
    : `One noise level, six times: each schedule passes through the same x₀ + σε, only sooner or later and times its own aₜ.${short.length ? ` Not as far: ${short.join(', ')}.` : ''}`;
}

function wireUp(kind) {
  const place = (event) => {
    const box = kind.plot.getBoundingClientRect();
    const scale = width / box.width;
    return [((event.clientX - box.left) * scale - left) / (width - left - right), (event.clientY - box.top) * scale];
  };
  const seek = (event) => document.dispatchEvent(new CustomEvent('noise-seek', { detail: Math.max(0, Math.min(1, place(event)[0])) }));
  kind.plot.addEventListener('pointerdown', (event) => { kind.plot.setPointerCapture(event.pointerId); seek(event); });
  kind.plot.addEventListener('pointermove', (event) => {
    if (!news) return;
    if (kind.plot.hasPointerCapture(event.pointerId)) { seek(event); return; }
    const [t, y] = place(event);
    if (t < 0 || t > 1) { leave(); return; }
    const index = Math.round(t * (news.paths[0].t.length - 1));
    const values = news.paths.map((path) => kind.of(path, index));
    const gaps = values.map((value) => (within(kind, value) ? Math.abs(up(kind, value) - y) : Infinity));
    const nearest = gaps.indexOf(Math.min(...gaps));
    kind.curves.forEach((curve, k) => curve.classList.toggle('near', k === nearest && gaps[k] < 40));
    kind.hint.textContent = gaps[nearest] < 40
      ? `${news.paths[nearest].name}, t ${t.toFixed(2)}: ${readable(+values[nearest].toPrecision(3))}` : '';
  });
  const leave = () => { kind.hint.textContent = ''; (kind.curves || []).forEach((curve) => curve.classList.remove('near')); };
  kind.plot.addEventListener('pointerleave', leave);
}

document.addEventListener('noise-level', (event) => {
  const first = !news;
  news = event.detail;
  tell();
  if (first) draw(); else mark();
});
new ResizeObserver(() => {
  const now = charts.firstChild.clientWidth;
  if (now && now !== width) { width = now; draw(); }
}).observe(charts);
document.dispatchEvent(new CustomEvent('noise-ask'));
