// The page: asks for the state once a second and puts it where it belongs.

import { barChart, lineChart, numberLine } from "./charts.js";
import { showChanges } from "./controls.js";
import { UNKNOWN, clock, count, megabytes, percent, rate, seconds, short, withSigma } from "./format.js";
import { dAt } from "./frame_view.js";
import { FramePicture, PowderPicture } from "./pictures.js";

const EVERY_MS = 1000, HIDDEN_MS = 15000, TIMEOUT_MS = 5000;
const GROUP_S = 5; // of the hit rate's history: at 100 frames/s and 20 % hits, ± 3 %
const WORDS = {
  header_mismatch: "Header contradicts pixels", hit_rate_collapse: "Hit rate collapsed",
  background_drift: "Background drifts", saturation: "Saturated pixels",
  eight_bit_wrap: "8-bit counters may wrap", hot_pixels: "Hot pixels appear",
  frames_lost: "Frames lost", ring_filling: "Ring is filling", child_restarting: "A process died",
  detector_buffer: "Detector's buffer fills", detector_silent: "Detector's REST is silent",
  bad_bytes: "Malformed messages", no_source: "No detector",
};
const $ = (id) => document.getElementById(id);
const say = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function showAlarms(alarms) {
  const now = JSON.stringify(alarms);
  if ($("alarms").dataset.shown === now) return; // else a reader's voice would repeat it each second
  $("alarms").dataset.shown = now;
  $("alarms").replaceChildren(...alarms.map((a) => {
    const box = element("div", undefined, `alarm ${a.urgency}`);
    box.append(element("b", WORDS[a.name] ?? a.name), element("span", a.text), element("span", a.advice));
    return box;
  }));
}

/** Wilson's interval of k in n at 95 %, as the daemon computes it for its own figures. */
function wilson(k, n) {
  if (!n) return [null, null, null];
  const z2 = 1.959964 ** 2, share = k / n;
  const middle = (share + z2 / (2 * n)) / (1 + z2 / n);
  const half = (1.959964 / (1 + z2 / n)) * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n));
  return [share, Math.max(0, middle - half), Math.min(1, middle + half)];
}

function showRates(state) {
  const r = state.hit_rate, h = state.history;
  say("rate-minute", percent(r.minute.value));
  say("rate-minute-i", `last minute, 95 %: ${r.minute.value === null ? UNKNOWN : `${percent(r.minute.low)} to ${percent(r.minute.high)}`}`);
  say("rate-second", rate(r.second, 0));
  say("rate-series", rate(r.series));
  say("hits", r.series ? `${count(r.series.hits)} of ${count(r.series.judged)}` : UNKNOWN);
  const groups = [];
  h.t_s.forEach((t, i) => {
    if (!groups.length && h.hits[i] + h.misses[i] === 0) return; // before the first frame
    const key = Math.floor(t / GROUP_S);
    if (groups.at(-1)?.key !== key) groups.push({ key, t: 0, hits: 0, misses: 0 });
    const g = groups.at(-1);
    g.t = t; g.hits += h.hits[i]; g.misses += h.misses[i];
  });
  const shares = groups.map((g) => wilson(g.hits, g.hits + g.misses));
  const xs = groups.map((g) => g.t);
  const lines = [{ xs, ys: shares.map((s) => s[0]), lows: shares.map((s) => s[1]), highs: shares.map((s) => s[2]), kind: "hits" }];
  if (r.series?.value !== null && r.series && xs.length) {
    lines.push({ xs: [xs[0], xs.at(-1)], ys: [r.series.value, r.series.value], kind: "of-series", dashed: true });
  }
  const known = shares.map((s) => s[0]).filter((s) => s !== null).sort((a, b) => a - b);
  const top = Math.min(1, 1.6 * (known.at(-1) ?? 1) + 0.02);
  const last = r.minute.value === null ? "" : `, last minute ${rate(r.minute)}`;
  lineChart($("rate-chart"), lines, { label: `Hit rate over time${last}`, y: [0, top], xText: clock, yText: (v) => percent(v, top < 0.05 ? 1 : 0), empty: "no frames yet" });
  lineChart($("flow-chart"), [
    { xs: h.t_s, ys: h.hits.map((n, i) => (h.span_s[i] ? (n + h.misses[i]) / h.span_s[i] : null)), kind: "of-series" },
    { xs: h.t_s, ys: h.failed.map((n, i) => (h.span_s[i] ? n / h.span_s[i] : null)), kind: "bad" },
  ], { label: "Frames judged per second", xText: clock });
  lineChart($("latency-chart"), [
    { xs: h.t_s, ys: h.latency_p50_s, kind: "of-series" },
    { xs: h.t_s, ys: h.latency_p99_s, kind: "misses", dashed: true },
  ], { label: "Latency", xText: clock, yText: seconds, empty: "no frames yet" });
  lineChart($("ring-chart"), [{ xs: h.t_s, ys: h.ring_used, kind: "of-series" }], { label: "Share of the ring in use", y: [0, 1], xText: clock, yText: (v) => percent(v, 0) });
  lineChart($("background-chart"), [{ xs: h.t_s, ys: h.background_photons_per_px, kind: "misses" }], { label: "Background of misses, photons per pixel", xText: clock, empty: "no misses yet" });
}

