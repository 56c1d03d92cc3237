// Draws what the engine computed; nothing is integrated here.

const find = (selector) => element.querySelector(selector);
const [plane, slide, play, position] = ['.plane', '.slide', '.play', '.position'].map(find);
const side = 54, top = 8, bottom = 24, playing = 2600; // milliseconds for all steps
let run = null, backward = true, shown = 0, timer = null, began = 0; // shown: steps done, between whole ones too
const field = make('canvas');

const total = () => run.times.length - 1;
const index = (step) => (backward ? total() - step : step); // into the tables, which rise in t

function read({ px, start, end }, count) {
  const steps = new Int16Array(bytesOf(px).buffer);
  return { start, end, at: (k, path) => steps[k * count + path] / 32767 * 2 * props.reach };
}

function tint() {
  const { w, h } = run.field, bytes = run.shades;
  Object.assign(field, { width: w, height: h });
  const context = field.getContext('2d'), image = context.createImageData(w, h);
  for (let k = 0; k < bytes.length; k++) {
    const force = (bytes[k] - 127.5) / 127.5; // the colours of signed numbers everywhere here: blue below, orange above
    image.data.set([...(force < 0 ? [96, 146, 255] : [255, 150, 60]), Math.round(170 * Math.abs(force))], 4 * k);
  }
  context.putImageData(image, 0, 0);
}

