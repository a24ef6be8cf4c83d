// The window of cells: values, marks of what was zero or dropped, the cursor.

import { sized } from "../shared/dom.js";
import { shorten } from "../shared/values.js";
import { shareOf } from "./colours.js";
import { CELL, cellX, gridHeight, groupX, HEAD, LABEL, ROW, rowY } from "./layout.js";
import { differences } from "./plane.js";
import { bits, percent, visible } from "./words.js";

/**
 * @typedef {CanvasRenderingContext2D} Ink
 * @typedef {object} Scene
 * @property {import("./plane.js").Plane} plane
 * @property {import("./layout.js").View} view
 * @property {number} width
 * @property {{ token: number, feature: number }} cursor
 * @property {string[]} tokens
 * @property {{ natural: boolean, enforced: boolean, difference: boolean }} show
 * @property {import("./plane.js").Compared} compared
 * @property {import("../shared/dom.js").Palette} theme
 * @property {import("./colours.js").Colours} colours
 * @property {string} monospace font family
 */

/** @param {HTMLCanvasElement} canvas @param {Scene} scene */
export function drawGrid(canvas, scene) {
  const { plane, view, width, show, theme } = scene;
  const ink = sized(canvas, width, gridHeight(view));
  const differing = show.difference ? differences(scene.compared, plane) : new Map();
  drawHead(ink, scene);
  for (let token = view.top; token < view.top + view.rows; token++) {
    drawLabels(ink, scene, token);
    for (let index = 0; index < view.groups; index++) {
      const group = view.first + index;
      const [x, y] = [groupX(index), rowY(view, token)];
      for (let j = 0; j < 4; j++) drawCell(ink, scene, token, 4 * group + j, x + j * CELL, y);
      ink.strokeStyle = theme.line;
      ink.lineWidth = 1;
      ink.strokeRect(x - 1.5, y + 0.5, 4 * CELL + 3, ROW - 2);
      if (!show.difference) continue;
      const nibbles = differing.get(token * plane.groups + group);
      drawBits(ink, scene, x, y, plane.nibble(token, group), nibbles);
    }
  }
  drawCursor(ink, scene);
}

/** @param {Ink} ink @param {Scene} scene */
function drawHead(ink, { view, width, theme, monospace }) {
  ink.textBaseline = "middle";
  ink.font = `11px ${monospace}`;
  ink.fillStyle = theme.muted;
  ink.textAlign = "left";
  for (let index = 0; index < view.groups; index++)
    ink.fillText(String(4 * (view.first + index)), groupX(index), HEAD / 2);
  ink.textAlign = "right";
  ink.fillText("feature", LABEL - 8, HEAD / 2);
  ink.fillText("energy", width - 4, HEAD / 2);
}

/** @param {Ink} ink @param {Scene} scene @param {number} token */
function drawLabels(ink, { plane, view, width, cursor, tokens, theme }, token) {
  const middle = rowY(view, token) + ROW / 2;
  ink.fillStyle = token === cursor.token ? theme.ink : theme.muted;
  ink.textAlign = "right";
  ink.fillText(`${shorten(visible(tokens[token]), 9)} ${String(token).padStart(3)}`, LABEL - 8, middle);
  ink.fillText(percent(plane.energy(token), 2), width - 4, middle);
}

/** @param {Ink} ink @param {Scene} scene @param {number} token @param {number} feature @param {number} x @param {number} y */
function drawCell(ink, { plane, show, theme, colours }, token, feature, x, y) {
  const relative = plane.relative(token, feature);
  const kept = plane.kept(token, feature);
  const [middleX, middleY] = [x + CELL / 2, y + ROW / 2 - 0.5];
  if (relative === 0) {
    if (!show.natural || show.difference) return;
    ink.fillStyle = theme.muted;
    ink.beginPath();
    ink.arc(middleX, middleY, 1.6, 0, 7);
    ink.fill();
    return;
  }
  if (!kept && !show.enforced) return; // what the product sees: nothing there
  const share = shareOf(relative);
  ink.globalAlpha = show.difference ? 0.25 : 1; // the bits are written over it
  ink.fillStyle = (kept ? colours.kept : colours.dropped)(share);
  ink.fillRect(x + 1, y + 2.5, CELL - 2, ROW - 6);
  if (!kept && !show.difference) {
    const onDeep = theme.dark ? "#000" : "#fff";
    ink.strokeStyle = share > 0.75 ? onDeep : colours.mark;
    ink.lineWidth = 1.4;
    drawCross(ink, middleX, middleY);
  }
  ink.globalAlpha = 1;
}

/** @param {Ink} ink @param {number} x @param {number} y */
function drawCross(ink, x, y) {
  ink.beginPath();
  for (const sign of [1, -1]) {
    ink.moveTo(x - 3.5, y - 3.5 * sign);
    ink.lineTo(x + 3.5, y + 3.5 * sign);
  }
  ink.stroke();
}

/**
 * The bits of a group over its cells; where kernel and reference differ, both.
 * @param {Ink} ink @param {Scene} scene @param {number} x @param {number} y @param {number} nibble
 * @param {[number, number] | undefined} nibbles of reference and kernel where they differ
 */
function drawBits(ink, { theme, colours, monospace }, x, y, nibble, nibbles) {
  const text = nibbles ? `${bits(nibbles[0], 4)}≠${bits(nibbles[1], 4)}` : `${bits(nibble, 4)} =`;
  ink.font = `${nibbles ? "bold " : ""}12px ${monospace}`;
  if (nibbles) {
    ink.fillStyle = colours.wrong;
    ink.fillRect(x - 1, y + 1, 4 * CELL + 2, ROW - 3);
  }
  ink.fillStyle = nibbles ? theme.paper : theme.ink;
  ink.textAlign = "center";
  ink.fillText(text, x + 2 * CELL, y + ROW / 2);
  ink.font = `11px ${monospace}`;
}

/** The group under the cursor, and its cell. @param {Ink} ink @param {Scene} scene */
function drawCursor(ink, { view, cursor, theme }) {
  const y = rowY(view, cursor.token);
  ink.strokeStyle = theme.accent;
  ink.lineWidth = 2.5;
  ink.strokeRect(groupX((cursor.feature >> 2) - view.first) - 2.5, y - 0.5, 4 * CELL + 5, ROW);
  ink.strokeStyle = theme.ink;
  ink.lineWidth = 1.5;
  ink.strokeRect(cellX(view, cursor.feature) + 0.5, y + 2, CELL - 1, ROW - 5);
}
