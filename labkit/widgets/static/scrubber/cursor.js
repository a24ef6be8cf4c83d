// The cursor over all steps, which is the model's, and the pointer and the stretch in view, the browser's alone.

import { setTraits } from "../shared/instrument.js";
import { clamp } from "../shared/values.js";
import { indexAt, nearestStep } from "./curves.js";
import { actionOf } from "./keys.js";
import { around, stepUnder } from "./layout.js";

const SPEED = 14; // steps per second when it plays

/**
 * @typedef {object} Page what the cursor needs of it
 * @property {() => void} redraw
 * @property {(on: boolean) => void} onPlay
 * @property {() => import("./layout.js").Box[]} boxes of the panels
 */

export class Cursor {
  /** @type {number | null} the step under the pointer */ hover = null;
  playing = 0; // the frame that is asked for, 0: it stands

  /**
   * @param {import("../shared/instrument.js").Model} model
   * @param {Int32Array} steps all of them, ascending
   * @param {number[]} kept steps with completions
   * @param {Page} page
   */
  constructor(model, steps, kept, { redraw, onPlay, boxes }) {
    this.model = model;
    this.steps = steps;
    this.whole = { from: steps[0], to: steps[steps.length - 1] };
    this.stretch = this.whole; // the steps in view
    this.sampled = kept.filter((step) => step >= this.whole.from && step <= this.whole.to);
    this.redraw = redraw;
    this.onPlay = onPlay;
    this.boxes = boxes;
  }

  close() {
    cancelAnimationFrame(this.playing);
  }

  /** @param {Record<string, unknown>} changes of traits */
  set(changes) {
    setTraits(this.model, changes);
    this.redraw();
  }

  /** @returns {number} */
  get step() {
    return this.model.get("step");
  }

  /** Where the cursor is among all steps. */
  get index() {
    return Math.max(0, indexAt(this.steps, this.step));
  }

  /** @param {number} index */
  go(index) {
    this.set({ step: this.steps[clamp(index, 0, this.steps.length - 1)] });
  }

  /** @param {number} factor of the steps in view */
  zoom(factor) {
    const span = Math.round((this.stretch.to - this.stretch.from) * factor);
    this.stretch = around(this.whole, this.step, span);
    this.redraw();
  }

  /** Move the stretch to `step` if it lies outside. @param {number} step */
  follow(step) {
    const { from, to } = this.stretch;
    if (step < from || step > to) this.stretch = around(this.whole, step, to - from);
  }

  /** @param {boolean} on */
  play(on) {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.onPlay(on);
    if (!on) return;
    const last = this.steps.length - 1;
    if (this.index === last) this.go(0);
    const start = this.index;
    /** @type {number | null} */
    let began = null;
    const next = (/** @type {number} */ now) => {
      began ??= now;
      const at = start + Math.floor(((now - began) / 1000) * SPEED);
      if (at !== this.index) this.go(at);
      if (at >= last) this.play(false);
      else this.playing = requestAnimationFrame(next);
    };
    this.playing = requestAnimationFrame(next);
  }

  /** Follow pointer and keys on `canvas`. @param {HTMLCanvasElement} canvas */
  listen(canvas) {
    canvas.addEventListener("pointerdown", (event) => {
      canvas.focus();
      canvas.setPointerCapture(event.pointerId);
      this.play(false);
      this.hover = null;
      const step = this.stepAt(event, canvas);
      if (step !== null) this.set({ step });
    });
    canvas.addEventListener("pointermove", (event) => {
      const step = this.stepAt(event, canvas);
      if (event.buttons & 1) {
        if (step !== null) this.set({ step });
      } else if (step !== this.hover) this.point(step);
    });
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** The step of the curves nearest to the pointer. @param {PointerEvent} event @param {HTMLCanvasElement} canvas */
  stepAt({ clientX, clientY }, canvas) {
    const { left, top } = /** @type {HTMLElement} */ (canvas.parentElement).getBoundingClientRect();
    const wanted = stepUnder(this.boxes(), this.stretch, clientX - left, clientY - top);
    return wanted === null ? null : nearestStep(this.steps, wanted);
  }

  /** @param {number | null} step */
  point(step) {
    this.hover = step;
    this.redraw();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const action = actionOf(event, this.steps, this.index, this.step, this.sampled);
    if (!action) return;
    event.preventDefault();
    this.hover = null;
    this.play(action.do === "play" && !this.playing);
    if (action.do === "go") this.go(action.index);
    else if (action.do === "step") this.set({ step: action.step });
    else if (action.do === "zoom") this.zoom(action.factor);
  }
}