function showFlow(state) {
  say("frames-s", state.frames_per_s.toFixed(state.frames_per_s < 10 ? 1 : 0));
  say("latency", `${seconds(state.latency_p50_s)} / ${seconds(state.latency_p99_s)}`);
  say("wire", megabytes(state.wire_bytes_per_s));
  say("disk", megabytes(state.stored_bytes_per_s));
  $("ring").value = state.ring_slots_used / state.ring_slots;
  say("ring-n", `${state.ring_slots_used} of ${state.ring_slots} slots`);
  const series = state.series_open.at(-1);
  const done = series ? Object.values(series.counts).reduce((a, b) => a + b, 0) : 0;
  $("progress").value = series?.announced ? done / series.announced : 0;
  say("progress-n", series ? `${count(done)} of ${count(series.announced)} frames` : "no series open");
  const cells = Object.entries(state.counts).map(([outcome, n]) => {
    const cell = element("td", count(n), n && !["hit", "miss"].includes(outcome) ? "some" : "");
    cell.append(element("small", outcome));
    return cell;
  });
  const row = element("tr");
  row.append(...cells);
  $("counts").replaceChildren(row);
  say("learned", count(state.n_hot_pixels));
  $("children").replaceChildren(...state.children.map((c) => {
    const isUp = c.ready || c.done;
    const starts = c.starts > 1 ? `, ${c.starts} starts` : "";
    return element("span", `${c.name}${isUp ? "" : c.alive ? " starts" : " down"}${starts}`, isUp ? "" : "down");
  }));
  $("errors-card").hidden = !state.errors.length;
  $("errors").replaceChildren(...state.errors.map((e) => element("li", e)));
}

/** Leave out the empty bins at both ends, but for a margin. */
function aroundCounts(edges, counts) {
  const margin = 4, some = (n) => n > 0;
  const first = Math.max(0, counts.findIndex(some) - margin);
  const end = Math.min(counts.length, counts.findLastIndex(some) + 1 + margin);
  return [edges.slice(first, end + 1), counts.slice(first, end)];
}

function showHits(state) {
  const { spots, resolution } = state;
  barChart($("spots-chart"), spots.edges, spots.counts, { label: `Spots per hit of ${spots.n} hits`, xText: (v) => String(Math.round(v)) });
  say("spots-c", `latest ${count(spots.n)} hits`);
  const [edges, counts] = aroundCounts(resolution.edges, resolution.counts);
  barChart($("resolution-chart"), edges, counts, { label: `Resolution of ${resolution.n} hits in angstrom`, xText: (v) => `${v} Å` });
  say("resolution-c", `latest hits with 5 spots and more: ${count(resolution.n)}; 95 % of the spots lie at larger d`);
}

function showProfile(powder) {
  const svg = $("profile-chart"), kinds = { hit: "hits", miss: "misses" };
  const names = Object.keys(powder?.profile ?? {});
  if (!names.length) return lineChart(svg, [], { label: "Radial profile", empty: "no frames yet" });
  const knows = powder.clen_m && powder.photon_energy_eV;
  const at = (k) => {
    const radius_m = (k + 0.5) * powder.ring_px * powder.pixel_size_m[0];
    return knows ? 1 / dAt(radius_m, powder) : (k + 0.5) * powder.ring_px;
  };
  const lines = names.map((name) => {
    const ys = powder.profile[name];
    return { xs: ys.map((_, k) => at(k)), ys, kind: kinds[name] };
  });
  const x = [0, Math.max(...lines[0].xs)];
  // One strong reflection would press all else to the ground.
  const most = lines.map((l) => Math.max(...l.ys.filter((v) => v !== null)));
  const y = [0, 1.08 * Math.min(Math.max(...most), 3 * Math.min(...most)) || 1];
  const shown = knows ? [20, 10, 7, 5, 4, 3.5, 3, 2.7, 2.4, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2].map((d) => 1 / d).filter((q) => q < x[1]) : undefined;
  const apart = shown?.filter((q, i) => (q / x[1]) * svg.clientWidth > 30 && (i === 0 || ((q - shown[i - 1]) / x[1]) * svg.clientWidth > 24));
  lineChart(svg, lines, { label: "Radial profile of hits and misses", x, y, xTicks: apart, xText: knows ? (q) => `${Number((1 / q).toPrecision(2))} Å` : short });
  return say("profile-c", `photons per pixel and frame; ${names.map((n) => `${count(powder.n_frames[n])} ${n === "hit" ? "hits" : "misses"}`).join(", ")} sampled of series ${powder.series}`);
}

