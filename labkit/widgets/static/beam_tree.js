// The beam tree of one decode, or of two on the same calls: traits, page and pictures brought together.

import { boardFigure } from "./beam_tree/board.js";
import { drawDecodeRow, drawThreshold } from "./beam_tree/controls.js";
import { forceForm, stateDetails } from "./beam_tree/details.js";
import { drawLegend, readColours } from "./beam_tree/marks.js";
import { ownBoard } from "./beam_tree/own.js";
import { NINES, page } from "./beam_tree/page.js";
import { drawTree } from "./beam_tree/paint.js";
import { addStage } from "./beam_tree/stage.js";
import { answerAt, isPreviewing, lastCallOf, recordedThreshold, unpackAll } from "./beam_tree/tree.js";
import { Walk } from "./beam_tree/walk.js";
import { confidenceOf, spokenState, tipText } from "./beam_tree/words.js";
import { sized } from "./shared/dom.js";
import { instrument } from "./shared/instrument.js";
import { clamp } from "./shared/values.js";

const WORDS = 100; // milliseconds between two updates of the words
const TRAITS = ["trees", "tree", "row", "candidate", "preview", "prompt", "can_run", "busy", "note"];

/** @param {import("./shared/instrument.js").RenderProps} props */
export function render(props) {
  const view = new BeamTree(props);
  return () => view.close();
}

/**
 * @typedef {import("./beam_tree/tree.js").Tree} Tree
 * @typedef {ReturnType<typeof addStage>} Stage
 */

class BeamTree {
  /** @type {Stage[]} */ stages = [];
  /** @type {unknown} the trait from which the trees were unpacked */ packed = null;
  settling = 0; // timers
  words = 0;
  wordsAt = Number.NEGATIVE_INFINITY; // when the words were drawn
  wordsOf = ""; // what the words show
  looks = ""; // colours of the legend

  /** @param {import("./shared/instrument.js").RenderProps} props */
  constructor({ model, el }) {
    this.model = model;
    this.walk = new Walk(model, {
      width: () => this.width,
      redraw: () => this.panel.redraw(),
      say: (text) => {
        this.page.live.textContent = text;
      },
      onPlay: (on) => {
        this.page.playing.textContent = on ? "❚❚ Pause" : "▶ Play";
      },
    });
    this.page = page(this.actions());
    this.form = forceForm(this.get("side"), (p) => this.form.choose(this.walk.tree, this.get("row"), p));
    this.own = ownBoard(this.get("side"), {
      decode: (tokens) => model.send({ kind: "board", tokens }),
      leave: () => this.showOwn(false),
    });
    this.page.side.append(this.own.root);
    this.panel = instrument({ model, el, root: this.page.root, draw: () => this.draw(), watch: TRAITS });
    this.widths = new ResizeObserver(this.panel.redraw); // the stage can change while the panel does not
    this.widths.observe(this.page.stages);
  }

  /** What the inputs do. @returns {import("./beam_tree/page.js").Actions} */
  actions() {
    const { model, walk } = this;
    return {
      showPrompt: (prompt) => walk.set({ prompt }),
      decode: (strategy, beam) =>
        model.send({ kind: "decode", strategy, beam, threshold: this.get("preview") }),
      stop: () => model.send({ kind: "stop" }),
      undo: () => model.send({ kind: "back", tree: this.get("tree") }),
      own: () => this.showOwn(true),
      play: () => walk.play(!walk.playing),
      goTo: (call) => walk.goTo(call),
      zoom: (sign) => walk.zoom(sign),
      preview: (count) => walk.set({ preview: confidenceOf(count) }),
      resetPreview: () => walk.set({ preview: recordedThreshold(walk.trees[0]) }),
      sayCall: (call) => `${call} of ${walk.trees.length ? lastCallOf(walk.tree) : 0}`,
    };
  }

  /** Put the grid for a puzzle of the reader's own in the place of the details, or away. @param {boolean} on */
  showOwn(on) {
    this.own.root.hidden = !on;
    this.page.details.hidden = on;
    if (!on) return;
    const { tokens, given, mask_id: mask } = this.walk.trees[0];
    this.own.fill(Array.from(tokens, (token, p) => (given[p] && token !== mask ? token : 0)));
    this.own.focus();
  }

  close() {
    this.widths.disconnect();
    clearTimeout(this.settling);
    clearTimeout(this.words);
    this.panel.close();
    this.walk.close();
  }

  /** @param {string} name of a trait @returns {any} */
  get(name) {
    return this.model.get(name);
  }

  get width() {
    return Math.max(280, this.stages[0]?.canvas.parentElement?.clientWidth ?? 0);
  }

  /** @param {number} index */
  addStage(index) {
    return addStage(this.page.stages, {
      key: (event) => this.walk.key(index, event),
      zoom: (sign, x) => this.walk.zoom(sign, index, x),
      layout: () => this.walk.layout(index),
      hit: (x, y) => this.walk.layout(index).hit(x, y),
      pan: (calls) => this.walk.pan(index, calls),
      select: ({ row, candidate }) => this.walk.select(index, row, candidate),
      hover: (found) => this.showTip(index, found),
    });
  }

