// What can be changed, with the token; the daemon says from which frame on it holds.

import { short } from "./format.js";

const $ = (id) => document.getElementById(id);

/** A change in words. */
function words(change) {
  const where = change.series === null ? "the series that came next" : `series ${change.series}`;
  const held = [["threshold", change.threshold], ["misses kept", change.miss_sample_fraction]]
    .map(([name, value]) => `${name} ${value === null ? "as configured" : short(value)}`);
  return `from frame ${change.frame} of ${where} on: ${held.join(", ")}`;
}

/** Take the page's state. */
export function showChanges(state) {
  for (const field of $("controls").elements) field.disabled = !state.can_change;
  if (!state.can_change) $("controls-said").textContent = "Nothing can be changed: http.token_file is not configured.";
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
  const wish = Object.fromEntries([...fields].filter(([, value]) => value !== "").map(([name, value]) => [name, Number(value)]));
  try {
    const answer = await fetch("control", {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify(wish),
    });
    $("controls-said").textContent = answer.ok ? `Done, ${words(await answer.json())}.` : `Not changed: ${await answer.text()}`;
    if (!answer.ok) return;
    for (const name of Object.keys(wish)) event.target.elements[name].value = "";
  } catch {
    $("controls-said").textContent = "Not changed: the daemon does not answer.";
  }
});
