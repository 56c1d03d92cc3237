// A colour, a shape and a pattern for each row, the same in the table and in the plot.

const shapes = [
  'M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0', 'M-4 -4H4V4H-4Z', 'M0 -5.4L5 3.6H-5Z',
  'M0 -5.6L5.6 0L0 5.6L-5.6 0Z', 'M0 5.4L5 -3.6H-5Z', 'M-4.6 -2.2L-2.2 -4.6L0 -2.4L2.2 -4.6L4.6 -2.2L2.4 0L4.6 2.2L2.2 4.6L0 2.4L-2.2 4.6L-4.6 2.2L-2.4 0Z',
];
const tones = (row) => `c${row % 6}${row < 6 ? '' : ' hollow'}`;

function marker(row, x, y) {
  return svg('path', { class: `marker ${tones(row)}`, d: shapes[row % 6], transform: `translate(${x} ${y})` });
}

function symbol(row) {
  const icon = svg('svg', { class: 'symbol', viewBox: '-16 -8 32 16', 'aria-hidden': 'true' });
  icon.append(svg('path', { class: `line ${tones(row)}`, d: 'M-16 0H16' }), marker(row, 0, 0));
  return icon;
}
