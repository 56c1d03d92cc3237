// Shared by the widgets that draw curves: SVG nodes, numbers as people write them, arrays of floats.

const floatsOf = (text) => new Float32Array(bytesOf(text).buffer);

function svg(tag, attributes, text) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const superscript = (n) => String(n).replace(/[-0-9]/g, (c) => (c === '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[c]));
const power = (n) => ({ '-2': '0.01', '-1': '0.1', 0: '1', 1: '10', 2: '100' }[n] || `10${superscript(n)}`);

function readable(value) {
  if (value === Infinity) return '∞';
  if (value === 0) return '0';
  const sign = value < 0 ? '−' : '', size = Math.abs(value), exponent = Math.floor(Math.log10(size));
  if (exponent >= -3 && exponent < 4) return sign + String(+size.toPrecision(3));
  return `${sign}${+(size / 10 ** exponent).toPrecision(3)} × 10${superscript(exponent)}`;
}
