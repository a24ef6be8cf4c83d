// Where things are: forward calls run to the right, the ranks of a beam down; below them a lane of scores.

import { clamp } from "../shared/values.js";
import { callOf, droppedCandidates, lastCallOf, slotOf } from "./tree.js";

// In CSS pixels: margins, height of the lane of scores and of the axis below it.
export const LEFT = 52;
export const RIGHT = 18;
export const LANE = 58;
const TOP = 16;
const AXIS = 34;

export const DETAIL = 22; // pixels a call needs before dropped candidates are drawn
const FITTED = 150; // pixels of a call at most, where all calls fit
const ZOOMED = 220; // pixels of a call at most
const DROPPED = 0.42; // how far along a call a dropped candidate ends
const FIRST = -0.12; // the call at the left end
const PAD = 12; // pixels left of it
const REACH = 14; // pixels around the pointer

/**
 * @typedef {import("./tree.js").Tree} Tree
 * @typedef {{ start: number, scale: number, whole: boolean }} View
 * start: the call at the left; scale: pixels per call; whole: fitted, until someone zooms
 * @typedef {[number, number]} Point x, y in CSS pixels
 */

/** The places of some trees under one view; the methods that move it return another view. */
export class Layout {
  /**
   * @param {Tree[]} trees drawn below each other on the same calls
   * @param {number} width of the canvases in CSS pixels
   * @param {View | null} view null: the whole tree
   */
  constructor(trees, width, view = null) {
    this.trees = trees;
    this.width = width;
    this.lastCall = Math.max(...trees.map(lastCallOf));
    this.view = view ?? this.fit();
  }

  /** Pixels per call at which all calls fit. */
  fitted() {
    return Math.min(FITTED, (this.width - LEFT - RIGHT - 2 * PAD) / Math.max(1, this.lastCall));
  }

  /** @returns {View} */
  fit() {
    return { start: FIRST, scale: this.fitted(), whole: true };
  }

  /** The view moved by `calls`, within the tree. @param {number} calls @returns {View} */
  panned(calls) {
    const { view } = this;
    const inside = (this.width - LEFT - RIGHT - PAD) / view.scale;
    const furthest = Math.max(FIRST, this.lastCall + 0.3 - inside);
    return { ...view, start: clamp(view.start + calls, FIRST, furthest) };
  }

  /**
   * Closer (sign 1) or further (-1) with the call under `anchor` kept in its place; 0: the whole tree.
   * @param {number} sign @param {number} anchor x in pixels
   * @returns {View}
   */
  zoomed(sign, anchor) {
    if (sign === 0) return this.fit();
    const scale = clamp(this.view.scale * 1.35 ** sign, this.fitted(), ZOOMED);
    const closer = new Layout(this.trees, this.width, { start: this.view.start, scale, whole: false });
    return closer.panned(this.callAt(anchor) - closer.callAt(anchor));
  }

  /** The view with `call` not too near to its edges. @param {number} call @returns {View} */
  showing(call) {
    const [low, high] = [this.callAt(LEFT), this.callAt(this.width - RIGHT)];
    const margin = 0.12 * (high - low);
    let move = 0;
    if (call < low + margin && low > -0.2) move -= low + margin - call;
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

  /** @param {Tree} t */
  rowHeight(t) {
    return clamp(Math.floor((this.trees.length > 1 ? 200 : 290) / t.slots), 26, 84);
  }

  /** Where the ranks end and the lane begins. @param {Tree} t */
  laneTop(t) {
    return TOP + t.slots * this.rowHeight(t);
  }

  /** @param {Tree} t */
  height(t) {
    return this.laneTop(t) + LANE + AXIS;
  }

  /** @param {Tree} t @param {number} slot */
  y(t, slot) {
    return TOP + (slot + 0.4) * this.rowHeight(t);
  }

  /** The middle of a state. @param {Tree} t @param {number} r @returns {Point} */
  at(t, r) {
    return [this.x(callOf(t, r)), this.y(t, slotOf(t, r))];
  }

  /**
   * The end of a state's dropped candidate number `i` of `count`.
   * @param {Tree} t @param {number} r @param {number} i @param {number} count
   * @returns {Point}
   */
  stub(t, r, i, count) {
    const [x, y] = this.at(t, r);
    return [x + DROPPED * this.view.scale, y + this.rowHeight(t) * (0.16 + (0.66 * (i + 1)) / (count + 1))];
  }

  /** First row in sight and the one after the last. @param {Tree} t @returns {[number, number]} */
  rowsInSight(t) {
    const low = clamp(Math.floor(this.callAt(LEFT) - t.offset) - 1, 0, t.steps);
    const high = clamp(Math.ceil(this.callAt(this.width) - t.offset) + 1, 0, t.steps);
    return [t.first[low], t.first[high + 1]];
  }

  /**
   * The state or dropped candidate (-1: the state itself) nearest to a point, null if none is near.
   * @param {Tree} t @param {number} px @param {number} py
   * @returns {{ row: number, candidate: number } | null}
   */
  hit(t, px, py) {
    const step = Math.round(this.callAt(px) - t.offset);
    let [nearest, best] = [REACH ** 2, /** @type {{ row: number, candidate: number } | null} */ (null)];
    const consider = (/** @type {Point} */ [x, y], /** @type {number} */ row, candidate = -1) => {
      const distance = (x - px) ** 2 + (y - py) ** 2;
      if (distance < nearest) [nearest, best] = [distance, { row, candidate }];
    };
    for (let s = Math.max(0, step - 1); s <= Math.min(t.steps, step + 1); s++)
      for (let r = t.first[s]; r < t.first[s + 1]; r++) {
        consider(this.at(t, r), r);
        if (this.view.scale < DETAIL) continue;
        const dropped = droppedCandidates(t, r);
        dropped.forEach((c, i) => consider(this.stub(t, r, i, dropped.length), r, c - t.cand[r]));
      }
    return best;
  }
}
