// Below and beside a tree: the lane of scores, the ranks, the forward calls.

import { LEFT, RIGHT } from "./layout.js";
import { axisLabel, nines } from "./words.js";

/**
 * A dot per state, a line for the answer's.
 * @param {import("./paint.js").Scene} scene @param {number} from @param {number} to rows
 */
export function drawScores({ ink, t, layout, colours, now }, from, to) {
  const level = scoreLevel(t, layout.laneTop + 8, layout.lane - 16);
  for (let r = from; r < to; r++) {
    if (!t.committed[r]) continue;
    ink.globalAlpha = t.step[r] > now ? 0.45 : 0.9;
    ink.fillStyle = colours.muted;
    ink.fillRect(layout.at(r)[0] - 1.5, level(t.score[r]) - 1.5, 3, 3);
  }
  ink.globalAlpha = 1;
  ink.strokeStyle = colours.ink;
  ink.lineWidth = 2;
  ink.beginPath();
  for (const r of t.answer)
    if (t.step[r] <= now && t.committed[r]) ink.lineTo(layout.at(r)[0], level(t.score[r]));
  ink.stroke();
}

/**
 * The place of a score between `top` and `top + height`.
 * @param {import("./tree.js").Tree} t @param {number} top @param {number} height
 * @returns {(score: number) => number}
 */
function scoreLevel(t, top, height) {
  const spread = (/** @type {number} */ score) => (t.score_name === "mean" ? nines(score) : score); // means crowd below 1
  const [low, high] = t.range.map(spread);
  return (score) => top + height * (1 - (spread(score) - low) / Math.max(high - low, 1e-9));
}

/** @param {import("./paint.js").Scene} scene */
export function drawAxes({ ink, t, layout, colours, font }) {
  const { width, laneTop: lane } = layout;
  const base = lane + layout.lane;
  ink.fillStyle = colours.muted;
  ink.strokeStyle = colours.line;
  ink.lineWidth = 1;
  ink.font = `11px ${font}`;
  ink.textBaseline = "middle";
  ink.textAlign = "right";
  for (let slot = 0; slot < t.slots; slot++) ink.fillText(String(slot + 1), LEFT - 14, layout.y(slot));
  ink.fillText(axisLabel(t.range[1]), LEFT - 10, lane + 8);
  ink.fillText(axisLabel(t.range[0]), LEFT - 10, base - 8);
  ink.textAlign = "left";
  ink.fillText("rank", 0, 7);
  ink.fillText(t.score_name === "mean" ? "mean" : "score", 0, lane + layout.lane / 2);
  ink.textBaseline = "alphabetic";
  ink.beginPath();
  for (const y of [base, lane]) {
    ink.moveTo(LEFT - 8, y);
    ink.lineTo(width - 4, y);
  }
  ink.stroke();
  ink.textAlign = "center";
  for (const call of callTicks(layout)) {
    ink.fillRect(layout.x(call), base, 1, 4);
    ink.fillText(String(call), layout.x(call), base + 15);
  }
  ink.fillText("forward calls", LEFT + (width - LEFT - RIGHT) / 2, base + 29);
}

/**
 * The calls that get a number, at least 34 pixels apart.
 * @param {import("./layout.js").Layout} layout
 */
export function callTicks(layout) {
  const every = [1, 2, 5, 10, 20, 50, 100, 200].find((n) => n * layout.view.scale >= 34) ?? 500;
  const first = Math.ceil(Math.max(layout.t.offset, layout.callAt(LEFT)) / every) * every;
  const found = [];
  for (let call = first; call <= layout.lastCall && layout.x(call) < layout.width - 4; call += every)
    found.push(call);
  return found;
}
