// From counts to colours: black, violet, red, yellow, white, as bright as it is high.

const ANCHORS = [
  [0, 4, 4, 12], [0.2, 42, 15, 84], [0.4, 114, 31, 111], [0.6, 190, 55, 98],
  [0.78, 243, 114, 79], [0.92, 253, 200, 120], [1, 252, 253, 230],
];
export const GAP = [70, 76, 84];

/** 256 colours, RGB. */
export const PALETTE = Array.from({ length: 256 }, (_, i) => {
  const x = i / 255;
  const k = Math.max(1, ANCHORS.findIndex(([at]) => at >= x));
  const [a, b] = [ANCHORS[k - 1], ANCHORS[k]];
  const f = (x - a[0]) / (b[0] - a[0]);
  return [1, 2, 3].map((c) => Math.round(a[c] + f * (b[c] - a[c])));
});

/** Where black ends and white begins: from the typical cell to what chance does not reach. */
export function limitsOf(values) {
  const step = Math.max(1, Math.floor(values.length / 20000));
  const some = [];
  for (let i = 0; i < values.length; i += step) {
    if (Number.isFinite(values[i])) some.push(values[i]);
  }
  some.sort((a, b) => a - b);
  const at = (q) => some[Math.min(some.length - 1, Math.floor(q * some.length))] ?? 0;
  return { typical: at(0.5), low: at(0.02), high: at(0.999), top: some.at(-1) ?? 0 };
}

/** Return an ImageData of `values` (row by row), NaN as gap; brightness goes with the root. */
export function paint(values, width, height, low, high) {
  const image = new ImageData(width, height);
  const span = high > low ? high - low : 1;
  for (let i = 0, o = 0; i < values.length; i += 1, o += 4) {
    const v = values[i];
    const share = v > low ? Math.sqrt(Math.min((v - low) / span, 1)) : 0;
    const [r, g, b] = Number.isNaN(v) ? GAP : PALETTE[Math.round(255 * share)];
    image.data[o] = r;
    image.data[o + 1] = g;
    image.data[o + 2] = b;
    image.data[o + 3] = 255;
  }
  return image;
}
