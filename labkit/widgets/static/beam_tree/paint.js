// One tree on its canvas: edges, states, dropped candidates, the selection.

import { clamp, shorten } from "../shared/values.js";
import { drawAxes, drawScores } from "./axes.js";
import { LEFT, MARK } from "./layout.js";
import { drawCross, drawMark } from "./marks.js";
import { ACCELERATE, childOf, FINISHED, KEPT, MERGED, SEARCH, wouldAccelerate } from "./tree.js";
import { assignmentText } from "./words.js";

const LABELS = 74; // pixels a call needs before the answer's path says what it commits

/**
 * @typedef {object} Scene
 * @property {CanvasRenderingContext2D} ink
 * @property {import("./tree.js").Tree} t
 * @property {import("./layout.js").Layout} layout
 * @property {import("./marks.js").Colours} colours
 * @property {import("./words.js").Names} names
 * @property {string} font family
 * @property {number} now step of the cursor in this tree
 * @property {{ row: number, candidate: number } | null} selected null: the selection is in the other tree
 * @property {number | null} preview threshold under preview, if it is not the recorded one
 */

/** @param {Scene} scene */
export function drawTree(scene) {
  const { ink, layout } = scene;
  const [from, to] = layout.rowsInSight();
  ink.save();
  ink.beginPath();
  ink.rect(LEFT - 8, 0, layout.width - LEFT + 8 - 2, layout.height);
  ink.clip();
  drawCursor(scene);
  drawEdges(scene, from, to);
  if (scene.selected) drawAncestors(scene, scene.selected.row);
  drawDropped(scene, from, to);
  drawStates(scene, from, to);
  if (scene.selected) drawSelection(scene, scene.selected);
  if (layout.view.scale >= LABELS) drawLabels(scene, from, to);
  drawScores(scene, from, to);
  ink.restore();
  drawAxes(scene);
}

/** The radius of a state. @param {Scene} scene */
const sizeOf = ({ layout: { view } }) =>
  clamp(view.scale * 0.24, Math.min(MARK / 2, Math.max(1, 0.7 * view.scale)), 7);

/** @param {Scene} scene */
function drawCursor({ ink, t, layout, colours, now }) {
  const { scale } = layout.view;
  ink.fillStyle = colours.accent;
  ink.globalAlpha = 0.12;
  const left = layout.x(t.offset + now) - Math.max(2, Math.min(scale / 2, 12));
  ink.fillRect(left, 2, Math.max(4, Math.min(scale, 24)), layout.laneTop + layout.lane - 4);
  ink.globalAlpha = 1;
}

/**
 * In four batches: kept and the answer's, before and after the cursor.
 * @param {Scene} scene @param {number} from @param {number} to rows
 */
function drawEdges({ ink, t, layout, colours, now }, from, to) {
  for (const late of [true, false])
    for (const bold of [false, true]) {
      ink.beginPath();
      for (let r = Math.max(from, 1); r < to; r++) {
        if (t.step[r] > now !== late || Boolean(t.onAnswer[r]) !== bold) continue;
        ink.moveTo(...layout.at(t.parent[r]));
        ink.lineTo(...layout.at(r));
      }
      ink.globalAlpha = late ? 0.4 : bold ? 1 : 0.75;
      ink.strokeStyle = bold ? colours.ink : colours.muted;
      ink.lineWidth = bold ? (layout.view.scale > 12 ? 3 : 1.6) : 1;
      ink.stroke();
    }
}

/** How the selected state came about. @param {Scene} scene @param {number} row */
function drawAncestors({ ink, t, layout, colours }, row) {
  ink.beginPath();
  for (let r = row; t.parent[r] >= 0; r = t.parent[r]) {
    ink.moveTo(...layout.at(t.parent[r]));
    ink.lineTo(...layout.at(r));
  }
  ink.globalAlpha = 1;
  ink.strokeStyle = colours.accent;
  ink.lineWidth = 2;
  ink.setLineDash([5, 3]);
  ink.stroke();
  ink.setLineDash([]);
}

