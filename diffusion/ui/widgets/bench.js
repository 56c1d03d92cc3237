// x_t = a x0 + s eps, computed here from the schedules' own tables: no move of the slider asks the server.

const find = (selector) => element.querySelector(selector);
const [slide, ladder, numbers] = ['.slide', '.ladder', '.numbers'].map(find);
const rungs = 9;
const paths = props.paths.map((path) => ({
  ...path, t: floatsOf(path.t), a: floatsOf(path.a), s: floatsOf(path.s), sigma: floatsOf(path.sigma),
  beta: path.beta && floatsOf(path.beta),
}));
const last = paths[0].t.length - 1;
let x0 = null, eps = null, width = 0, height = 0;
let chosen = props.opening[0], place = props.opening[1] * last; // place: where on the table, between its entries too
let kept = 'sigma', level = paths[chosen].sigma[Math.round(place)]; // level: the sigma that another schedule is to have

// Between two entries sigma goes evenly in its logarithm, as schedules do; next to 0 or infinity evenly as it is.
function between(path, at) {
  const low = Math.min(Math.floor(at), last - 1), part = at - low;
  const mix = (table) => (part === 0 ? table[low] : part === 1 ? table[low + 1] : table[low] + part * (table[low + 1] - table[low]));
  const { sigma } = path, geometric = part > 0 && part < 1 && sigma[low] > 0;
  return {
    t: mix(path.t), a: mix(path.a), s: mix(path.s),
    sigma: geometric ? sigma[low] * (sigma[low + 1] / sigma[low]) ** part : mix(sigma),
  };
}

function placeOf(path, sigma) {
  const table = path.sigma;
  if (sigma <= table[0]) return 0;
  if (sigma >= table[last]) return last;
  let low = 0, high = last;
  while (high - low > 1) { const mid = (low + high) >> 1; if (table[mid] <= sigma) low = mid; else high = mid; }
  const [below, above] = [table[low], table[high]];
  return low + (below > 0 ? Math.log(sigma / below) / Math.log(above / below) : sigma / above);
}

// Where each schedule stands: at the shown time, or at the shown noise level as near as it gets.
const standing = () => paths.map((path, k) => {
  const at = k === chosen ? place : kept === 'sigma' ? placeOf(path, level) : place;
  return { at, ...between(path, at) };
});

function blend(canvas, a, s, scale = 1) {
  const pixels = new Uint8ClampedArray(x0.length); // rounds and clamps, as the engine does
  for (let k = 0; k < pixels.length; k++) pixels[k] = 127.5 + 127.5 * scale * (a * x0[k] + s * eps[k]);
  paint(canvas, pixels, width, height);
}

const words = ({ t, sigma }) => `t = ${t.toFixed(3)}, σ = ${readable(sigma)}`;

function show() {
  const all = standing(), now = all[chosen], path = paths[chosen];
  if (x0) {
    blend(find('.noised'), now.a, now.s);
    blend(find('.shared'), 1, now.sigma, 1 / Math.hypot(1, now.sigma));
  }
  find('.noised').setAttribute('aria-label', `The noised picture, ${path.name}, ${words(now)}`);
  find('.shared').setAttribute('aria-label', `The same noise level on one scale for all schedules, σ = ${readable(now.sigma)}`);
  find('.a').textContent = now.a.toFixed(3);
  find('.s').textContent = now.s.toFixed(3);
  slide.value = Math.round(place);
  slide.style.setProperty('--share', place / last);
  slide.setAttribute('aria-valuetext', `${path.name}, ${words(now)}`);
  const snr = 1 / now.sigma ** 2;
  const facts = [
    ['t', now.t.toFixed(3)], ['aₜ', readable(now.a)], ['sₜ', readable(now.s)], ['σ = sₜ / aₜ', readable(now.sigma)],
    ['SNR = 1 / σ²', readable(snr)], ['ln SNR', snr === Infinity ? '∞' : readable(Math.log(snr))],
  ];
  facts.forEach(([name, value], k) => {
    const [term, number] = numbers.children[k].children;
    term.textContent = name;
    number.textContent = value;
  });
  find('.path').textContent = path.text;
  [...ladder.children].forEach((rung, k) => {
    rung.setAttribute('aria-current', Math.round(place) === Math.round(k * last / (rungs - 1)) ? 'true' : 'false');
  });
  document.dispatchEvent(new CustomEvent('noise-level', { detail: { paths, chosen, all, kept } }));
}

function climb() {
  [...ladder.children].forEach((rung, k) => {
    const stand = between(paths[chosen], Math.round(k * last / (rungs - 1)));
    if (x0) blend(rung.firstChild, stand.a, stand.s);
    rung.lastChild.textContent = `σ ${readable(+stand.sigma.toPrecision(2))}`;
    rung.setAttribute('aria-label', `Show ${words(stand)}`);
  });
}

function move(at) {
  place = Math.max(0, Math.min(last, at));
  level = between(paths[chosen], place).sigma;
  show();
}

function choose(index) {
  chosen = index;
  if (kept === 'sigma') place = placeOf(paths[chosen], level);
  else level = between(paths[chosen], place).sigma;
  climb();
  show();
}

function receive() {
  const value = props.value;
  if (!value) return;
  ({ w: width, h: height } = value);
  x0 = Float32Array.from(bytesOf(value.px), (byte) => byte / 127.5 - 1);
  eps = floatsOf(value.eps);
  blend(find('.clean'), 1, 0);
  blend(find('.noise'), 0, 1);
  climb();
  show();
}

const radio = (name, value, text, checked) => {
  const label = make('label'), input = make('input');
  Object.assign(input, { type: 'radio', name, value, checked });
  label.append(input, make('span', '', text));
  return label;
};
find('.schedules div').append(...paths.map((path, k) => {
  const entry = radio(`${element.id}-schedule`, k, path.name, k === chosen);
  const key = svg('svg', { class: 'key', viewBox: '0 0 20 8', 'aria-hidden': 'true' });
  key.append(svg('path', { class: `line c${k}`, d: 'M0 4H20' }));
  entry.lastChild.prepend(key);
  return entry;
}));
element.querySelectorAll('.keep input').forEach((input) => { input.name = `${element.id}-keep`; });
ladder.append(...Array.from({ length: rungs }, (_, k) => {
  const rung = make('button');
  rung.type = 'button';
  rung.append(make('canvas'), make('span'));
  rung.addEventListener('click', () => move(Math.round(k * last / (rungs - 1))));
  return rung;
}));
numbers.append(...Array.from({ length: 6 }, () => {
  const fact = make('div');
  fact.append(make('dt'), make('dd'));
  return fact;
}));
find('.clean').setAttribute('aria-label', 'The picture');
find('.noise').setAttribute('aria-label', 'The noise');
slide.max = last;

slide.addEventListener('input', () => move(+slide.value));
find('.schedules').addEventListener('change', (event) => choose(+event.target.value));
find('.keep').addEventListener('change', (event) => {
  kept = event.target.value;
  level = between(paths[chosen], place).sigma;
  show();
});
document.addEventListener('noise-seek', (event) => move(event.detail * last));
document.addEventListener('noise-ask', show);

watch('value', receive);
receive();
