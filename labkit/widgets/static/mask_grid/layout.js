// Which cells are in view, and where: tokens down, groups of four features across.

import { clamp } from "../shared/values.js";

export const ROWS = 15; // in view, at most
// In CSS pixels: a cell, a row, what stands left of the cells (token), above (feature) and right (energy).
export const CELL = 17;
export const ROW = 20;
export const LABEL = 118;
export const HEAD = 20;
const SHARE = 62;
const GROUP = 4 * CELL + 9; // with the gap to the next group

/**
 * First token and group in view, and how many of them.
 * @typedef {{ top: number, first: number, rows: number, groups: number }} View
 * @typedef {{ tokens: number, groups: number }} Size of the plane
 */

/**
 * The view moved as little as shows the cursor, as many groups as fit.
 * @param {View} view @param {Size} size @param {number} width @param {number} token @param {number} feature
 * @returns {View}
 */
export function follow(view, size, width, token, feature) {
  const groups = Math.max(1, Math.min(size.groups, Math.floor((width - LABEL - SHARE) / GROUP)));
  const rows = Math.min(ROWS, size.tokens);
  const group = feature >> 2;
  const top = clamp(clamp(view.top, token - rows + 1, token), 0, size.tokens - rows);
  const first = clamp(clamp(view.first, group - groups + 1, group), 0, size.groups - groups);
  return { top, first, rows, groups };
}

/** Left end of group number `index` in view. @param {number} index */
export const groupX = (index) => LABEL + index * GROUP;

/** @param {View} view @param {number} feature */
export const cellX = (view, feature) => groupX((feature >> 2) - view.first) + (feature & 3) * CELL;

/** @param {View} view @param {number} token */
export const rowY = (view, token) => HEAD + (token - view.top) * ROW;

/** Pixels of all groups in view and what stands beside them. @param {View} view */
export const usedWidth = (view) => groupX(view.groups) + SHARE - 6;

/** @param {View} view */
export const gridHeight = (view) => HEAD + view.rows * ROW + 4;

/**
 * Token and feature at a point of the grid; null outside of the cells.
 * @param {View} view @param {number} x @param {number} y
 * @returns {[number, number] | null}
 */
export function cellAt(view, x, y) {
  const [right, down] = [x - LABEL, y - HEAD];
  const index = Math.floor(right / GROUP);
  if (right < 0 || down < 0 || index >= view.groups || down >= view.rows * ROW) return null;
  const place = Math.min(3, Math.floor((right - index * GROUP) / CELL));
  return [view.top + Math.floor(down / ROW), 4 * (view.first + index) + place];
}

/**
 * The view with its middle at a place of the map.
 * @param {View} view @param {Size} size @param {number} right @param {number} down shares of the map, 0 to 1
 * @returns {View}
 */
export const centred = (view, size, right, down) => ({
  ...view,
  top: clamp(Math.round(down * size.tokens - view.rows / 2), 0, size.tokens - view.rows),
  first: clamp(Math.round(right * size.groups - view.groups / 2), 0, size.groups - view.groups),
});

/**
 * Token and feature moved as little as brings them into view.
 * @param {View} view @param {number} token @param {number} feature
 * @returns {[number, number]}
 */
export const inView = (view, token, feature) => [
  clamp(token, view.top, view.top + view.rows - 1),
  4 * clamp(feature >> 2, view.first, view.first + view.groups - 1) + (feature & 3),
];
