// Builds the table once for each run and afterwards only the cells that changed, so that focus and scrolling stay.

const find = (selector) => element.querySelector(selector);
const frame = find('.frame'), head = find('thead'), body = find('tbody');
let run = null, shown = [], chosen = null;

const heading = (scope, text, note) => {
  const cell = make('th');
  cell.scope = scope;
  cell.append(make('span', 'name', text));
  if (note) cell.append(make('span', 'note', note));
  return cell;
};

function build({ caption, corner, columns, rows }) {
  find('caption').textContent = caption;
  const top = make('tr');
  find('table').style.setProperty('--columns', columns.length);
  top.append(heading('col', corner), ...columns.map((column) => heading('col', column)));
  head.replaceChildren(top);
  body.replaceChildren(...rows.map((row, r) => {
    const line = make('tr'), name = heading('row', row.name, row.note);
    name.prepend(symbol(r));
    line.append(name, ...row.cells.map((_, c) => {
      const cell = make('td');
      if (row.cells.length < columns.length) cell.colSpan = columns.length;
      cell.append(button(r, c));
      return cell;
    }));
    return line;
  }));
  shown = rows.map((row) => row.cells.map(() => null));
}

function button(r, c) {
  const node = make('button', 'cell'), canvas = make('canvas');
  Object.assign(node, { type: 'button', disabled: true });
  Object.assign(node.dataset, { row: r, column: c });
  canvas.setAttribute('aria-hidden', 'true');
  node.append(canvas, make('span', 'facts'));
  return node;
}

const at = (r, c) => body.children[r]?.children[c + 1]?.firstChild;

function fill(node, cell) {
  const [canvas, facts] = node.children, done = cell.state === 'done';
  node.dataset.state = cell.state;
  node.disabled = !done;
  if (!done) {
    facts.replaceChildren(make('span', cell.state === 'running' ? '' : 'unseen', cell.state === 'running' ? 'running' : 'waiting'));
    return;
  }
  paint(canvas, bytesOf(cell.px), cell.w, cell.h);
  facts.replaceChildren(...cell.facts.map(({ text, meaning, best }) => {
    const fact = make('span', best ? 'fact best' : 'fact');
    fact.append(text);
    if (meaning || best) fact.append(make('span', 'unseen', ` ${meaning}${best ? ', the best' : ''};`));
    return fact;
  }));
}

const cells = () => [...body.querySelectorAll('.cell')];
const same = (place, node) => place && +node.dataset.row === place[0] && +node.dataset.column === place[1];

// One tab stop for the whole table; the arrow keys move inside it.
function rove(node) {
  for (const cell of cells()) cell.tabIndex = cell === node ? 0 : -1;
}

function mark() {
  for (const cell of cells()) cell.setAttribute('aria-pressed', same(chosen, cell));
  const finished = cells().filter((cell) => !cell.disabled);
  if (!finished.some((cell) => cell.tabIndex === 0)) rove(finished.find((cell) => same(chosen, cell)) || finished[0]);
}

function receive() {
  const value = props.value;
  if (!value) return;
  if (value.run !== run || value.rows.length !== shown.length) {
    build(value);
    chosen = null;
    frame.scrollLeft = 0;
  }
  run = value.run;
  chosen ??= value.selected;
  find('.about').textContent = value.key;
  value.rows.forEach((row, r) => row.cells.forEach((cell, c) => {
    const text = JSON.stringify(cell);
    if (shown[r][c] === text) return;
    shown[r][c] = text;
    fill(at(r, c), cell);
  }));
  element.dataset.filled = cells().filter((cell) => !cell.disabled).length;
  mark();
  reach();
}

// What scrolls must be within reach of the keyboard even where nothing in it is.
function reach() {
  const scrolls = frame.scrollWidth > frame.clientWidth + 1;
  frame.classList.toggle('scrolls', scrolls);
  if (scrolls && !cells().some((cell) => !cell.disabled)) frame.tabIndex = 0; else frame.removeAttribute('tabindex');
}

body.addEventListener('click', (event) => {
  const cell = event.target.closest('.cell');
  if (!cell || cell.disabled) return;
  chosen = [+cell.dataset.row, +cell.dataset.column];
  rove(cell);
  mark();
  trigger('select', { index: chosen, value: run });
});

body.addEventListener('keydown', (event) => {
  const from = event.target.closest('.cell');
  const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!from || !way) return;
  event.preventDefault();
  let r = +from.dataset.row, c = +from.dataset.column;
  for (;;) { // past cells that are not there yet
    r += way[0];
    c += way[1];
    if (r < 0 || c < 0 || r >= body.children.length) return;
    const cell = at(r, Math.min(c, body.children[r].children.length - 2));
    if (!cell || (way[1] && c > body.children[r].children.length - 2)) return;
    if (!cell.disabled) { rove(cell); cell.focus(); return; }
  }
});

new ResizeObserver(reach).observe(frame);
watch('value', receive);
receive();
