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
  page.promptLabel.hidden = page.count.hidden = prompts < 2;
  page.count.textContent = `of ${prompts} (0 to ${prompts - 1})`;
  page.what.textContent = get("side") ? "puzzle" : "prompt";
  page.prompt.max = String(prompts - 1);
  if (document.activeElement !== page.prompt) page.prompt.value = get("prompt");
  for (const node of [page.strategyLabel, page.beamLabel, page.decodeAgain]) node.hidden = !canRun;
  page.back.hidden = !trees.some((t) => t.forced);
  page.decodeAgain.disabled = busy;
  page.note.textContent = busy ? "decoding …" : get("note");
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

/**
 * A text stands below the trees, where its lines have room; so do two large boards, or, where the page is
 * wide, beside each other.
 * @param {Page} page @param {boolean} two @param {number} side
 */
export function arrangeBoards(page, two, side) {
  const large = two && side > 4;
  const broad = large && page.root.clientWidth > 1500;
  page.root.classList.toggle("bt-two", two);
  page.root.classList.toggle("bt-broad", broad);
  if (!side || (large && !broad)) {
    if (page.stages.lastChild !== page.boards) page.stages.append(page.boards);
  } else if (page.boards.parentNode !== page.side) page.side.prepend(page.boards);
}