  /** @param {number} index @param {{ row: number, candidate: number, x: number, y: number } | null} hover */
  showTip(index, hover) {
    const { tip } = this.page;
    tip.hidden = !hover;
    if (!hover) return;
    tip.textContent = tipText(this.walk.names, this.walk.trees[index], hover.row, hover.candidate);
    tip.style.left = `${Math.min(hover.x + 12, this.width - 240)}px`;
    tip.style.top = `${hover.y + 14}px`;
  }

  draw() {
    if (this.packed !== this.get("trees")) this.load();
    const { page } = this;
    const { trees } = this.walk;
    if (!trees.length || this.get("row") >= this.walk.tree.rows || !page.root.isConnected) return;
    const { width } = this;
    clearTimeout(this.settling); // while a theme loads, sizes are for a moment those of no style at all
    this.settling = window.setTimeout(() => this.width !== width && this.panel.redraw(), 400);
    const colours = readColours(page.root);
    page.title.textContent = trees[0].finding;
    drawDecodeRow(page, trees, (name) => this.get(name));
    const layouts = trees.map((_, index) => this.walk.layout(index)); // reading a width after a change is dear
    page.scrub.input.max = String(lastCallOf(this.walk.tree));
    page.scrub.set(this.walk.call);
    drawThreshold(page, trees[0], this.get("preview"));
    trees.forEach((_, index) => this.drawStage(index, layouts[index], colours));
    this.drawWordsLater(colours.dark);
    const looks = JSON.stringify(colours);
    if (looks !== this.looks) drawLegend(page.legend, colours);
    this.looks = looks;
  }

  /** Take the trees that Python sent. */
  load() {
    this.packed = this.get("trees");
    this.walk.trees = unpackAll(this.get("trees"));
    while (this.stages.length < this.walk.trees.length) this.stages.push(this.addStage(this.stages.length));
    const selected = this.get("tree");
    this.walk.views = this.walk.trees.map(() => null);
    if (this.walk.tree && this.get("row") < this.walk.tree.rows)
      this.walk.views[selected] = this.walk.layout(selected).showing(this.walk.call);
    this.wordsOf = "";
    this.showOwn(false);
    this.showTip(0, null);
    this.page.strategy.value = this.walk.trees[0].strategy;
    this.page.beam.set(this.walk.trees[0].beam);
    this.page.root.classList.toggle("bt-words", !this.get("side"));
  }

  /**
   * @param {number} index
   * @param {import("./beam_tree/layout.js").Layout} layout
   * @param {import("./beam_tree/marks.js").Colours} colours
   */
  drawStage(index, layout, colours) {
    const t = this.walk.trees[index];
    const { canvas, caption } = this.stages[index];
    caption.textContent = this.walk.trees.length > 1 || t.offset ? t.finding : "";
    caption.hidden = index === 0 || !caption.textContent;
    canvas.setAttribute("aria-label", `${t.finding}. Arrow keys walk the tree.`);
    const preview = this.get("preview");
    drawTree({
      ink: sized(canvas, layout.width, layout.height),
      t,
      layout,
      colours,
      names: this.walk.names,
      font: getComputedStyle(this.page.root).fontFamily,
      now: clamp(this.walk.call - t.offset, 0, t.steps),
      selected:
        index === this.get("tree") ? { row: this.get("row"), candidate: this.get("candidate") } : null,
      preview: isPreviewing(t, this.walk.trees[0], preview) ? preview : null,
    });
  }

  /**
   * Hundreds of words take longer than a frame: while the cursor runs they follow ten times a second, and
   * panning redraws the canvas alone.
   * @param {boolean} dark
   */
  drawWordsLater(dark) {
    const traits = ["tree", "row", "candidate", "preview", "can_run", "prompt"].map((name) => this.get(name));
    const shows = JSON.stringify([...traits, dark]);
    if (shows === this.wordsOf) return;
    this.wordsOf = shows;
    const wait = Math.max(0, WORDS - (performance.now() - this.wordsAt));
    this.words ||= window.setTimeout(() => this.drawWords(), wait);
  }

  drawWords() {
    this.words = 0;
    this.wordsAt = performance.now();
    const { tree: t, names } = this.walk;
    const [selected, r, preview, canRun] = ["tree", "row", "preview", "can_run"].map((name) =>
      this.get(name),
    );
    if (!this.walk.trees.length || r >= t.rows) return;
    const shared = { names, preview, fullNines: NINES[1] };
    const choose = (/** @type {number} */ position) => this.form.choose(t, r, position);
    const board = (/** @type {Tree} */ one, /** @type {number} */ index) =>
      boardFigure(one, index === selected ? r : answerAt(one, this.walk.call), {
        ...shared,
        named: this.walk.trees.length > 1,
        choose: index === selected && canRun ? choose : null,
      });
    this.walk.trees.forEach((one, index) => this.stages[index].board.replaceChildren(board(one, index)));
    const force = (/** @type {number} */ position, /** @type {number} */ token) =>
      this.model.send({ kind: "force", tree: this.get("tree"), row: this.get("row"), position, token });
    const c = t.cand[r] + this.get("candidate");
    const chosen = c >= t.cand[r] && c < t.cand[r + 1] ? c : null;
    const select = (/** @type {number} */ candidate) => this.walk.select(selected, r, candidate);
    const details = stateDetails(t, r, { ...shared, chosen, select, force: canRun ? force : null });
    const form = canRun && this.form.draw(t, r, names, force);
    this.page.details.replaceChildren(...details, ...(form ? [form] : []));
    this.page.live.textContent = spokenState(names, t, r, chosen);
  }
}
