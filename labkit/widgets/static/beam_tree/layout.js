// Where things are: forward calls run to the right, the ranks of a beam down; below them a lane of scores.

import { clamp } from "../shared/values.js";
import { callOf, droppedCandidates, lastCallOf, slotOf } from "./tree.js";

// In CSS pixels: margins, and the height of the axis below the lane of scores.
export const LEFT = 52;
export const RIGHT = 18;
const TOP = 16;
const AXIS = 32;

export const MARK = 10; // width of the smallest mark, where a call has so much room
export const DETAIL = 18; // pixels a call needs before dropped candidates are drawn
const CELL = MARK + 2; // a dropped candidate's place
const FITTED = 150; // pixels of a call at most, where all calls fit
const ZOOMED = 220; // pixels of a call at most
const FIRST = -0.12; // the call at the left end
const PAD = 12; // pixels left of it
const REACH = 14; // pixels around the pointer

/**
 * @typedef {import("./tree.js").Tree} Tree
 * @typedef {{ start: number, scale: number, whole: boolean }} View
 * start: the call at the left; scale: pixels per call; whole: fitted, until someone zooms
 * @typedef {[number, number]} Point x, y in CSS pixels
 * @typedef {{ candidate: number, fate: number, count: number, at: Point }} Dropped
 * candidate: over the whole tree; count: how many candidates of this fate the mark stands for
 */

/** The places of one tree under one view; the methods that move it return another view. */
export class Layout {
  /**
   * @param {Tree} t
   * @param {number} width of the canvas in CSS pixels
   * @param {View | null} view null: the whole tree
   * @param {number} trees drawn below each other, which share the height of the page
   */
  constructor(t, width, view = null, trees = 1) {
    this.t = t;
    this.width = width;
    this.lastCall = lastCallOf(t);
    this.rowHeight = clamp(Math.floor((trees > 1 ? 160 : 240) / t.slots), 24, 60);
    this.laneTop = TOP + t.slots * this.rowHeight; // where the ranks end
    this.lane = clamp((trees > 1 ? 210 : 290) - t.slots * this.rowHeight, 44, 100); // height of the scores
    this.height = this.laneTop + this.lane + AXIS;
    this.view = view ?? this.fit();
  }

  /** Pixels per call at which all calls fit. */
  fitted() {
    const calls = Math.max(1, this.lastCall - this.t.offset);
    return Math.min(FITTED, (this.width - LEFT - RIGHT - 2 * PAD) / calls);
  }

  /** The whole tree. @returns {View} */
  fit() {
    return { start: this.t.offset + FIRST, scale: this.fitted(), whole: true };
  }

  /** The view moved by `calls`, within the tree. @param {number} calls @returns {View} */
  panned(calls) {
    const { view } = this;
    const first = this.t.offset + FIRST;
    const inside = (this.width - LEFT - RIGHT - PAD) / view.scale;
    const furthest = Math.max(first, this.lastCall + 0.3 - inside);
    return { ...view, start: clamp(view.start + calls, first, furthest) };
  }

  /**
   * Closer (sign 1) or further (-1) with the call under `anchor` kept in its place; 0: the whole tree.
   * @param {number} sign @param {number} anchor x in pixels
   * @returns {View}
   */
  zoomed(sign, anchor) {
    if (sign === 0) return this.fit();
    const scale = clamp(this.view.scale * 1.35 ** sign, this.fitted(), ZOOMED);
    const closer = new Layout(this.t, this.width, { start: this.view.start, scale, whole: false });
    return closer.panned(this.callAt(anchor) - closer.callAt(anchor));
  }

  /** The view with `call` not too near to its edges. @param {number} call @returns {View} */
  showing(call) {
    const [low, high] = [this.callAt(LEFT), this.callAt(this.width - RIGHT)];
    const margin = 0.12 * (high - low);
    let move = 0;
    if (call < low + margin && low > this.t.offset - 0.2) move -= low + margin - call;
    if (call > high - margin && high < this.lastCall) move += call - high + margin;
    return this.panned(move);
  }

  /** @param {number} call */
  x(call) {
    return LEFT + PAD + (call - this.view.start + FIRST) * this.view.scale;
  }

  /** The call at `px`: the inverse of x. @param {number} px */
  callAt(px) {
    return (px - LEFT - PAD) / this.view.scale + this.view.start - FIRST;
  }

  /** @param {number} slot */
  y(slot) {
    return TOP + (slot + 0.4) * this.rowHeight;
  }

  /** The middle of a state. @param {number} r @returns {Point} */
  at(r) {
    return [this.x(callOf(this.t, r)), this.y(slotOf(this.t, r))];
  }

  /**
   * A place below the edge to the next call for each dropped candidate of a state or, where they have no
   * room, one for each fate; none at all before one has zoomed in.
   * @param {number} r @returns {Dropped[]}
   */
  dropped(r) {
    const { scale } = this.view;
    const found = scale < DETAIL ? [] : droppedCandidates(this.t, r);
    const down = Math.max(1, Math.floor((0.9 * this.rowHeight - CELL) / CELL));
    const across = Math.max(1, Math.floor((scale - 2 * CELL) / CELL));
    const [x, y] = this.at(r);
    const place = (/** @type {number} */ i, gap = CELL) =>
      /** @type {Point} */ ([x + CELL + gap * Math.floor(i / down), y + CELL * (1 + (i % down))]);
    const marks = found.map((candidate) => ({ candidate, fate: this.t.candFate[candidate], count: 1 }));
    if (marks.length <= down * across) return marks.map((mark, i) => ({ ...mark, at: place(i) }));
    /** @type {Map<number, Omit<Dropped, "at">>} */
    const byFate = new Map();
    for (const mark of marks) {
      const known = byFate.get(mark.fate);
      if (known) known.count++;
      else byFate.set(mark.fate, mark);
    }
    return [...byFate.values()].map((mark, i) => ({ ...mark, at: place(i, 2 * CELL) }));
  }

  /** First row in sight and the one after the last. @returns {[number, number]} */
  rowsInSight() {
    const { t } = this;
    const low = clamp(Math.floor(this.callAt(LEFT) - t.offset) - 1, 0, t.steps);
    const high = clamp(Math.ceil(this.callAt(this.width) - t.offset) + 1, 0, t.steps);
    return [t.first[low], t.first[high + 1]];
  }

  /**
   * The state or dropped candidate (-1: the state itself) nearest to a point, null if none is near.
   * @param {number} px @param {number} py
   * @returns {{ row: number, candidate: number } | null}
   */
  hit(px, py) {
    const { t } = this;
    const step = Math.round(this.callAt(px) - t.offset);
    let [nearest, best] = [REACH ** 2, /** @type {{ row: number, candidate: number } | null} */ (null)];
    const consider = (/** @type {Point} */ [x, y], /** @type {number} */ row, candidate = -1) => {
      const distance = (x - px) ** 2 + (y - py) ** 2;
      if (distance < nearest) [nearest, best] = [distance, { row, candidate }];
    };
    for (let s = Math.max(0, step - 1); s <= Math.min(t.steps, step + 1); s++)
      for (let r = t.first[s]; r < t.first[s + 1]; r++) {
        consider(this.at(r), r);
        for (const { candidate, at } of this.dropped(r)) consider(at, r, candidate - t.cand[r]);
      }
    return best;
  }
}
