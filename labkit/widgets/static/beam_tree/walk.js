// Walking the trees: the selection, which is the model's, and the view, which is the browser's alone.

import { setTraits } from "../shared/instrument.js";
import { actionOf } from "./keys.js";
import { Layout } from "./layout.js";
import { answerAt, callOf, lastCallOf } from "./tree.js";

const PLAY = 650; // milliseconds per call

/**
 * @typedef {import("./tree.js").Tree} Tree
 * @typedef {import("./layout.js").View} View
 * @typedef {object} Page what the walk needs of it
 * @property {() => number} width of a canvas
 * @property {() => void} redraw
 * @property {(text: string) => void} say
 * @property {(on: boolean) => void} onPlay
 */

export class Walk {
  /** @type {Tree[]} */ trees = [];
  /** @type {(View | null)[]} by tree; null: as it opens */ views = [];
  playing = 0; // the timer, 0: it stands

  /** @param {import("../shared/instrument.js").Model} model @param {Page} page */
  constructor(model, { width, redraw, say, onPlay }) {
    this.model = model;
    this.width = width;
    this.redraw = redraw;
    this.say = say;
    this.onPlay = onPlay;
  }

  close() {
    clearInterval(this.playing);
  }

  /** @param {string} name @returns {any} */
  get(name) {
    return this.model.get(name);
  }

  /** @param {Record<string, unknown>} changes */
  set(changes) {
    setTraits(this.model, changes);
  }

  /** The selected tree. */
  get tree() {
    return this.trees[this.get("tree")];
  }

  /** The call of the selected state. */
  get call() {
    return callOf(this.tree, this.get("row"));
  }

  /** @returns {import("./words.js").Names} */
  get names() {
    return { side: this.get("side"), texts: this.get("texts") };
  }

  /** @param {number} index of the tree */
  layout(index = this.get("tree")) {
    const view = this.views[index];
    const layout = new Layout(this.trees[index], this.width(), view, this.trees.length);
    if (view?.whole) layout.view = layout.fit(); // the width may be another one now
    return layout;
  }

  /** @param {number} tree @param {number} row @param {number} candidate -1: none */
  select(tree, row, candidate = -1) {
    this.set({ tree, row, candidate });
    this.views = this.trees.map((_, index) => this.layout(index).showing(this.call));
    this.redraw();
  }

  /** @param {number} call */
  goTo(call) {
    this.select(this.get("tree"), answerAt(this.tree, call));
  }

  /** @param {number} index of the tree @param {import("./layout.js").View} view */
  look(index, view) {
    this.views[index] = view;
    this.redraw();
  }

  /**
   * @param {number} sign
   * @param {number} [index] of the tree, else the selected one
   * @param {number} [anchor] x that keeps its call, else that of the selection
   */
  zoom(sign, index = this.get("tree"), anchor) {
    const layout = this.layout(index);
    this.look(index, layout.zoomed(sign, anchor ?? layout.x(this.call)));
  }

  /** @param {boolean} on */
  play(on) {
    clearInterval(this.playing);
    this.playing = 0;
    if (on) {
      if (this.call >= lastCallOf(this.tree)) this.goTo(0);
      this.playing = window.setInterval(() => {
        if (this.call < lastCallOf(this.tree)) this.goTo(this.call + 1);
        else this.play(false);
      }, PLAY);
    }
    this.onPlay(on);
  }

  /** A key on the tree `index`. @param {number} index @param {KeyboardEvent} event */
  key(index, event) {
    if (this.get("tree") !== index && /^(Arrow|Home|End| |c)/.test(event.key))
      this.select(index, answerAt(this.trees[index], this.call));
    const action = actionOf(event, this.tree, this.get("row"), this.get("candidate"));
    if (!action) return;
    event.preventDefault();
    if (action.do === "select") this.select(this.get("tree"), action.row, action.candidate);
    else if (action.do === "pan") this.pan(index, action.pixels / this.layout(index).view.scale);
    else if (action.do === "zoom") this.zoom(action.sign, index);
    else if (action.do === "play") this.play(!this.playing);
    else if (action.do === "say") this.say(action.text);
  }

  /** @param {number} index of the tree @param {number} calls */
  pan(index, calls) {
    this.look(index, this.layout(index).panned(calls));
  }
}
