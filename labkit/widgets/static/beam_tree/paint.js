// One tree on its canvas: edges, states, dropped candidates, the selection.

import { clamp, shorten } from "../shared/values.js";
import { drawAxes, drawScores } from "./axes.js";
import { DETAIL, LANE, LEFT } from "./layout.js";
import { drawCross, drawMark } from "./marks.js";
import {
  ACCELERATE,
  childOf,
  droppedCandidates,
  FINISHED,
  KEPT,
  MERGED,
  SEARCH,
  wouldAccelerate,
} from "./tree.js";
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
  const { ink, t, layout } = scene;
  const [from, to] = layout.rowsInSight(t);
  ink.save();
  ink.beginPath();
  ink.rect(LEFT - 8, 0, layout.width - LEFT + 8 - 2, layout.height(t));
  ink.clip();
  drawCursor(scene);
  drawEdges(scene, from, to);
  if (scene.selected) drawAncestors(scene, scene.selected.row);
  if (layout.view.scale >= DETAIL) drawDropped(scene, from, to);
  drawStates(scene, from, to);
  if (scene.selected) drawSelection(scene, scene.selected);
  if (layout.view.scale >= LABELS) drawLabels(scene, from, to);
  drawScores(scene, from, to);
  ink.restore();
  drawAxes(scene);
}

/** The radius of a state. @param {Scene} scene */
const sizeOf = ({ layout }) => clamp(layout.view.scale * 0.24, 1.6, 7);

/** @param {Scene} scene */
function drawCursor({ ink, t, layout, colours, now }) {
  const { scale } = layout.view;
  ink.fillStyle = colours.accent;
  ink.globalAlpha = 0.12;
  const left = layout.x(t.offset + now) - Math.max(2, Math.min(scale / 2, 12));
  ink.fillRect(left, 2, Math.max(4, Math.min(scale, 24)), layout.laneTop(t) + LANE - 4);
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
        ink.moveTo(...layout.at(t, t.parent[r]));
        ink.lineTo(...layout.at(t, r));
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
    ink.moveTo(...layout.at(t, t.parent[r]));
    ink.lineTo(...layout.at(t, r));
  }
  ink.globalAlpha = 1;
  ink.strokeStyle = colours.accent;
  ink.lineWidth = 2;
  ink.setLineDash([5, 3]);
  ink.stroke();
  ink.setLineDash([]);
}

/** @param {Scene} scene @param {number} from @param {number} to rows */
function drawDropped({ ink, t, layout, colours, now, selected }, from, to) {
  for (let r = from; r < to; r++) {
    ink.globalAlpha = t.step[r] >= now ? 0.45 : 1;
    const dropped = droppedCandidates(t, r);
    dropped.forEach((c, i) => {
      const [x, y] = layout.stub(t, r, i, dropped.length);
      ink.lineWidth = 0.8;
      ink.strokeStyle = colours.line;
      ink.beginPath();
      ink.moveTo(...layout.at(t, r));
      ink.lineTo(x, y);
      ink.stroke();
      ink.lineWidth = 1.7;
      const colour = t.candFate[c] === MERGED ? colours.merged : colours.muted;
      drawCross(ink, t.candFate[c], x, y, layout.view.scale > 40 ? 3.6 : 2.6, colour);
      if (r === selected?.row && c - t.cand[r] === selected.candidate) {
        ink.globalAlpha = 1;
        drawMark(ink, SEARCH, x, y, 7, null, colours.accent);
      }
    });
  }
}

/**
 * Every state; around one that the preview would change, a hollow mark of the other kind.
 * @param {Scene} scene @param {number} from @param {number} to rows
 */
function drawStates(scene, from, to) {
  const { ink, t, layout, colours, now, preview } = scene;
  const size = sizeOf(scene);
  for (let r = from; r < to; r++) {
    const [x, y] = layout.at(t, r);
    ink.globalAlpha = t.step[r] > now ? 0.5 : 1;
    ink.lineWidth = 1.2;
    drawMark(ink, t.mode[r], x, y, size, colours.modes[t.mode[r]], size > 3 ? colours.paper : null);
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
    ink.moveTo(...layout.at(t, row));
    ink.lineTo(...layout.at(t, childOf(t, row, c)));
    ink.stroke();
  }
  ink.lineWidth = 2.2;
  drawMark(ink, SEARCH, ...layout.at(t, row), sizeOf(scene) + 5, null, colours.accent);
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
    const [ax, ay] = layout.at(t, t.parent[r]);
    const [bx, by] = layout.at(t, r);
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
