const find = (selector) => element.querySelector(selector);
const [panes, play, scrub, position, speed] = ['.panes', '.play', '.scrub', '.position', '.speed'].map(find);
const calm = matchMedia('(prefers-reduced-motion: reduce)');

// One entry per frame: { pixels: [bytes per pane], caption, formula }. Filled while streaming, replaced by the film.
let frames = [], shape = [], curves = [], run = null, shown = 0, timer = null;
let pinned = false; // the visitor has taken the slider: new frames no longer move it

find('.player').setAttribute('aria-label', props.label);
scrub.setAttribute('aria-label', props.step);

function layPanes(labels) {
  if (panes.children.length !== labels.length) {
    panes.replaceChildren(...labels.map((label) => {
      const pane = make('div', 'pane');
      pane.append(make('canvas'), make('span', 'name'));
      Object.assign(pane.firstChild, { width: 28, height: 28 });
      pane.firstChild.setAttribute('role', 'img');
      pane.firstChild.setAttribute('aria-label', label); // show says more
      return pane;
    }));
    panes.dataset.count = labels.length;
  }
  labels.forEach((label, p) => { panes.children[p].lastChild.textContent = label; });
}

const number = (index) => index + props.origin;

function show(index) {
  shown = Math.max(0, Math.min(index, frames.length - 1));
  const frame = frames[shown];
  if (!frame) return;
  frame.pixels.forEach((pixels, p) => {
    const canvas = panes.children[p].firstChild;
    paint(canvas, pixels, shape[p].w, shape[p].h);
    canvas.setAttribute('aria-label', `${shape[p].label}, ${props.step.toLowerCase()} ${number(shown)}`);
  });
  const last = Math.max(+scrub.max, frames.length - 1);
  scrub.value = shown;
  scrub.style.setProperty('--played', last ? shown / last : 0);
  scrub.setAttribute('aria-valuetext', `${props.step} ${number(shown)} of ${number(last)}`);
  position.textContent = `${number(shown)} / ${number(last)}`;
  find('.caption').textContent = frame.caption;
  find('.formula').textContent = frame.formula;
  moveCursor();
}

// Python reads the frame shown from here. Written when the slider comes to rest: each write copies the film.
function settle() {
  if (props.value) props.value = { ...props.value, shown };
}

function stop() {
  clearTimeout(timer);
  timer = null;
  play.setAttribute('aria-label', 'Play');
  play.classList.remove('playing');
}

function start() {
  pinned = true;
  play.setAttribute('aria-label', 'Pause');
  play.classList.add('playing');
  if (shown >= frames.length - 1) show(0);
  const tick = () => {
    if (shown < frames.length - 1) show(shown + 1);
    else if (props.loop) show(0);
    else { stop(); settle(); return; }
    timer = setTimeout(tick, 1000 / (props.fps * speed.value));
  };
  timer = setTimeout(tick, 1000 / (props.fps * speed.value));
}

function receive() {
  const value = props.value;
  if (!value) {
    stop();
    frames = []; run = null; curves = [];
    panes.replaceChildren();
    layPanes(props.panes);
    position.textContent = '';
  } else {
    if (value.run !== run) { stop(); run = value.run; frames = []; pinned = false; curves = []; }
    shape = value.panes.map(({ label, w, h }) => ({ label, w, h }));
    layPanes(shape.map((pane) => pane.label));
    if (value.panes[0].all !== undefined) takeFilm(value); else takeFrame(value);
  }
  const done = Boolean(value && value.panes[0].all !== undefined);
  for (const control of [play, scrub, speed]) control.disabled = frames.length < 2;
  find('figcaption').hidden = !frames.some((frame) => frame.caption || frame.formula);
  find('.curves').hidden = !curves.length;
  const ends = done && value.ends;
  find('.ends').hidden = !ends;
  if (ends) find('.ends').querySelectorAll('span').forEach((span, k) => { span.textContent = ends[k]; });
  element.dataset.frames = frames.length;
  element.dataset.done = done ? '1' : '0';
}

function takeFrame(value) {
  const frame = { pixels: value.panes.map((pane) => bytesOf(pane.px)), caption: value.caption, formula: value.formula };
  // A busy browser may miss frames; until the film arrives, the next one stands in for them.
  for (let j = frames.length; j < value.i; j++) frames[j] = frame;
  frames[value.i] = frame;
  scrub.max = Math.max(value.total ? value.total - 1 : 0, frames.length - 1);
  if (!pinned) show(value.i);
}

function takeFilm(value) {
  if (value.shown !== undefined && frames.length === value.total) return; // our own settle() coming back
  const whole = value.panes.map((pane) => bytesOf(pane.all));
  const sizes = whole.map((bytes) => bytes.length / value.total);
  const streamed = frames.length > 0;
  frames = Array.from({ length: value.total }, (_, i) => ({
    pixels: whole.map((bytes, p) => bytes.subarray(i * sizes[p], (i + 1) * sizes[p])),
    caption: value.captions[i] || '', formula: value.formulas[i] || '',
  }));
  curves = value.curves;
  scrub.max = value.total - 1;
  drawCurves();
  show(pinned ? shown : value.start);
  if (props.autoplay && !streamed && !calm.matches && frames.length > 1) { show(0); start(); }
}

