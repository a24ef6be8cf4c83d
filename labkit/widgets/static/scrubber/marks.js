// How arms look: hue, dash and marker, never the colour alone.

import { shorten } from "../shared/values.js";

// Okabe and Ito (2008); arms differ by dash and marker too.
export const HUES = {
  light: ["#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000", "#8a7a00"],
  dark: ["#56b4e9", "#ff8f4a", "#2fd3a3", "#f0b429", "#e3a4c6", "#9fd6f7", "#ffffff", "#f0e442"],
};
export const DASHES = [[], [7, 3], [8, 3, 2, 3], [2, 3], [12, 4], [5, 2, 2, 2], [3, 2], [10, 2, 10, 6]];
export const LOOKS = DASHES.length;
export const SAMPLED = 2; // the marker of a step with completions

// Corners of the markers as x, y, x, y, ... in radii; the first is a disc.
const CORNERS = [
  [],
  [-0.9, -0.9, 0.9, -0.9, 0.9, 0.9, -0.9, 0.9],
  [0, -1.2, 1.1, 0.9, -1.1, 0.9],
  [0, -1.3, 1.3, 0, 0, 1.3, -1.3, 0],
  [0, 1.2, 1.1, -0.9, -1.1, -0.9],
  [
    ...[-0.4, -1.2, 0.4, -1.2, 0.4, -0.4, 1.2, -0.4, 1.2, 0.4, 0.4, 0.4],
    ...[0.4, 1.2, -0.4, 1.2, -0.4, 0.4, -1.2, 0.4, -1.2, -0.4, -0.4, -0.4],
  ],
  [-1.2, 0, 0, -0.5, 1.2, 0, 0, 0.5],
  [
    ...[0, -1.3, 0.4, -0.4, 1.3, -0.3, 0.5, 0.3, 0.8, 1.2],
    ...[0, 0.7, -0.8, 1.2, -0.5, 0.3, -1.3, -0.3, -0.4, -0.4],
  ],
];

/**
 * A marker, filled, around (x, y).
 * @param {CanvasRenderingContext2D} ink @param {number} kind 0 to 7
 * @param {number} x @param {number} y @param {number} r
 */
export function drawMarker(ink, kind, x, y, r) {
  const corners = CORNERS[kind];
  ink.beginPath();
  if (kind === 0) ink.arc(x, y, r, 0, 7);
  for (let i = 0; i < corners.length; i += 2) {
    const corner = /** @type {[number, number]} */ ([x + r * corners[i], y + r * corners[i + 1]]);
    if (i === 0) ink.moveTo(...corner);
    else ink.lineTo(...corner);
  }
  if (kind !== 0) ink.closePath();
  ink.fill();
}

/**
 * The text, or as much of it as is `width` wide.
 * @param {CanvasRenderingContext2D} ink @param {string} text @param {number} width
 */
export function fitting(ink, text, width) {
  let { length } = text;
  while (length > 4 && ink.measureText(shorten(text, length)).width > width) length--;
  return shorten(text, length);
}
