// The numbers at the cursor, and the checkboxes that show and hide runs.

import { indexAt, numberText } from "./curves.js";

/**
 * @typedef {import("./curves.js").Curve} Curve
 * @typedef {import("./page.js").Page} Page
 * @typedef {import("./page.js").Facts} Facts
 */

/**
 * The value of every curve at `step`, or its last one before, which is marked.
 * @param {Page} page @param {Curve[]} curves @param {number} step
 */
export function drawValues(page, curves, step) {
  for (const { run, panel, steps, drawn } of curves) {
    const at = indexAt(steps, step);
    const cell = page.cells[run][panel];
    const text = at < 0 ? "–" : numberText(drawn[at]);
    const marked = at >= 0 && steps[at] !== step ? "sc-old" : "";
    if (cell.textContent !== text) cell.textContent = text;
    if (cell.className !== marked) cell.className = marked;
  }
}

/** @param {Page} page @param {Pick<Facts, "runs" | "arms" | "seeds">} facts @param {Set<number>} shown */
export function drawChecks(page, { runs, arms, seeds }, shown) {
  page.boxes.forEach((box, i) => {
    box.set(shown.has(i));
    page.rows[i].classList.toggle("sc-off", !shown.has(i));
  });
  const all = runs.map((_, i) => i);
  arms.forEach((arm, a) =>
    drawCheck(
      page.armBoxes[a],
      all.filter((i) => runs[i].arm === arm),
      shown,
    ),
  );
  seeds.forEach((seed, s) =>
    drawCheck(
      page.seedBoxes[s],
      all.filter((i) => runs[i].seed === seed),
      shown,
    ),
  );
}

/** @param {import("../shared/dom.js").Checkbox} box @param {number[]} runs @param {Set<number>} shown */
function drawCheck(box, runs, shown) {
  const count = runs.filter((i) => shown.has(i)).length;
  box.set(count > 0);
  box.input.indeterminate = count > 0 && count < runs.length;
}

/**
 * The first panel's values of up to four runs, as they are spoken.
 * @param {Page} page @param {Pick<Facts, "runs" | "panels" | "unit">} facts
 * @param {Set<number>} shown @param {number} step
 */
export function spokenValues(page, { runs, panels, unit }, shown, step) {
  const values = [...shown]
    .slice(0, 4)
    .map((i) => `${runs[i].arm} ${panels[0]} ${page.cells[i][0].textContent}`);
  return `${unit} ${step}: ${values.join("; ")}`;
}

/** What stands above the curves where nobody wrote a title. @param {Pick<Facts, "runs" | "panels">} facts */
export function plainTitle({ runs, panels }) {
  const many = (/** @type {unknown[]} */ things) => (things.length > 1 ? "s" : "");
  return `${panels.length} curve${many(panels)} of ${runs.length} run${many(runs)} under one cursor`;
}
