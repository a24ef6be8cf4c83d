// Below and beside a tree: the lane of scores, the ranks, the forward calls.

import { LANE, LEFT, RIGHT } from "./layout.js";
import { lastCallOf } from "./tree.js";
import { axisLabel, nines } from "./words.js";

/**
 * A dot per state, a line for the answer's.
 * @param {import("./paint.js").Scene} scene @param {number} from @param {number} to rows
 */
export function drawScores({ ink, t, layout, colours, now }, from, to) {
  const level = scoreLevel(t, layout.laneTop(t) + 8);
  for (let r = from; r < to; r++) {
    if (!t.committed[r]) continue;
    ink.globalAlpha = t.step[r] > now ? 0.2 : 0.8;
    ink.fillStyle = colours.muted;
    ink.fillRect(layout.at(t, r)[0] - 1.5, level(t.score[r]) - 1.5, 3, 3);
  }
  ink.globalAlpha = 1;
  ink.strokeStyle = colours.ink;
  ink.lineWidth = 2;
  ink.beginPath();
  for (const r of t.answer)
    if (t.step[r] <= now && t.committed[r]) ink.lineTo(layout.at(t, r)[0], level(t.score[r]));
  ink.stroke();
}

/**
 * The height of a score in the lane that begins at `top`.
 * @param {import("./tree.js").Tree} t @param {number} top
 * @returns {(score: number) => number}
 */
function scoreLevel(t, top) {
  const spread = (/** @type {number} */ score) => (t.score_name === "mean" ? nines(score) : score); // means crowd below 1
  const [low, high] = t.range.map(spread);
  return (score) => top + (LANE - 16) * (1 - (spread(score) - low) / Math.max(high - low, 1e-9));
}

/** @param {import("./paint.js").Scene} scene */
export function drawAxes({ ink, t, layout, colours, font }) {
  const { width } = layout;
  const lane = layout.laneTop(t);
  const base = lane + LANE;
  ink.fillStyle = colours.muted;
  ink.strokeStyle = colours.line;
  ink.lineWidth = 1;
  ink.font = `11px ${font}`;
  ink.textBaseline = "middle";
  ink.textAlign = "right";
  for (let slot = 0; slot < t.slots; slot++) ink.fillText(String(slot + 1), LEFT - 14, layout.y(t, slot));
  ink.fillText(axisLabel(t.range[1]), LEFT - 10, lane + 8);
  ink.fillText(axisLabel(t.range[0]), LEFT - 10, lane + LANE - 8);
  ink.textAlign = "left";
  ink.fillText("rank", 0, 7);
  ink.fillText("score", 0, lane + LANE / 2);
  ink.textBaseline = "alphabetic";
  ink.beginPath();
  for (const y of [base, lane]) {
    ink.moveTo(LEFT - 8, y);
    ink.lineTo(width - 4, y);
  }
  ink.stroke();
  ink.textAlign = "center";
  for (const call of callTicks(layout, t)) {
    ink.fillRect(layout.x(call), base, 1, 4);
    ink.fillText(String(call), layout.x(call), base + 15);
  }
  ink.fillText("forward calls", LEFT + (width - LEFT - RIGHT) / 2, base + 29);
}

/**
 * The calls that get a number, at least 34 pixels apart.
 * @param {import("./layout.js").Layout} layout @param {import("./tree.js").Tree} t
 */
export function callTicks(layout, t) {
  const every = [1, 2, 5, 10, 20, 50, 100, 200].find((n) => n * layout.view.scale >= 34) ?? 500;
  const first = Math.ceil(Math.max(t.offset, layout.callAt(LEFT)) / every) * every;
  const found = [];
  for (let call = first; call <= lastCallOf(t) && layout.x(call) < layout.width - 4; call += every)
    found.push(call);
  return found;
}
