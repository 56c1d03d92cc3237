// Strokes are computed on the picture's own pixels, so what is on the pad is what the model gets.

const find = (selector) => element.querySelector(selector);
const [picture, pad, brush, erase, undo, paints] = ['.picture', '.ink', '.brush', '.erase', '.undo', '.paints'].map(find);
const masking = picture !== null;
const radii = masking ? [1.5, 3, 5] : [0.85, 1.25, 2]; // in pixels of a picture 28 wide
const nearest = 40, farthest = 6; // what is less far from the paper is paper; so many pixels say how far ink is
let width, height, channels;
let sheet, past = []; // sheet: see blank
let back = null; // the picture under a mask
let mine; // the value last sent or received, to tell it from one that Python sets
let cursor = null, last = null;

find('.title').textContent = props.label;
pad.setAttribute('aria-label', `${props.label}. Arrow keys move the brush, Shift with arrows draws, Space dabs.`);
element.dataset.mode = masking ? 'mask' : 'ink';
for (const group of ['sizes', 'palette']) {
  element.querySelectorAll(`.${group} input`).forEach((input) => { input.name = `${element.id}-${group}`; });
}
if (!masking) find('.palette input').checked = true;

const radius = () => radii[+find('.sizes input:checked').value] * width / 28;
const erasing = () => erase.getAttribute('aria-pressed') === 'true';
const usable = () => !masking || back !== null;
const levels = (text) => text.split(',').map(Number);
const chosen = () => levels(find('.palette input:checked').value);

// pixels: levels, not yet rounded; cover: how much of each pixel is ink of any kind; own: how much the pen of its last
// stroke covers; pen: which that was; paper: its colour.
function blank() {
  const size = width * height, paper = channels === 3 ? levels(paints.dataset.paper) : [0];
  const pixels = Float32Array.from({ length: size * channels }, (_, at) => paper[at % channels]);
  return { pixels, cover: new Float32Array(size), own: new Float32Array(size), pen: new Int32Array(size), paper };
}

const bytes = () => Uint8ClampedArray.from(sheet.pixels); // rounds, and clamps
const isBlank = () => { const { pixels } = blank(); return bytes().every((level, at) => level === pixels[at]); };

// Paper is the border's median; a pixel is as much ink as it is far from the paper, the farthest pixels wholly.
function told(pixels, width, height, channels) {
  const border = [];
  for (let k = 0; k < width * height; k++) {
    const x = k % width, y = Math.floor(k / width);
    if (x === 0 || y === 0 || x === width - 1 || y === height - 1) border.push(k);
  }
  const middle = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
  const paper = Array.from({ length: channels }, (_, c) => middle(border.map((k) => pixels[k * channels + c])));
  const far = Float32Array.from({ length: width * height }, (_, k) => Math.hypot(...paper.map((level, c) => pixels[k * channels + c] - level)));
  const reach = middle([...far].sort((a, b) => b - a).slice(0, farthest));
  return { paper, cover: far.map((distance) => (reach < nearest ? 0 : Math.min(1, distance / reach))) };
}

function remember() {
  past.push(Object.fromEntries(Object.entries(sheet).map(([name, values]) => [name, values.slice()])));
  if (past.length > 50) past.shift();
  undo.disabled = false;
}

// A stroke covers each pixel by its distance to the segment: soft edges for ink, as in MNIST; a mask is all or nothing.
// Over another colour it lies like a glaze; where a line of the same pen meets itself, the one that covers more counts.
function stroke([ax, ay], [bx, by]) {
  const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy, off = erasing();
  const { pixels, cover, own, pen, paper } = sheet;
  const ink = off ? paper : channels === 3 ? chosen() : [255];
  const name = off ? -1 : ink.reduce((sum, level) => 256 * sum + level);
  for (let k = 0; k < cover.length; k++) {
    const x = (k % width) + 0.5 - ax, y = Math.floor(k / width) + 0.5 - ay;
    const along = length ? Math.max(0, Math.min(1, (x * dx + y * dy) / length)) : 0;
    const near = Math.max(0, Math.min(1, radius() + 0.5 - Math.hypot(x - along * dx, y - along * dy)));
    const share = masking ? +(near >= 0.5) : near, had = pen[k] === name ? own[k] : 0;
    if (share <= had) continue;
    const more = (share - had) / (1 - had);
    for (let c = 0; c < channels; c++) pixels[k * channels + c] += more * (ink[c] - pixels[k * channels + c]);
    cover[k] += more * (!off - cover[k]);
    own[k] = share;
    pen[k] = name;
  }
  draw();
}

// As much of the old paper as shows goes, and as much of the new one comes.
function fill(paper) {
  const { pixels, cover, paper: old } = sheet;
  pixels.forEach((level, at) => {
    const c = at % channels;
    pixels[at] = level + (1 - cover[Math.floor(at / channels)]) * (paper[c] - old[c]);
  });
  sheet.paper = paper;
}

// A pixel that is partly ink and partly paper holds some of either's colour, and goes with both.
function take(part) {
  const { cover } = told(back.pixels, width, height, back.channels);
  sheet = blank();
  sheet.cover = cover.map((share) => +(part === 'ink' ? share > 0.25 : share < 0.75));
  sheet.pixels = sheet.cover.map((share) => 255 * share);
}

