// Numbers as people on shift read them; "–" stands for what is not known.

export const UNKNOWN = "–";

export function percent(share, digits = 1) {
  return share === null || share === undefined ? UNKNOWN : `${(100 * share).toFixed(digits)} %`;
}

/** A rate with its 95 % interval, e.g. `21.3 % [18.5–24.4]`. */
export function rate(r, digits = 1) {
  if (!r || r.value === null) return UNKNOWN;
  const [low, high] = [r.low, r.high].map((x) => (100 * x).toFixed(digits));
  return `${percent(r.value, digits)} [${low}–${high}]`;
}

export function seconds(s) {
  if (s === null || s === undefined) return UNKNOWN;
  if (s < 1) return `${(1000 * s).toFixed(s < 0.01 ? 1 : 0)} ms`;
  return s < 100 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`;
}

export function megabytes(bytesPerSecond) {
  const mb = bytesPerSecond / 1e6;
  return `${mb >= 100 ? mb.toFixed(0) : mb.toFixed(1)} MB/s`;
}

export function count(n) {
  return n === null || n === undefined ? UNKNOWN : n.toLocaleString("en-US").replaceAll(",", "\u2009");
}

/** Three significant digits without an exponent where that is readable. */
export function short(x) {
  if (x === null || x === undefined || !Number.isFinite(x)) return UNKNOWN;
  if (x !== 0 && Math.abs(x) < 1e-4) return x.toExponential(1);
  return String(Number(x.toPrecision(3)));
}

export function withSigma(value, sigma, digits) {
  if (value === null || value === undefined) return UNKNOWN;
  const pm = sigma === null || sigma === undefined ? "" : ` ± ${sigma.toFixed(digits)}`;
  return `${value.toFixed(digits)}${pm}`;
}

export function clock(t_s) {
  return new Date(1000 * t_s).toLocaleTimeString("en-GB");
}
