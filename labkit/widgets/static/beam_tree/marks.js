// The marks of states and candidates, and the legend that explains them.

import { make, palette, sized } from "../shared/dom.js";
import { ACCELERATE, FINISHED, MERGED, PRUNED, SEARCH } from "./tree.js";
import { MODE_NAMES } from "./words.js";

/**
 * @typedef {import("../shared/dom.js").Palette & { modes: string[], merged: string }} Colours modes: by mode
 * @typedef {CanvasRenderingContext2D} Ink
 */

/** The palette with the colours of beam_tree.css. @param {HTMLElement} root @returns {Colours} */
export function readColours(root) {
  const shared = palette(root);
  const style = getComputedStyle(root);
  const own = (/** @type {string} */ name) => style.getPropertyValue(`--bt-${name}`).trim();
  return { ...shared, modes: ["search", "accelerate", "finished"].map(own), merged: own("merged") };
}

/**
 * A state around (x, y): a disc searches, a triangle accelerates, a diamond is finished.
 * @param {Ink} ink @param {number} mode @param {number} x @param {number} y @param {number} size
 * @param {string | null} fill @param {string | null} edge
 */
export function drawMark(ink, mode, x, y, size, fill, edge) {
  ink.beginPath();
  if (mode === SEARCH) ink.arc(x, y, size, 0, 7);
  else if (mode === ACCELERATE) {
    ink.moveTo(x - size, y - size * 1.1);
    ink.lineTo(x + size * 1.25, y);
    ink.lineTo(x - size, y + size * 1.1);
    ink.closePath();
  } else {
    ink.moveTo(x, y - size * 1.25);
    ink.lineTo(x + size * 1.25, y);
    ink.lineTo(x, y + size * 1.25);
    ink.lineTo(x - size * 1.25, y);
    ink.closePath();
  }
  if (fill) {
    ink.fillStyle = fill;
    ink.fill();
  }
  if (edge) {
    ink.strokeStyle = edge;
    ink.stroke();
  }
}

/**
 * A dropped candidate around (x, y): + merged, × pruned.
 * @param {Ink} ink @param {number} fate @param {number} x @param {number} y @param {number} size
 * @param {string} colour
 */
export function drawCross(ink, fate, x, y, size, colour) {
  ink.strokeStyle = colour;
  ink.beginPath();
  const strokes =
    fate === MERGED
      ? [
          [0, 1],
          [1, 0],
        ]
      : [
          [1, 1],
          [1, -1],
        ];
  for (const [dx, dy] of strokes) {
    ink.moveTo(x - dx * size, y - dy * size);
    ink.lineTo(x + dx * size, y + dy * size);
  }
  ink.stroke();
}

/** @param {HTMLElement} legend @param {Colours} colours */
export function drawLegend(legend, colours) {
  const state = (/** @type {number} */ mode) => (/** @type {Ink} */ ink) =>
    drawMark(ink, mode, 8, 8, 5, colours.modes[mode], null);
  const dropped = (/** @type {number} */ fate, /** @type {string} */ colour) => (/** @type {Ink} */ ink) => {
    ink.lineWidth = 1.7;
    drawCross(ink, fate, 8, 8, 4, colour);
  };
  const hollow = (/** @type {Ink} */ ink) => {
    ink.lineWidth = 2;
    drawMark(ink, ACCELERATE, 8, 8, 5, null, colours.modes[ACCELERATE]);
  };
  /** @type {[(ink: Ink) => void, string][]} */
  const items = [
    ...[SEARCH, ACCELERATE, FINISHED].map(
      (mode) => /** @type {[(ink: Ink) => void, string]} */ ([state(mode), MODE_NAMES[mode]]),
    ),
    [dropped(PRUNED, colours.muted), "pruned (zoom in: +)"],
    [dropped(MERGED, colours.merged), "merged: same board as a better one (zoom in: +)"],
    [hollow, "hollow: the preview would change it"],
  ];
  legend.replaceChildren(
    ...items.map(([paint, text]) => {
      const canvas = make("canvas", { "aria-hidden": "true" });
      paint(sized(canvas, 16, 16));
      return make("span", {}, canvas, text);
    }),
    make("span", {}, "board: dark was filled early, yellow late; the small number is the call"),
  );
}
