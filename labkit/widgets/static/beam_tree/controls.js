// The inputs above the trees, as the traits and the first tree have them.

import { countAccelerated, isPreviewing } from "./tree.js";
import { digits, nines, previewText } from "./words.js";

/**
 * @typedef {import("./tree.js").Tree} Tree
 * @typedef {import("./page.js").Page} Page
 * @typedef {(name: string) => any} Get a trait
 */

/** @param {Page} page @param {Tree[]} trees @param {Get} get */
export function drawDecodeRow(page, trees, get) {
  const [prompts, canRun, busy] = [get("prompts"), get("can_run"), get("busy")];
  page.promptLabel.hidden = prompts < 2;
  page.what.textContent = get("side") ? "puzzle" : "prompt";
  page.prompt.bound(0, prompts - 1);
  page.prompt.set(get("prompt"));
  page.beam.bound(1, get("most_beams"));
  for (const node of [page.strategyLabel, page.beamLabel]) node.hidden = !canRun;
  page.decodeAgain.hidden = !canRun || busy;
  page.halt.hidden = !busy;
  page.back.hidden = !trees.some((t) => t.forced);
  page.back.disabled = busy;
  page.ownPuzzle.hidden = !canRun || !get("side") || busy;
  page.note.textContent = get("note");
}

/** @param {Page} page @param {Tree} first whose threshold is previewed @param {number} preview */
export function drawThreshold(page, first, preview) {
  const changed = isPreviewing(first, first, preview);
  page.threshold.value = String(nines(preview));
  page.threshold.setAttribute("aria-valuetext", digits(preview));
  page.thresholdText.textContent = digits(preview);
  page.previewText.textContent = previewText(first, countAccelerated(first, preview), changed);
  page.previewText.classList.toggle("bt-on", changed);
  page.reset.hidden = !changed;
}