/** @param {Scene} scene @param {number} from @param {number} to rows */
function drawDropped({ ink, t, layout, colours, now, selected, font }, from, to) {
  ink.font = `11px ${font}`;
  ink.textAlign = "left";
  ink.textBaseline = "middle";
  for (let r = from; r < to; r++) {
    ink.globalAlpha = t.step[r] >= now ? 0.5 : 1;
    for (const { candidate, fate, count, at } of layout.dropped(r)) {
      const [x, y] = at;
      ink.lineWidth = 0.8;
      ink.strokeStyle = colours.line;
      ink.beginPath();
      ink.moveTo(...layout.at(r));
      ink.lineTo(x, y);
      ink.stroke();
      ink.lineWidth = 2;
      const colour = fate === MERGED ? colours.merged : colours.muted;
      drawCross(ink, fate, x, y, MARK / 2, colour);
      ink.fillStyle = colour;
      if (count > 1) ink.fillText(String(count), x + MARK / 2 + 2, y + 0.5);
      if (r !== selected?.row || candidate - t.cand[r] !== selected.candidate) continue;
      ink.globalAlpha = 1;
      drawMark(ink, SEARCH, x, y, 8, null, colours.accent);
    }
  }
  ink.textBaseline = "alphabetic";
}

/**
 * Every state; around one that the preview would change, a hollow mark of the other kind.
 * @param {Scene} scene @param {number} from @param {number} to rows
 */
function drawStates(scene, from, to) {
  const { ink, t, layout, colours, now, preview } = scene;
  const size = sizeOf(scene);
  const rows = Array.from({ length: to - from }, (_, i) => from + i);
  // Where marks overlap, the rarer kinds stay whole.
  const special = (/** @type {number} */ r) => t.mode[r] !== SEARCH;
  for (const r of [...rows.filter((r) => !special(r)), ...rows.filter(special)]) {
    const [x, y] = layout.at(r);
    ink.globalAlpha = t.step[r] > now ? 0.5 : 1;
    ink.lineWidth = 1.2;
    drawMark(ink, t.mode[r], x, y, size, colours.modes[t.mode[r]], colours.paper);
    if (preview === null || t.mode[r] === FINISHED) continue;
    const then = wouldAccelerate(t, r, preview) ? ACCELERATE : SEARCH;
    if (then === t.mode[r]) continue;
    ink.globalAlpha = 1;
    ink.lineWidth = 2;
    drawMark(ink, then, x, y, size + 2.5, colours.paper, colours.modes[then]);
  }
  ink.globalAlpha = 1;
}

/** @param {Scene} scene @param {{ row: number, candidate: number }} selected */
function drawSelection(scene, { row, candidate }) {
  const { ink, t, layout, colours } = scene;
  const c = t.cand[row] + candidate;
  if (candidate >= 0 && t.candFate[c] === KEPT) {
    ink.strokeStyle = colours.accent;
    ink.lineWidth = 3;
    ink.beginPath();
    ink.moveTo(...layout.at(row));
    ink.lineTo(...layout.at(childOf(t, row, c)));
    ink.stroke();
  }
  ink.lineWidth = 2.2;
  drawMark(ink, SEARCH, ...layout.at(row), sizeOf(scene) + 5, null, colours.accent);
}

/**
 * What each call on the way to the answer commits.
 * @param {Scene} scene @param {number} from @param {number} to rows
 */
function drawLabels({ ink, t, layout, colours, names, font, now }, from, to) {
  ink.font = `11px ${font}`;
  ink.textAlign = "center";
  for (let r = Math.max(from, 1); r < to; r++) {
    if (!t.onAnswer[r]) continue;
    const [ax, ay] = layout.at(t.parent[r]);
    const [bx, by] = layout.at(r);
    const lines = [];
    for (let i = t.delta[r]; i < t.delta[r + 1]; i++)
      lines.push(shorten(assignmentText(names, t.deltaPosition[i], t.deltaToken[i]), 12));
    if (lines.length > 2) lines.splice(1, lines.length, `+${lines.length - 1} more`);
    const [x, y] = [ax + 0.6 * (bx - ax), ay + 0.6 * (by - ay) - 5];
    lines.reverse().forEach((text, i) => {
      ink.globalAlpha = 0.85;
      ink.fillStyle = colours.paper;
      const width = ink.measureText(text).width + 4;
      ink.fillRect(x - width / 2, y - 10 - 12 * i, width, 12);
      ink.globalAlpha = t.step[r] > now ? 0.45 : 1;
      ink.fillStyle = colours.ink;
      ink.fillText(text, x, y - 12 * i);
    });
  }
  ink.globalAlpha = 1;
}
