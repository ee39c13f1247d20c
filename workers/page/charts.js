// Charts drawn as SVG at the size of their place: lines with bands over time, bars, number lines.
// Colours are classes of the style sheet, so that dark and light need nothing here.

import { short } from "./format.js";

const NS = "http://www.w3.org/2000/svg";
const LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 20;

function add(parent, name, attributes, text) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

/** Round numbers between two, about `n` of them. */
export function ticks(low, high, n) {
  const raw = (high - low) / Math.max(n, 1);
  if (!(raw > 0) || !Number.isFinite(raw)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((f) => f * power >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

/** Empty a chart, say what it shows, and return its scales. */
function frame(svg, label, x, y, { xTicks, xText = short, yText = short }) {
  svg.replaceChildren();
  svg.setAttribute("aria-label", label);
  const width = svg.clientWidth || 300, height = svg.clientHeight || 150;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const X = (v) => LEFT + ((v - x[0]) / (x[1] - x[0] || 1)) * (width - LEFT - RIGHT);
  const Y = (v) => {
    const share = Math.min(1, Math.max(0, (v - y[0]) / (y[1] - y[0] || 1))); // what is higher ends at the top
    return height - BOTTOM - share * (height - TOP - BOTTOM);
  };
  for (const t of ticks(y[0], y[1], height / 45)) {
    add(svg, "line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: Y(t), y2: Y(t) });
    add(svg, "text", { x: LEFT - 5, y: Y(t) + 4, "text-anchor": "end" }, yText(t));
  }
  for (const t of xTicks ?? ticks(x[0], x[1], width / 80)) {
    add(svg, "text", { x: X(t), y: height - 5, "text-anchor": "middle" }, xText(t));
  }
  return { X, Y, width, height };
}

function nothing(svg, label, text) {
  svg.replaceChildren();
  svg.setAttribute("aria-label", `${label}: ${text}`);
  const width = svg.clientWidth || 300, height = svg.clientHeight || 150;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  add(svg, "text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, text);
}

/** Places of neighbouring known values, run by run. */
function runs(ys) {
  const found = [];
  ys.forEach((y, i) => {
    if (y === null || y === undefined) return;
    if (found.at(-1)?.at(-1) === i - 1) found.at(-1).push(i);
    else found.push([i]);
  });
  return found;
}

/** A path over runs of known values; one alone is a dot. */
function path(xs, ys, X, Y) {
  return runs(ys).map((run) => {
    const at = run.map((i) => `${X(xs[i]).toFixed(1)} ${Y(ys[i]).toFixed(1)}`);
    return `M${at.join("L")}${run.length === 1 ? "h0.1" : ""}`;
  }).join("");
}

/**
 * Lines, each `{xs, ys, lows, highs, kind, dashed}`, over one x.
 * @param options `label`, `x` and `y` as [low, high] where fixed, `xTicks`, `xText`, `yText`.
 */
export function lineChart(svg, lines, options) {
  const known = lines.flatMap((l) => [...l.ys, ...(l.highs ?? [])]).filter((v) => v !== null);
  if (!known.length) return nothing(svg, options.label, options.empty ?? "nothing yet");
  const xs = lines.flatMap((l) => l.xs);
  const x = options.x ?? [Math.min(...xs), Math.max(...xs)];
  const y = options.y ?? [0, (1.08 * Math.max(...known)) || 1];
  const { X, Y } = frame(svg, options.label, x, y, options);
  for (const line of lines) {
    const group = add(svg, "g", { class: line.kind });
    if (line.lows) {
      for (const run of runs(line.lows)) {
        const at = (ys) => run.map((i) => `${X(line.xs[i]).toFixed(1)} ${Y(ys[i]).toFixed(1)}`);
        const around = [...at(line.highs), ...at(line.lows).reverse()];
        add(group, "path", { class: "band", d: `M${around.join("L")}Z` });
      }
    }
    const shape = line.dashed ? "line dashed" : "line";
    add(group, "path", { class: shape, d: path(line.xs, line.ys, X, Y) });
  }
  return undefined;
}

/** Bars between `edges`. */
export function barChart(svg, edges, counts, options) {
  const most = Math.max(0, ...counts);
  if (!most) return nothing(svg, options.label, "no hits yet");
  const x = [edges[0], edges.at(-1)];
  const { X, Y } = frame(svg, options.label, x, [0, 1.05 * most], options);
  const group = add(svg, "g", { class: "hits" });
  counts.forEach((n, i) => {
    const left = X(edges[i]), width = X(edges[i + 1]) - left;
    const bar = { x: left + 0.5, y: Y(n), width: Math.max(width - 1, 0.5), height: Y(0) - Y(n) };
    if (n) add(group, "rect", { class: "bar", ...bar });
  });
  return undefined;
}

/**
 * What the pixels say of one value (with one and two sigma) beside what the header says.
 * @param said `{value, sigma, header, unit, text, differs}`.
 */
export function numberLine(svg, said, label) {
  if (said.value === null || said.value === undefined) return nothing(svg, label, "not known yet");
  const reach = Math.max(3 * said.sigma, 1.3 * Math.abs((said.header ?? said.value) - said.value), said.least);
  const x = [said.value - reach, said.value + reach];
  svg.replaceChildren();
  svg.setAttribute("aria-label", `${label}: ${said.text}`);
  const width = svg.clientWidth || 300, height = svg.clientHeight || 70, middle = 36;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const X = (v) => 12 + ((v - x[0]) / (x[1] - x[0])) * (width - 24);
  add(svg, "line", { class: "zero", x1: 4, x2: width - 4, y1: middle + 14, y2: middle + 14 });
  for (const t of ticks(x[0], x[1], width / 90)) {
    add(svg, "line", { class: "zero", x1: X(t), x2: X(t), y1: middle + 14, y2: middle + 18 });
    add(svg, "text", { x: X(t), y: middle + 31, "text-anchor": "middle" }, `${t} ${said.unit}`);
  }
  const group = add(svg, "g", { class: "of-series" });
  for (const n of [2, 1]) {
    const left = X(said.value - n * said.sigma), right = X(said.value + n * said.sigma);
    add(group, "rect", { class: "band", x: left, width: Math.max(right - left, 1), y: middle - 10, height: 20 });
  }
  add(group, "circle", { class: "dot", cx: X(said.value), cy: middle, r: 5 });
  if (said.header !== null && said.header !== undefined) {
    const kind = said.differs ? "bad" : "ink";
    const header = add(svg, "g", { class: kind });
    const at = { x1: X(said.header), x2: X(said.header), y1: middle - 16, y2: middle + 14 };
    add(header, "line", { class: "line dashed", ...at });
  }
  add(svg, "text", { x: 4, y: 13, class: said.differs ? "bad" : "" }, said.text);
  return undefined;
}
