// Strokes are computed on the 28 x 28 pixels themselves, so what is on the pad is what the model gets.

const side = 28, masking = props.mode === 'mask';
const find = (selector) => element.querySelector(selector);
const [picture, pad, brush, erase, undo] = ['.picture', '.ink', '.brush', '.erase', '.undo'].map(find);
const radii = masking ? [1.5, 3, 5] : [0.85, 1.25, 2];
let ink = new Uint8Array(side * side), back = null; // back: the picture under a mask, as base64
let past = [], mine = null; // mine: the value last sent, to tell it from one that Python sets
let cursor = [side / 2, side / 2], last = null;

find('.title').textContent = props.label;
pad.setAttribute('aria-label', `${props.label}. Arrow keys move the brush, Shift with arrows draws, Space dabs.`);
element.dataset.mode = props.mode;
element.querySelectorAll('.sizes input').forEach((input) => { input.name = `${element.id}-size`; });

const radius = () => radii[+find('.sizes input:checked').value];
const erasing = () => erase.getAttribute('aria-pressed') === 'true';
const usable = () => !masking || back !== null;

// A stroke covers each pixel by its distance to the segment: soft edges for ink, as in MNIST; a mask is all or nothing.
function stroke([ax, ay], [bx, by]) {
  const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const px = x + 0.5 - ax, py = y + 0.5 - ay;
      const along = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
      const cover = Math.max(0, Math.min(1, radius() + 0.5 - Math.hypot(px - along * dx, py - along * dy)));
      const level = masking ? (cover >= 0.5 ? 255 : 0) : Math.round(255 * cover), k = y * side + x;
      ink[k] = erasing() ? Math.min(ink[k], 255 - level) : Math.max(ink[k], level);
    }
  }
  draw();
}

function draw() {
  if (!masking) { paint(pad, ink, side, side); } else {
    const context = pad.getContext('2d'), image = context.createImageData(side, side);
    const tint = getComputedStyle(pad).color.match(/[0-9.]+/g).map(Number);
    for (let k = 0; k < ink.length; k++) {
      // A weave as well as a tint: the mask shows without colour vision, and the picture shows through.
      const weave = (k + Math.floor(k / side)) % 2 ? 215 : 130;
      image.data.set([tint[0], tint[1], tint[2], ink[k] ? weave : 0], 4 * k);
    }
    context.putImageData(image, 0, 0);
  }
  element.dataset.painted = ink.reduce((sum, level) => sum + (level > 127), 0);
  find('.hint').hidden = usable() && ink.some((level) => level > 0);
}

const remember = () => { past.push(ink.slice()); if (past.length > 50) past.shift(); undo.disabled = false; };

function commit() {
  const blank = !ink.some((level) => level > 0);
  mine = masking ? { picture: back, mask: textOf(ink) } : (blank ? null : textOf(ink));
  props.value = mine;
  trigger('input');
}

function receive() {
  const value = props.value || null; // Gradio turns None into ''
  if (JSON.stringify(value) === JSON.stringify(mine)) return;
  mine = value;
  back = masking && value ? value.picture : null;
  const bytes = masking ? value && value.mask : value;
  ink = bytes ? bytesOf(bytes) : new Uint8Array(side * side);
  past = [];
  undo.disabled = true;
  refresh();
}

function refresh() {
  if (masking) paint(picture, back ? bytesOf(back) : new Uint8Array(side * side), side, side);
  find('.hint').textContent = masking ? (back ? 'Paint over the part to change' : 'No picture yet') : 'Draw here';
  element.dataset.idle = usable() ? '0' : '1';
  for (const control of [erase, find('.clear'), ...element.querySelectorAll('.sizes input')]) control.disabled = !usable();
  draw();
}

function place([x, y]) {
  cursor = [x, y];
  const share = (n) => `${100 * n / side}%`;
  Object.assign(brush.style, { left: share(x), top: share(y), width: share(2 * radius()), height: share(2 * radius()) });
}

function point(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * side / box.width, (event.clientY - box.top) * side / box.height];
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
    const from = cursor;
    place(cursor.map((n, axis) => Math.max(0, Math.min(side, n + step[axis]))));
    if (event.shiftKey) { remember(); stroke(from, cursor); commit(); }
  } else if (event.key === ' ') { remember(); stroke(cursor, cursor); commit(); }
  else if (event.key.toLowerCase() === 'z' && (event.ctrlKey || event.metaKey)) takeBack();
  else return;
  event.preventDefault();
});

function takeBack() {
  if (!past.length) return;
  ink = past.pop();
  undo.disabled = !past.length;
  draw();
  commit();
}

undo.addEventListener('click', takeBack);
find('.clear').addEventListener('click', () => { remember(); ink = new Uint8Array(side * side); draw(); commit(); });
erase.addEventListener('click', () => erase.setAttribute('aria-pressed', String(!erasing())));
element.addEventListener('change', () => place(cursor)); // another brush size

place(cursor);
refresh();
watch('value', receive);
receive();
