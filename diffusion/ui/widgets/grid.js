const cells = element.querySelector('.cells'), detail = element.querySelector('.detail');
const words = { agree: 'what was asked for', doubt: 'read with doubt', differ: 'not what was asked for' };
const shapes = { agree: 'M4 8.5l3 3 5.5-7', doubt: 'M5.2 5.6a2.8 2.8 0 1 1 4.3 2.4Q8 9 8 10M8 13v.01', differ: 'M4.5 4.5l7 7M11.5 4.5l-7 7' };
const smallest = 32, largest = { 1: 280, 2: 200, 4: 168, 9: 140, 16: 112 };
let columns = 1, selected = null;

cells.setAttribute('aria-label', props.label);

function badge(mark) {
  const icon = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  icon.setAttribute('viewBox', '0 0 16 16');
  icon.setAttribute('aria-hidden', 'true');
  path.setAttribute('d', shapes[mark]);
  icon.append(path);
  return icon;
}

function build(count) {
  const blank = () => {
    const cell = make('div', 'cell');
    cell.setAttribute('role', 'option');
    cell.append(make('canvas'), make('span', 'caption'));
    return cell;
  };
  cells.replaceChildren(...Array.from({ length: count }, blank));
  arrange();
}

// The most nearly square arrangement without a lonely last row, as far as the width allows.
function arrange() {
  const count = cells.children.length, width = element.clientWidth;
  if (!count || !width) return;
  const gap = count > 25 ? 4 : 6, fit = Math.max(1, Math.floor((width + gap) / (smallest + gap)));
  const square = Math.ceil(Math.sqrt(count));
  const candidates = [];
  for (let c = Math.min(fit, square); c <= Math.min(fit, count, 2 * square); c++) candidates.push(c);
  const waste = (c) => (Math.ceil(count / c) * c - count) + Math.abs(c - square);
  const wanted = Math.min(props.columns || 0, count), row = wanted && wanted * (props.narrowest + gap) <= width + gap;
  columns = row ? wanted : candidates.sort((a, b) => waste(a) - waste(b))[0];
  const limit = Object.entries(largest).find(([most]) => count <= most)?.[1] ?? 84;
  const size = Math.min(limit, Math.floor((width - gap * (columns - 1)) / columns));
  cells.style.gridTemplateColumns = `repeat(${columns}, ${size}px)`;
  cells.style.gap = `${gap}px`;
  cells.classList.toggle('tight', size < 64); // captions no longer fit below: the line under the grid carries them
}

function describe(index) {
  const { captions, marks } = props.value;
  return [`Picture ${index + 1}`, captions[index], words[marks[index]]].filter(Boolean).join(', ');
}

function tell(index) {
  const { captions, marks, done } = props.value || {};
  detail.textContent = done && index !== null && (captions[index] || marks[index]) ? describe(index) : '';
}

function mark(index) {
  selected = index;
  [...cells.children].forEach((cell, k) => cell.setAttribute('aria-selected', k === selected));
  const entry = selected ?? Math.max(0, [...cells.children].findIndex((cell) => cell.tabIndex === 0));
  rove(entry, false);
  tell(selected);
}

// Roving tabindex: the grid is one tab stop and the arrow keys move inside it.
function rove(index, focus) {
  [...cells.children].forEach((cell, k) => { if (k === index) cell.tabIndex = 0; else cell.tabIndex = -1; });
  if (focus) cells.children[index].focus();
}

function choose(index) {
  mark(index === selected ? null : index);
  props.value = { ...props.value, selected };
  trigger('input');
}

function receive() {
  const value = props.value;
  element.dataset.done = value && value.done ? '1' : '0';
  if (!value) { cells.replaceChildren(); detail.textContent = ''; return; }
  if (cells.children.length !== value.count) build(value.count);
  const all = bytesOf(value.px), size = all.length / value.count;
  const captioned = value.captions.length > 0 || value.marks.length > 0;
  // The room for captions stays while the next run is drawn, so that nothing jumps.
  if (value.done) cells.classList.toggle('captioned', captioned);
  [...cells.children].forEach((cell, k) => {
    const [canvas, caption] = cell.children;
    paint(canvas, all.subarray(k * size, (k + 1) * size), value.w, value.h);
    caption.replaceChildren();
    if (value.marks[k]) caption.append(badge(value.marks[k]));
    caption.append(make('span', '', value.captions[k] || ''));
    cell.dataset.mark = value.marks[k] || '';
    cell.setAttribute('aria-label', describe(k));
    if (value.done) cell.removeAttribute('aria-disabled'); else cell.setAttribute('aria-disabled', 'true');
  });
  if (value.done) mark(value.selected);
  else { mark(null); [...cells.children].forEach((cell) => cell.removeAttribute('tabindex')); }
}

const indexOf = (event) => [...cells.children].indexOf(event.target.closest('.cell'));
const ready = () => props.value && props.value.done;

cells.addEventListener('click', (event) => {
  const index = indexOf(event);
  if (ready() && index >= 0) { rove(index, true); choose(index); }
});
cells.addEventListener('keydown', (event) => {
  const from = indexOf(event), last = cells.children.length - 1;
  if (!ready() || from < 0) return;
  const to = {
    ArrowLeft: from - 1, ArrowRight: from + 1, ArrowUp: from - columns, ArrowDown: from + columns, Home: 0, End: last,
  }[event.key];
  if (to !== undefined) { if (to >= 0 && to <= last) rove(to, true); } else if (event.key === 'Enter' || event.key === ' ') choose(from);
  else return;
  event.preventDefault();
});
cells.addEventListener('focusin', (event) => tell(indexOf(event)));
cells.addEventListener('focusout', () => tell(selected));
cells.addEventListener('pointerover', (event) => { const index = indexOf(event); if (index >= 0) tell(index); });
cells.addEventListener('pointerleave', () => tell(selected));

new ResizeObserver(arrange).observe(element);
watch('value', receive);
receive();