scrub.addEventListener('input', () => { stop(); pinned = true; show(+scrub.value); });
scrub.addEventListener('change', settle);
play.addEventListener('click', () => { if (timer) { stop(); settle(); } else start(); });

// The curves: values per frame on one logarithmic axis, with a cursor that is a second slider for the pointer.

const plot = find('.curves svg'), legend = find('.curves ul');
const margin = { left: 40, right: 10, top: 10, bottom: 20 }, plotHeight = 132;
let scale = null;

function drawCurves() {
  plot.replaceChildren();
  legend.replaceChildren();
  scale = null;
  const logs = curves.flatMap((curve) => curve.values.filter((v) => v > 0).map(Math.log10));
  if (!logs.length) return;
  const width = Math.max(240, find('.player').clientWidth);
  const low = Math.floor(Math.min(...logs)), high = Math.max(low + 1, Math.ceil(Math.max(...logs)));
  const count = curves[0].values.length;
  const x = (i) => margin.left + (width - margin.left - margin.right) * (count > 1 ? i / (count - 1) : 0.5);
  const y = (v) => margin.top + (plotHeight - margin.top - margin.bottom) * (high - Math.log10(v)) / (high - low);
  scale = { x, y, count, width };
  plot.setAttribute('viewBox', `0 0 ${width} ${plotHeight}`);
  plot.setAttribute('aria-label', `${curves.map((curve) => curve.label).join(' and ')} at each ${props.step.toLowerCase()}, logarithmic axis`);
  const stride = Math.ceil((high - low) / 4);
  for (let n = low; n <= high; n += stride) {
    plot.append(svg('line', { class: 'rule', x1: margin.left, x2: width - margin.right, y1: y(10 ** n), y2: y(10 ** n) }));
    plot.append(svg('text', { class: 'tick', x: margin.left - 8, y: y(10 ** n) + 3.5, 'text-anchor': 'end' }, power(n)));
  }
  for (const [i, anchor] of [[0, 'start'], [count - 1, 'end']]) {
    plot.append(svg('text', { class: 'tick', x: x(i), y: plotHeight - 4, 'text-anchor': anchor }, `${props.step} ${number(i)}`));
  }
  plot.append(svg('line', { class: 'cursor', y1: margin.top - 4, y2: plotHeight - margin.bottom }));
  curves.forEach((curve, k) => {
    let path = '', pen = 'M';
    curve.values.forEach((v, i) => { // zero and infinity have no place on the axis: the line breaks there
      if (v > 0) { path += `${pen}${x(i).toFixed(1)} ${y(v).toFixed(1)}`; pen = 'L'; } else pen = 'M';
    });
    plot.append(svg('path', { class: `curve c${k}`, d: path }));
    plot.append(svg('circle', { class: `dot c${k}`, r: 4.5 }));
    const item = make('li');
    const key = svg('svg', { class: 'key', viewBox: '0 0 20 8', 'aria-hidden': 'true' });
    key.append(svg('path', { class: `curve c${k}`, d: 'M0 4H20' }));
    item.append(key, make('span', '', curve.label), make('b'));
    legend.append(item);
  });
  moveCursor();
}

function moveCursor() {
  if (!scale) return;
  const at = Math.min(shown, scale.count - 1);
  const line = plot.querySelector('.cursor');
  line.setAttribute('x1', scale.x(at));
  line.setAttribute('x2', scale.x(at));
  curves.forEach((curve, k) => {
    const value = curve.values[at], dot = plot.querySelector(`.dot.c${k}`);
    dot.setAttribute('visibility', value > 0 ? 'visible' : 'hidden');
    if (value > 0) { dot.setAttribute('cx', scale.x(at)); dot.setAttribute('cy', scale.y(value)); }
    legend.children[k].lastChild.textContent = readable(value ?? Infinity);
  });
}

function follow(event) {
  if (!scale || frames.length < 2) return;
  const box = plot.getBoundingClientRect();
  const at = (event.clientX - box.left) * scale.width / box.width;
  const share = (at - scale.x(0)) / (scale.x(scale.count - 1) - scale.x(0));
  stop();
  pinned = true;
  show(Math.round(share * (scale.count - 1)));
}
plot.addEventListener('pointerdown', (event) => { plot.setPointerCapture(event.pointerId); follow(event); });
plot.addEventListener('pointermove', (event) => { if (plot.hasPointerCapture(event.pointerId)) follow(event); });
plot.addEventListener('pointerup', settle);

let drawnAt = 0;
new ResizeObserver(() => {
  const width = find('.player').clientWidth;
  if (width !== drawnAt) { drawnAt = width; drawCurves(); }
}).observe(find('.player'));

watch('value', receive);
receive();