function draw() {
  const width = plane.clientWidth, height = plane.clientHeight;
  if (!run || !width) return;
  const ratio = window.devicePixelRatio || 1;
  if (plane.width !== Math.round(width * ratio) || plane.height !== Math.round(height * ratio)) {
    Object.assign(plane, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  }
  const pen = plane.getContext('2d'), style = getComputedStyle(element);
  const [ink, faint, accent, line] = ['--body-text-color', '--body-text-color-subdued', '--lab-accent', '--lab-groove'].map((name) => style.getPropertyValue(name));
  const right = width - side, low = height - bottom;
  const x = (t) => side + (right - side) * t, y = (value) => top + (low - top) * (props.reach - value) / (2 * props.reach);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.save();
  pen.beginPath();
  pen.rect(side, top, right - side, low - top);
  pen.clip();
  pen.imageSmoothingEnabled = true;
  pen.drawImage(field, side, top, right - side, low - top);
  arrows(pen, faint, x, y);
  const way = backward ? run.backward : run.forward, whole = Math.floor(shown), part = shown - whole;
  pen.strokeStyle = ink;
  pen.lineWidth = 1;
  pen.globalAlpha = Math.max(0.25, Math.min(0.9, 14 / run.count));
  const head = (path) => {
    const [from, to] = [index(whole), index(Math.min(whole + 1, total()))];
    return [
      x(run.times[from] + part * (run.times[to] - run.times[from])),
      y(way.at(from, path) + part * (way.at(to, path) - way.at(from, path))),
    ];
  };
  for (let path = 0; path < run.count; path++) {
    pen.beginPath();
    for (let step = 0; step <= whole; step++) pen.lineTo(x(run.times[index(step)]), y(way.at(index(step), path)));
    pen.lineTo(...head(path));
    pen.stroke();
  }
  pen.globalAlpha = 1;
  pen.fillStyle = ink;
  for (let path = 0; path < run.count; path++) {
    pen.beginPath();
    pen.arc(...head(path), run.count > 60 ? 1.75 : 2.5, 0, 7);
    pen.fill();
  }
  pen.restore();
  ends(pen, way, { ink, accent, line, right, low, y });
  pen.fillStyle = faint;
  pen.font = `11px ${style.fontFamily}`;
  pen.textAlign = 'center';
  for (const t of [0, 0.5, 1]) pen.fillText(t ? String(t) : 't = 0', x(t), height - 7);
  pen.textAlign = 'left';
  pen.fillText('data', 0, height - 7);
  pen.textAlign = 'right';
  pen.fillText('noise', width, height - 7);
}

// Which way and how strongly the score pushes, for those to whom the colours say nothing.
function arrows(pen, colour, x, y) {
  const { w, h } = run.field, bytes = run.shades;
  pen.strokeStyle = colour;
  pen.lineWidth = 1;
  pen.globalAlpha = 0.45;
  for (let t = 0.05; t < 1; t += 0.1) {
    for (let value = -2.75; value <= 2.75; value += 0.5) {
      const row = Math.round((props.reach - value) / (2 * props.reach) * (h - 1));
      const force = (bytes[row * w + Math.round(t * (w - 1))] - 127.5) / 127.5;
      const tip = y(value) - 13 * force, tail = y(value), way = Math.sign(force);
      if (Math.abs(force) < 0.06) continue;
      pen.beginPath();
      pen.moveTo(x(t), tail);
      pen.lineTo(x(t), tip);
      pen.moveTo(x(t) - 2.5, tip + 3 * way);
      pen.lineTo(x(t), tip);
      pen.lineTo(x(t) + 2.5, tip + 3 * way);
      pen.stroke();
    }
  }
  pen.globalAlpha = 1;
}

// Shares per bin, to the left where t = 0 and to the right where t = 1; the end still to be reached shows only the exact ones.
function ends(pen, way, { ink, accent, line, right, low, y }) {
  const done = shown === total();
  for (const [name, edge, sign, reached] of [['start', side, -1, backward ? done : true], ['end', right, 1, backward ? true : done]]) {
    const exact = run.exact[name], most = Math.max(...exact, ...way[name]), bins = exact.length;
    const out = (share) => edge + sign * (4 + (side - 10) * share / most);
    const at = (bin) => y(props.reach - 2 * props.reach * bin / bins);
    if (reached) {
      pen.fillStyle = accent;
      pen.globalAlpha = 0.45;
      pen.beginPath();
      pen.moveTo(edge + sign * 4, top);
      way[name].forEach((share, bin) => { pen.lineTo(out(share), at(bin)); pen.lineTo(out(share), at(bin + 1)); });
      pen.lineTo(edge + sign * 4, low);
      pen.fill();
      pen.globalAlpha = 1;
    }
    pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    exact.forEach((share, bin) => { pen.lineTo(out(share), at(bin)); pen.lineTo(out(share), at(bin + 1)); });
    pen.stroke();
    pen.strokeStyle = line;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(edge, top);
    pen.lineTo(edge, low);
    pen.stroke();
  }
}

function show(step) {
  shown = Math.max(0, Math.min(step, total()));
  const whole = Math.round(shown), k = index(whole);
  slide.value = whole;
  slide.style.setProperty('--share', total() ? shown / total() : 0);
  slide.setAttribute('aria-valuetext', `Step ${whole} of ${total()}, t = ${run.times[k].toFixed(2)}`);
  position.textContent = `t ${run.times[k].toFixed(2)} · σ ${readable(+run.sigmas[k].toPrecision(2))}`;
  draw();
}

function stop() {
  cancelAnimationFrame(timer);
  timer = null;
  play.setAttribute('aria-label', 'Play');
  play.classList.remove('playing');
}

function start() {
  play.setAttribute('aria-label', 'Pause');
  play.classList.add('playing');
  const from = shown >= total() ? 0 : shown;
  began = performance.now() - playing * from / total();
  const tick = (now) => {
    show(total() * Math.max(0, now - began) / playing);
    if (shown >= total()) stop(); else timer = requestAnimationFrame(tick);
  };
  timer = requestAnimationFrame(tick);
}

function receive() {
  if (!props.value) return;
  stop();
  const value = JSON.parse(JSON.stringify(props.value)); // plain and quick to read, which props are not
  run = {
    ...value, shades: bytesOf(value.field.px),
    forward: read(value.forward, value.count), backward: read(value.backward, value.count),
  };
  slide.max = total();
  tint();
  describe();
  show(total());
}

function describe() {
  plane.setAttribute('aria-label', `${props.label}: ${run.count} paths ${backward ? 'from noise to the data' : 'from the data to noise'} over the score`);
  element.dataset.way = backward ? 'backward' : 'forward';
  element.dataset.steps = total();
  element.dataset.paths = run.count;
}

element.querySelectorAll('.ways input').forEach((input) => { input.name = `${element.id}-way`; });
find('.ways').addEventListener('change', (event) => { stop(); backward = event.target.value === 'backward'; describe(); show(total()); });
slide.addEventListener('input', () => { stop(); show(+slide.value); });
play.addEventListener('click', () => { if (timer) stop(); else start(); });
new ResizeObserver(draw).observe(plane);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ['class'] }); // light or dark

watch('value', receive);
receive();
