// A picture of detector cells that can be looked at closer: wheel, pinch, drag and keys.
// Overviews are 4 x 4 cells; where few pixels are in view their counts are fetched and drawn over.

import { limitsOf, paint } from "./colours.js";
import { short } from "./format.js";

const CELL_PX = 4, MOST_SIDE_PX = 1024, NO_COUNTS = 65535;
const HC_EV_A = 12398.41984;
const RINGS_A = [15, 10, 7, 5, 4, 3.5, 3, 2.5, 2, 1.7, 1.5, 1.3, 1.2, 1.1, 1];
const CIRCLE = "#3ddbd9", RING = "rgba(170, 220, 255, 0.75)";
const LEAST_GAP_PX = 34; // between two rings on the screen
const MOST_SCALE = 40; // screen pixels a detector pixel

/** d in angstrom at a radius in metres, or null where the geometry does not say. */
export function dAt(radius_m, geometry) {
  if (!geometry?.clen_m || !geometry?.photon_energy_eV || !(radius_m > 0)) return null;
  const theta = 0.5 * Math.atan2(radius_m, geometry.clen_m);
  return HC_EV_A / geometry.photon_energy_eV / (2 * Math.sin(theta));
}

/** Radius in metres at which d is seen, or null where it is scattered backwards. */
function radiusOf(d_A, geometry) {
  const sine = HC_EV_A / geometry.photon_energy_eV / (2 * d_A);
  return sine < Math.SQRT1_2 ? geometry.clen_m * Math.tan(2 * Math.asin(sine)) : null;
}

function offscreen(values, width, height, low, high) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(paint(values, width, height, low, high), 0, 0);
  return canvas;
}

/** Counts as they come, with the gaps as NaN. */
export function counts(buffer) {
  return Float32Array.from(new Uint16Array(buffer), (n) => (n === NO_COUNTS ? NaN : n));
}