function draw() {
  if (!masking) paint(pad, sheet.pixels, width, height);
  else {
    Object.assign(pad, { width, height });
    const context = pad.getContext('2d'), image = context.createImageData(width, height);
    const tint = getComputedStyle(pad).color.match(/[0-9.]+/g).map(Number);
    for (let k = 0; k < sheet.pixels.length; k++) {
      // A weave as well as a tint: the mask shows without colour vision, and the picture shows through.
      const weave = (k + Math.floor(k / width)) % 2 ? 215 : 130;
      image.data.set([tint[0], tint[1], tint[2], sheet.pixels[k] ? weave : 0], 4 * k);
    }
    context.putImageData(image, 0, 0);
  }
  element.dataset.painted = sheet.cover.reduce((sum, share) => sum + (share > 0.5), 0);
  find('.hint').hidden = usable() && !isBlank();
}

function commit() {
  const size = { w: width, h: height };
  if (masking) mine = { ...size, px: textOf(back.pixels), mask: textOf(bytes()) };
  else mine = isBlank() ? null : { ...size, px: textOf(bytes()) };
  props.value = mine;
  trigger('input');
}

function receive() {
  const value = props.value || null; // Gradio turns None into ''
  const [h, w, deep = 1] = props.shape || [28, 28];
  if (JSON.stringify(value) === JSON.stringify(mine) && (value || w === width && h === height && deep === channels)) return;
  mine = value;
  const pixels = value && bytesOf(value.px);
  [width, height] = value ? [value.w, value.h] : [w, h];
  const depth = value ? pixels.length / (width * height) : deep;
  channels = masking ? 1 : depth;
  sheet = blank();
  back = masking && value ? { pixels, channels: depth } : null;
  if (value) sheet.pixels = Float32Array.from(back ? bytesOf(value.mask) : pixels);
  // White on black is ink as far as it is white; in colours, ink has to be told from paper.
  if (channels === 3) Object.assign(sheet, told(sheet.pixels, width, height, 3));
  else sheet.cover = sheet.pixels.map((level) => level / 255);
  past = [];
  undo.disabled = true;
  place([width / 2, height / 2]);
  refresh();
}

function refresh() {
  find('.stage').style.aspectRatio = `${width} / ${height}`;
  if (masking) paint(picture, back ? back.pixels : sheet.pixels, width, height);
  else paints.hidden = channels === 1;
  find('.hint').textContent = masking ? (back ? 'Paint over the part to change' : 'No picture yet') : 'Draw here';
  element.dataset.idle = usable() ? '0' : '1';
  for (const control of element.querySelectorAll('.sizes input, .erase, .clear, .parts button')) control.disabled = !usable();
  draw();
}

function place([x, y]) {
  cursor = [x, y];
  const share = (n, side) => `${100 * n / side}%`;
  Object.assign(brush.style, {
    left: share(x, width), top: share(y, height), width: share(2 * radius(), width), height: share(2 * radius(), height),
  });
}

function point(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
}

pad.addEventListener('pointerdown', (event) => {
  if (!usable() || event.button !== 0) return;
  pad.setPointerCapture(event.pointerId);
  remember();
  last = point(event);
  place(last);
  stroke(last, last);
});
pad.addEventListener('pointermove', (event) => {
  place(point(event));
  if (!last) return;
  stroke(last, cursor);
  last = cursor;
});
for (const end of ['pointerup', 'pointercancel']) {
  pad.addEventListener(end, () => { if (last) { last = null; commit(); } });
}

pad.addEventListener('keydown', (event) => {
  if (!usable()) return;
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (step) {
    const from = cursor, goal = [width, height];
    place(cursor.map((n, axis) => Math.max(0, Math.min(goal[axis], n + step[axis]))));
    if (event.shiftKey) { remember(); stroke(from, cursor); commit(); }
  } else if (event.key === ' ') { remember(); stroke(cursor, cursor); commit(); }
  else if (event.key.toLowerCase() === 'z' && (event.ctrlKey || event.metaKey)) takeBack();
  else return;
  event.preventDefault();
});

function takeBack() {
  if (!past.length) return;
  sheet = past.pop();
  undo.disabled = !past.length;
  draw();
  commit();
}

// What changes all of the sheet at once, and can be taken back.
function change(how) {
  remember();
  how();
  draw();
  commit();
}

undo.addEventListener('click', takeBack);
find('.clear').addEventListener('click', () => change(() => { sheet = blank(); }));
erase.addEventListener('click', () => erase.setAttribute('aria-pressed', String(!erasing())));
element.querySelectorAll('.fill').forEach((button) => button.addEventListener('click', () => change(() => fill(chosen()))));
element.querySelectorAll('.parts button').forEach((button) => {
  button.addEventListener('click', () => change(() => take(button.dataset.part)));
});
element.addEventListener('change', (event) => {
  if (event.target.closest('.palette')) erase.setAttribute('aria-pressed', 'false'); // who takes a colour wants to draw
  place(cursor); // perhaps with another brush size
});

watch(['value', 'shape'], receive);
receive();
