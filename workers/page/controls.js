// What can be changed, with the token; the daemon says from which frame on it holds.

import { count, short } from "./format.js";

const $ = (id) => document.getElementById(id);

/** A change in words. */
function words(change) {
  const where = change.series === null ? "the series that came next" : `series ${change.series}`;
  const text = (value) => (typeof value === "number" ? short(value) : value);
  const held = [["threshold", change.threshold], ["misses kept", change.miss_sample_fraction], ["model", change.model], ["mask", change.mask]]
    .map(([name, value]) => `${name} ${value === null ? "as configured" : text(value)}`);
  return `from frame ${change.frame} of ${where} on: ${held.join(", ")}`;
}

/** What is known of the latest candidate for model or mask. */
function candidateWords(c) {
  const what = [["model", c.model], ["mask", c.mask]].filter(([, digest]) => digest).map((pair) => pair.join(" ")).join(", ");
  const counts = c.n_wanted
    ? ` ${count(c.n_frames)} of ${count(c.n_wanted)} frames judged by both: ${count(c.hits_of_both)} hits of both, ${count(c.hits_now_only)} of the one before only, ${count(c.hits_of_candidate_only)} of the new one only.`
    : "";
  return `${what || "configured mask"}: ${c.step}.${counts}`;
}

/** Take the page's state. */
export function showChanges(state) {
  for (const field of $("controls").elements) field.disabled = !state.can_change;
  if (!state.can_change) $("controls-said").textContent = "Nothing can be changed: http.token_file is not configured.";
  const said = state.candidate ? candidateWords(state.candidate) : "";
  if ($("candidate").textContent !== said) $("candidate").textContent = said;
  const now = JSON.stringify(state.changes);
  if ($("changes").dataset.shown === now) return;
  $("changes").dataset.shown = now;
  $("changes").replaceChildren(...state.changes.toReversed().map((change) => {
    const line = document.createElement("li");
    line.textContent = words(change);
    return line;
  }));
}

$("controls").addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = new FormData(event.target);
  const token = fields.get("token");
  fields.delete("token");
  const files = ["model", "mask"];
  const wish = Object.fromEntries([...fields].filter(([, value]) => value !== "")
    .map(([name, value]) => [name, files.includes(name) ? value : Number(value)]));
  $("controls-said").textContent = "Asked; see below.";
  try {
    const answer = await fetch("control", {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify(wish),
    });
    $("controls-said").textContent = answer.ok ? `Done, ${words(await answer.json())}.` : `Not changed: ${await answer.text()}`;
    if (!answer.ok) return;
    for (const name of Object.keys(wish)) if (name !== "shadow_frames") event.target.elements[name].value = "";
  } catch {
    $("controls-said").textContent = "Not changed: the daemon does not answer.";
  }
});