export class FrameView {
  /**
   * @param root section that gets the picture.
   * @param name what it shows, for those who cannot see it.
   * @param closer `async (ss, fs, side) -> Float32Array` of single pixels, or null.
   */
  constructor(root, name, closer) {
    this.name = name;
    this.closer = closer;
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${name}: none yet`);
    this.under = document.createElement("p");
    this.under.className = "under";
    root.append(this.canvas, this.under);
    this.spots = null;
    this.showSpots = this.showRings = true;
    this.pointers = new Map();
    this.view = null;
    this.#listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  /** Show cells of a detector of `shape` (ss, fs); `unit` is what a cell's value is. */
  show({ cells, shape, geometry, spots, label, unit, isMean }) {
    const isOther = !this.shape || this.shape[0] !== shape[0] || this.shape[1] !== shape[1];
    this.shape = shape;
    this.canvas.style.aspectRatio = `${shape[1]} / ${shape[0]}`;
    this.cellShape = shape.map((n) => Math.ceil(n / CELL_PX));
    Object.assign(this, { cells, geometry, spots, unit, crop: null });
    const seen = limitsOf(cells);
    // A frame's cells are counts: what chance makes of the typical cell stays dark.
    const low = isMean ? seen.low : Math.max(0, seen.typical - Math.sqrt(seen.typical));
    const high = isMean ? seen.high : Math.max(12, seen.typical + 8 * Math.sqrt(seen.typical));
    this.base = offscreen(cells, this.cellShape[1], this.cellShape[0], low, high);
    this.canvas.setAttribute("aria-label", `${this.name}: ${label}`);
    if (isOther || !this.view) this.fit();
    else this.draw();
    this.#lookCloser();
  }

  get isClose() {
    return Boolean(this.view) && this.view.scale > 1.05 * this.#fitScale();
  }

  fit() {
    if (!this.shape) return;
    this.view = { fs: this.shape[1] / 2 - 0.5, ss: this.shape[0] / 2 - 0.5, scale: this.#fitScale() };
    this.draw();
  }

  /** Come closer by a factor, keeping the place under (x, y) where it is. */
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.view) return;
    const [fs, ss] = this.#place(x, y);
    const scale = Math.min(MOST_SCALE, Math.max(this.#fitScale(), this.view.scale * factor));
    this.view = { scale, fs: fs - (x - this.canvas.clientWidth / 2) / scale, ss: ss - (y - this.canvas.clientHeight / 2) / scale };
    if (scale === this.#fitScale()) this.fit();
    this.#moved();
  }

  move(dx, dy) {
    if (!this.view) return;
    this.view.fs -= dx / this.view.scale;
    this.view.ss -= dy / this.view.scale;
    this.#moved();
  }

  draw() {
    const { canvas } = this, density = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [canvas.clientWidth, canvas.clientHeight].map((n) => Math.round(n * density));
    const pen = canvas.getContext("2d");
    pen.scale(density, density);
    if (!this.base || !this.view) return;
    const { scale } = this.view;
    pen.imageSmoothingEnabled = CELL_PX * scale < 1;
    const put = (picture, fs, ss, cell) => {
      const [x, y] = this.#screen(fs - 0.5, ss - 0.5);
      pen.drawImage(picture, x, y, picture.width * cell * scale, picture.height * cell * scale);
    };
    put(this.base, 0, 0, CELL_PX);
    if (this.crop) put(this.crop.picture, this.crop.fs, this.crop.ss, 1);
    if (this.showRings) this.#drawRings(pen);
    if (this.showSpots && this.spots) this.#drawSpots(pen);
  }

  #drawSpots(pen) {
    const radius = Math.max(7, Math.min(24, 3.5 * this.view.scale));
    pen.lineWidth = 1.4;
    pen.strokeStyle = CIRCLE;
    this.spots.fs.forEach((fs, i) => {
      const [x, y] = this.#screen(fs, this.spots.ss[i]);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.stroke();
    });
  }

  #drawRings(pen) {
    const g = this.geometry;
    if (!g?.clen_m || !g?.photon_energy_eV) return;
    const [x, y] = this.#screen(...g.beam_center_px);
    pen.strokeStyle = pen.fillStyle = RING;
    pen.lineWidth = 1;
    pen.font = "11px system-ui, sans-serif";
    let last = 0;
    for (const d of RINGS_A) {
      const radius_m = radiusOf(d, g);
      if (radius_m === null) continue;
      const [rx, ry] = g.pixel_size_m.map((size) => (radius_m / size) * this.view.scale);
      if (rx - last < LEAST_GAP_PX || rx > 1.2 * this.canvas.clientWidth * (this.view.scale / this.#fitScale())) continue;
      last = rx;
      pen.setLineDash([4, 5]);
      pen.beginPath();
      pen.ellipse(x, y, rx, ry, 0, 0, 2 * Math.PI);
      pen.stroke();
      pen.setLineDash([]);
      const [lx, ly] = [x + rx * Math.SQRT1_2, y - ry * Math.SQRT1_2];
      if (lx > 0 && ly > 10 && lx < this.canvas.clientWidth - 30) pen.fillText(`${d} Å`, lx + 2, ly);
    }
  }

  #fitScale() {
    const [h, w] = this.shape ?? [1, 1];
    return Math.min(this.canvas.clientWidth / w, this.canvas.clientHeight / h) || 1;
  }

  #screen(fs, ss) {
    const { view, canvas } = this;
    return [(fs - view.fs) * view.scale + canvas.clientWidth / 2, (ss - view.ss) * view.scale + canvas.clientHeight / 2];
  }

  #place(x, y) {
    const { view, canvas } = this;
    return [(x - canvas.clientWidth / 2) / view.scale + view.fs, (y - canvas.clientHeight / 2) / view.scale + view.ss];
  }

  #moved() {
    const [h, w] = this.shape;
    this.view.fs = Math.min(w - 0.5, Math.max(-0.5, this.view.fs));
    this.view.ss = Math.min(h - 0.5, Math.max(-0.5, this.view.ss));
    this.draw();
    this.#lookCloser();
  }

  /** Fetch the single pixels in view, once the hand has rested for a moment. */
  #lookCloser() {
    clearTimeout(this.resting);
    const { canvas, view } = this;
    const sides = [canvas.clientHeight / view.scale, canvas.clientWidth / view.scale];
    if (!this.closer || Math.max(...sides) > MOST_SIDE_PX) return;
    this.resting = setTimeout(async () => {
      const [ss, fs] = [view.ss - sides[0] / 2, view.fs - sides[1] / 2].map((v) => Math.max(0, Math.floor(v)));
      const side = Math.min(MOST_SIDE_PX, Math.ceil(Math.max(...sides)) + 2);
      const of = this.base;
      const values = await this.closer(ss, fs, side);
      if (!values || of !== this.base) return;
      const width = Math.min(side, this.shape[1] - fs), height = Math.min(side, this.shape[0] - ss);
      const seen = limitsOf(values);
      const high = Math.max(6, seen.typical + 8 * Math.sqrt(seen.typical));
      const picture = offscreen(values, width, height, 0, high);
      this.crop = { values, width, height, ss, fs, picture };
      this.draw();
    }, 120);
  }

  /** Say below the picture what is under the pointer. */
  #tell(x, y) {
    if (!this.view) return;
    const [fs, ss] = this.#place(x, y).map(Math.round);
    const [h, w] = this.shape;
    if (fs < 0 || ss < 0 || fs >= w || ss >= h) { this.under.textContent = ""; return; }
    const { crop, geometry: g } = this;
    const inCrop = crop && fs >= crop.fs && ss >= crop.ss && fs < crop.fs + crop.width && ss < crop.ss + crop.height;
    const cell = this.cells[Math.floor(ss / CELL_PX) * this.cellShape[1] + Math.floor(fs / CELL_PX)];
    const value = inCrop ? crop.values[(ss - crop.ss) * crop.width + fs - crop.fs] : cell;
    const what = Number.isNaN(value) ? "no counts" : `${short(value)} ${inCrop ? "photons in this pixel" : this.unit}`;
    const radius_m = g ? Math.hypot((fs - g.beam_center_px[0]) * g.pixel_size_m[0], (ss - g.beam_center_px[1]) * g.pixel_size_m[1]) : 0;
    const d = dAt(radius_m, g);
    this.under.textContent = `fs ${fs}, ss ${ss}: ${what}${d ? ` · ${d.toFixed(2)} Å` : ""}`;
  }

  #listen() {
    const { canvas } = this;
    const at = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), ...at(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => this.zoom(3, ...at(event)));
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
    });
    canvas.addEventListener("pointermove", (event) => this.#drag(event, at(event)));
    for (const over of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(over, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #drag(event, now) {
    this.#tell(...now);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers.entries()].filter(([id]) => id !== event.pointerId);
    if (others.length) {
      const other = others[0][1];
      const far = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      this.zoom(far(now) / far(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else {
      this.move(now[0] - before[0], now[1] - before[1]);
    }
    this.pointers.set(event.pointerId, now);
  }

  #key(event) {
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) this.move(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.6);
    else if (event.key === "-") this.zoom(1 / 1.6);
    else if (event.key === "0") this.fit();
    else if (event.key === "c") { this.showSpots = !this.showSpots; this.draw(); }
    else if (event.key === "r") { this.showRings = !this.showRings; this.draw(); }
    else return;
    event.preventDefault();
  }
}
