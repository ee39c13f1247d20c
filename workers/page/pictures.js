// The three pictures: latest hit, latest miss, sums of either. Each fetches what it shows.

import { FrameView, counts } from "./frame_view.js";
import { UNKNOWN, clock, count, short, withSigma } from "./format.js";

const SUMS_EVERY_S = 4;

async function bytes(url) {
  const answer = await fetch(url);
  return answer.ok ? answer.arrayBuffer() : null;
}

function button(text, title, act) {
  const made = document.createElement("button");
  Object.assign(made, { type: "button", textContent: text, title });
  made.addEventListener("click", act);
  return made;
}

function bar(root, ...buttons) {
  const made = document.createElement("div");
  made.className = "bar";
  made.append(...buttons);
  root.append(made);
  return made;
}

function viewButtons(view) {
  return [
    button("+", "Look closer (+)", () => view().zoom(1.6)),
    button("−", "Step back (-)", () => view().zoom(1 / 1.6)),
    button("all", "Whole detector (0)", () => view().fit()),
  ];
}

/** What a frame's picture says below it. */
function captionOf(f) {
  const said = [
    `series ${f.series} frame ${f.frame}, ${clock(f.t_received_ns * 1e-9)}`,
    `p ${f.p_hit === null ? UNKNOWN : f.p_hit.toFixed(3)} (threshold ${f.threshold === null ? UNKNOWN : f.threshold.toFixed(3)})`,
    `${count(f.n_photons)} photons`,
  ];
  if (f.outcome === "hit") said.push(`${f.n_peaks} spots`);
  if (f.d_min_A !== null) said.push(`${f.d_min_A.toFixed(1)} Å`);
  if (f.tells_parameters) {
    said.push(`${withSigma(f.photon_energy_eV, f.photon_energy_sigma_eV, 0)} eV`, `${withSigma(f.clen_m, f.clen_sigma_m, 3)} m`);
  }
  if (f.file) said.push(`${f.file} //${f.row}`);
  return said.join(" · ");
}

/** The latest frames of one outcome: shows the newest until somebody looks closer or holds it. */
export class FramePicture {
  constructor(root, outcome) {
    this.outcome = outcome;
    this.held = false;
    this.number = null;
    this.hold = button("hold", "Keep this frame (space)", () => this.setHeld(!this.held));
    bar(root, this.hold, ...viewButtons(() => this.view));
    this.view = new FrameView(root, `Latest ${outcome}`, (ss, fs, side) => this.#closer(ss, fs, side));
    this.caption = document.createElement("p");
    this.caption.className = "caption";
    this.caption.textContent = `no ${outcome} yet`;
    this.chips = document.createElement("div");
    this.chips.className = "chips";
    root.append(this.caption, this.chips);
    this.view.canvas.addEventListener("keydown", (event) => {
      if (event.key === " ") { event.preventDefault(); this.setHeld(!this.held); }
    });
  }

  setHeld(held) {
    this.held = held;
    this.hold.setAttribute("aria-pressed", held);
  }

  /** Take the page's state. */
  async update(state) {
    const frames = state.frames[this.outcome];
    this.geometry = state.powder;
    const isFree = !this.held && !this.view.isClose;
    if (frames.length && isFree && frames[0].number !== this.number) await this.#show(frames[0].number);
    this.#list(frames);
  }

  #list(frames) {
    if (this.outcome !== "hit") return;
    const chips = frames.map((f) => {
      const chip = button(`${f.frame} · ${f.n_peaks ?? 0}`, `series ${f.series} frame ${f.frame}, ${f.n_peaks} spots`, () => {
        this.setHeld(true);
        this.#show(f.number);
      });
      chip.setAttribute("aria-pressed", f.number === this.number);
      return chip;
    });
    // Replacing what has the keyboard's focus would take it away.
    if (!this.chips.contains(document.activeElement)) this.chips.replaceChildren(...chips);
  }

  async #show(number) {
    const [said, cells] = await Promise.all([fetch(`frames/${number}`), bytes(`frames/${number}/pooled`)]);
    if (!said.ok || !cells) return;
    const f = await said.json();
    this.number = number;
    const geometry = this.geometry?.series === f.series ? this.geometry : null;
    const label = captionOf(f);
    this.caption.textContent = label;
    this.view.show({ cells: counts(cells), shape: f.shape, geometry, spots: f.peaks, label, unit: "photons in 4 × 4 pixels" });
  }

  async #closer(ss, fs, side) {
    const found = await bytes(`frames/${this.number}/${ss}/${fs}/${side}`);
    return found && counts(found);
  }
}

/** Means of the sampled hits, of the sampled misses, or of one less the other. */
export class PowderPicture {
  constructor(root) {
    this.kind = "hit";
    this.due_s = 0;
    const kinds = [["hit", "hits"], ["miss", "misses"], ["less", "hits − misses"]];
    this.buttons = kinds.map(([kind, text]) => {
      const made = button(text, `Mean of ${text}`, () => this.choose(kind));
      made.setAttribute("aria-pressed", kind === this.kind);
      made.dataset.kind = kind;
      return made;
    });
    bar(root, ...this.buttons, ...viewButtons(() => this.view));
    this.view = new FrameView(root, "Virtual powder", null);
    this.caption = document.createElement("p");
    this.caption.className = "caption";
    root.append(this.caption);
  }

  choose(kind) {
    this.kind = kind;
    this.due_s = 0;
    for (const b of this.buttons) b.setAttribute("aria-pressed", b.dataset.kind === kind);
    if (this.state) this.update(this.state);
  }

  async update(state) {
    this.state = state;
    const { powder } = state, now_s = performance.now() / 1000;
    if (!powder || now_s < this.due_s) return;
    this.due_s = now_s + SUMS_EVERY_S;
    const wanted = this.kind === "less" ? ["hit", "miss"] : [this.kind];
    if (wanted.some((kind) => !powder.n_frames[kind])) {
      this.caption.textContent = `no ${wanted[0] === "hit" ? "hits" : "misses"} in series ${powder.series} yet`;
      return;
    }
    const found = await Promise.all(wanted.map((kind) => bytes(`powder/${kind}`)));
    if (found.some((b) => !b)) return;
    const [one, other] = found.map((b) => new Float32Array(b));
    const cells = other ? one.map((v, i) => v - other[i]) : one;
    const label = `series ${powder.series}, ${this.#share(state, wanted)}`;
    this.caption.textContent = label;
    this.view.show({ cells, shape: powder.shape, geometry: powder, label, unit: "photons per pixel and frame", isMean: true });
  }

  /** Which share of the series' frames is in the sum. */
  #share(state, wanted) {
    const { powder } = state;
    const series = [...state.series_open, ...state.series_closed].findLast((s) => s.series === powder.series);
    const of = series && (series.counts ?? series);
    return wanted.map((kind) => {
      const n = powder.n_frames[kind], all = of?.[kind];
      const names = kind === "hit" ? "hits" : "misses";
      return all ? `${count(n)} of ${count(all)} ${names} (${short((100 * n) / all)} %)` : `${count(n)} ${names}`;
    }).join(", ");
  }
}
