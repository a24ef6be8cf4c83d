// Panels in a grid, all with the same steps from left to right, and the stretch of steps in view.

import { clamp } from "../shared/values.js";

const [PANEL, TOP, BOTTOM, LEFT, PAD, COLUMN] = [150, 24, 20, 46, 14, 212]; // pixels; COLUMN: at least
const FEWEST = 8; // steps in view, at least

/**
 * @typedef {{ x: number, y: number, w: number, h: number }} Box of the curves of a panel, CSS pixels
 * @typedef {{ from: number, to: number }} Stretch first and last step in view
 */

/**
 * @param {number} count of panels @param {number} width
 * @returns {{ boxes: Box[], height: number }}
 */
export function arrange(count, width) {
  const columns = clamp(Math.floor(width / COLUMN), 1, Math.min(4, count));
  const wide = width / columns;
  const boxes = Array.from({ length: count }, (_, i) => ({
    x: (i % columns) * wide + LEFT,
    y: Math.floor(i / columns) * (PANEL + BOTTOM) + TOP,
    w: wide - LEFT - PAD,
    h: PANEL - TOP - 6,
  }));
  return { boxes, height: Math.ceil(count / columns) * (PANEL + BOTTOM) + 8 };
}

/** @param {Box} box @param {Stretch} stretch @param {number} step */
export const toX = (box, { from, to }, step) => box.x + ((step - from) / Math.max(1, to - from)) * box.w;

/** @param {Box} box @param {{ low: number, high: number }} range @param {number} value */
export const toY = (box, range, value) =>
  box.y + box.h - ((value - range.low) / (range.high - range.low)) * box.h;

/**
 * The place on the axis of steps under a point, between two steps; null outside of all panels.
 * @param {Box[]} boxes @param {Stretch} stretch @param {number} x @param {number} y
 */
export function stepUnder(boxes, { from, to }, x, y) {
  const box = boxes.find(
    (one) => x >= one.x - 10 && x <= one.x + one.w + 10 && y >= one.y - TOP && y <= one.y + one.h + BOTTOM,
  );
  return box ? from + clamp((x - box.x) / box.w, 0, 1) * (to - from) : null;
}

/**
 * A stretch of `span` steps around `step`, inside the run.
 * @param {Stretch} whole @param {number} step @param {number} span
 * @returns {Stretch}
 */
export function around(whole, step, span) {
  const all = whole.to - whole.from;
  const wide = clamp(span, Math.min(FEWEST, all), all);
  const from = clamp(Math.round(step - wide / 2), whole.from, whole.to - wide);
  return { from, to: from + wide };
}