function showPosterior(state) {
  const series = state.series_open.at(-1) ?? state.series_closed.at(-1);
  const p = series?.posterior;
  const differs = Boolean(p?.header_mismatch);
  const said = (value, sigma, header, unit, digits, least) => ({
    value, sigma, header, unit, least, differs,
    text: `pixels ${withSigma(value, sigma, digits)} ${unit}, header ${withSigma(header, null, digits)} ${unit}`,
  });
  numberLine($("energy-chart"), said(p?.photon_energy_eV, p?.photon_energy_sigma_eV, series?.header_photon_energy_eV, "eV", 0, 60), "Photon energy");
  numberLine($("clen-chart"), said(p?.clen_m, p?.clen_sigma_m, series?.header_clen_m, "m", 4, 0.003), "Camera length");
  let text = series ? `no estimate of series ${series.series} yet` : "no series yet";
  if (p) {
    text = `${count(p.n_frames)} frames of series ${series.series}. `;
    text += differs ? "The header says otherwise." : p.header_mismatch === null ? "Not enough yet to compare with the header." : "The header agrees.";
    if (!p.tells_parameters) text += " Too few photons to tell both.";
  }
  say("posterior-c", text);
}

function showClosed(closed) {
  const key = `${closed.length} ${closed.at(-1)?.t_ended_s}`;
  if ($("closed").dataset.shown === key) return;
  $("closed").dataset.shown = key;
  const head = element("tr");
  for (const name of ["series", "ended", "frames", "hits", "hit rate", "", "energy (eV)", "header", "clen (m)", "header", "not judged", "folder"]) {
    head.append(element("th", name, name === "folder" ? "text" : ""));
  }
  const rows = closed.toReversed().map((s) => {
    const [share] = wilson(s.hit, s.hit + s.miss), p = s.posterior;
    const failed = s.dropped + s.corrupt + s.lost + s.missing;
    const row = element("tr"), part = element("td"), outer = element("span", undefined, "share"), inner = element("i");
    inner.style.width = `${100 * (share ?? 0)}%`;
    outer.append(inner);
    part.append(outer);
    row.append(
      element("td", String(s.series)), element("td", clock(s.t_ended_s)), element("td", count(s.announced)),
      element("td", count(s.hit)), element("td", percent(share)), part,
      element("td", withSigma(p?.photon_energy_eV, p?.photon_energy_sigma_eV, 0), p?.header_mismatch ? "some" : ""),
      element("td", withSigma(s.header_photon_energy_eV, null, 0)),
      element("td", withSigma(p?.clen_m, p?.clen_sigma_m, 4), p?.header_mismatch ? "some" : ""),
      element("td", withSigma(s.header_clen_m, null, 4)),
      element("td", count(failed), failed ? "some" : ""), element("td", s.folder, "text"),
    );
    return row;
  });
  const empty = element("tr");
  empty.append(element("td", "none has ended yet", "text"));
  $("closed").replaceChildren(...(rows.length ? [head, ...rows] : [empty]));
}

const pictures = [new FramePicture($("hit"), "hit"), new FramePicture($("miss"), "miss"), new PowderPicture($("powder"))];

function show(state) {
  const open = state.series_open.at(-1);
  const isStated = open?.header_photon_energy_eV && open.header_clen_m;
  const header = isStated ? ` · header ${open.header_photon_energy_eV.toFixed(0)} eV, ${open.header_clen_m.toFixed(3)} m` : "";
  say("series", open ? `series ${open.series}${header}` : "no series open");
  const isReady = state.children.every((c) => c.ready || c.done);
  say("link", isReady ? `live, ${clock(state.history.t_s.at(-1))}` : "starting");
  $("link").className = "link live";
  document.title = `${state.alarms.length ? "⚠ " : ""}${percent(state.hit_rate.minute.value, 0)} hits · hitfinder`;
  showAlarms(state.alarms);
  showRates(state);
  showFlow(state);
  showHits(state);
  showProfile(state.powder);
  showPosterior(state);
  showClosed(state.series_closed);
  showChanges(state);
  for (const picture of pictures) picture.update(state).catch(() => {}); // the next second tries again
}

let answered = null;
let timer;
async function ask() {
  clearTimeout(timer);
  try {
    const answer = await fetch("state.json", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Error(answer.statusText);
    const state = await answer.json();
    answered = Date.now() / 1000;
    show(state);
  } catch (error) {
    say("link", `no answer${answered ? ` since ${clock(answered)}` : ""}: figures are old`);
    $("link").className = "link gone";
    console.warn(error);
  }
  timer = setTimeout(ask, document.hidden ? HIDDEN_MS : EVERY_MS);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

const prefers = window.matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
setTheme(localStorage.getItem("theme") ?? prefers);
const flip = () => setTheme(document.documentElement.dataset.theme === "light" ? "dark" : "light");
$("theme").addEventListener("click", flip);
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const place = { h: 0, m: 1, p: 2 }[event.key];
  if (place !== undefined) {
    const { canvas } = pictures[place].view;
    canvas.focus();
    canvas.scrollIntoView({ block: "nearest" });
  } else if (event.key === "t") flip();
});
ask();
