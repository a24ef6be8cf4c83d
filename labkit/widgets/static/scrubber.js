// Curves of many runs under one cursor. The cursor moves here; only a chosen step asks Python for its texts.

import { cards, fromArchive } from "./scrubber/completions.js";
import { Cursor } from "./scrubber/cursor.js";
import { allSteps, rangeOf, readCurves, readIntegers, smoothed } from "./scrubber/curves.js";
import { arrange } from "./scrubber/layout.js";
import { HUES } from "./scrubber/marks.js";
import { nameOf, page } from "./scrubber/page.js";
import { drawCursor, drawCurves, drawSwatch } from "./scrubber/paint.js";
import { drawChecks, drawValues, plainTitle, spokenValues } from "./scrubber/table.js";
import { make, palette } from "./shared/dom.js";
import { instrument, renewed } from "./shared/instrument.js";

const TRAITS = ["step", "shown", "smooth", "completions"];

/** @param {import("./shared/instrument.js").RenderProps} props */
export function render(props) {
  return renewed(props, ["points", "runs"], () => new Scrubber(props)); // a training may go on
}

class Scrubber {
  /** @type {import("./scrubber/paint.js").Scene | null} what is drawn */ scene = null;
  drawnFor = ""; // the traits, sizes and colours of the scene
  /** @type {unknown} what the cards show */ cardsOf = null;
  /** @type {any} what was last found in the page */ found = null;
  foundFor = ""; // the step and runs it was found for

  /** @param {import("./shared/instrument.js").RenderProps} props */
  constructor({ model, el }) {
    this.model = model;
    this.curves = readCurves(model.get("points"), model.get("extent"));
    this.kept = readIntegers(model.get("sampled"));
    this.cursor = new Cursor(model, allSteps(this.curves), this.kept, {
      redraw: () => this.panel.redraw(),
      boxes: () => this.scene?.boxes ?? [],
      onPlay: (on) => {
        this.page.playing.textContent = on ? "❚❚ pause" : "▶ play";
        this.page.playing.setAttribute("aria-pressed", String(on));
      },
    });
    this.facts = this.readFacts();
    this.armOf = this.facts.runs.map((run) => this.facts.arms.indexOf(run.arm));
    this.crowded = this.facts.runs.length > this.facts.arms.length; // then a seed belongs to a run's name
    const now = { index: this.cursor.index, smooth: model.get("smooth") };
    this.page = page(this.facts, this.actions(), now);
    this.cursor.listen(this.page.cursor);
    this.panel = instrument({ model, el, root: this.page.root, draw: () => this.draw(), watch: TRAITS });
  }

  /** @returns {import("./scrubber/page.js").Facts} */
  readFacts() {
    const [runs, panels, unit, thinned] = ["runs", "panels", "unit", "thinned"].map((name) =>
      this.model.get(name),
    );
    const distinct = (/** @type {"arm" | "seed"} */ key) => [
      ...new Set(runs.map((/** @type {{ arm: string, seed: string }} */ run) => run[key])),
    ];
    const { steps, sampled } = this.cursor;
    const [arms, seeds] = [distinct("arm"), distinct("seed")];
    return { runs, arms, seeds, panels, unit, thinned, steps, sampled: sampled.length > 0 };
  }

  /** What the inputs do. @returns {import("./scrubber/page.js").Actions} */
  actions() {
    const { cursor } = this;
    return {
      go: (index) => cursor.go(index),
      zoom: (factor) => cursor.zoom(factor),
      play: () => cursor.play(!cursor.playing),
      smooth: (width) => cursor.set({ smooth: width }),
      show: (chosen, on) => {
        const shown = this.shown();
        const all = this.facts.runs.map((_, i) => i);
        cursor.set({ shown: all.filter((i) => (chosen(i) ? on : shown.has(i))) });
      },
    };
  }

  close() {
    this.cursor.close();
    this.panel.close();
  }

  /** Runs that are shown. @returns {Set<number>} */
  shown() {
    return new Set(this.model.get("shown"));
  }

  draw() {
    const width = Math.floor(this.page.stage.clientWidth);
    if (!width) return;
    const colours = palette(this.page.root);
    const theme = { ...colours, hues: colours.dark ? HUES.dark : HUES.light };
    const { cursor } = this;
    const step = cursor.hover ?? cursor.step;
    cursor.follow(step);
    const shown = this.shown();
    const places = [width, cursor.stretch.from, cursor.stretch.to, window.devicePixelRatio];
    const drawnFor = [...places, this.model.get("smooth"), ...shown, theme.ink, theme.paper].join();
    if (!this.scene || drawnFor !== this.drawnFor) this.scene = this.drawScene(width, theme, shown);
    this.drawnFor = drawnFor;
    drawCursor(this.page.cursor, this.scene, step, cursor.hover !== null);
    drawValues(this.page, this.curves, step);
    this.page.corner.textContent = `at ${this.facts.unit} ${step}`;
    if (cursor.hover !== null) return;
    this.page.scrub.set(cursor.index);
    this.page.cursor.setAttribute("aria-valuenow", String(step));
    this.page.cursor.setAttribute("aria-valuetext", spokenValues(this.page, this.facts, shown, step));
    this.drawCards();
  }

  /**
   * All but what follows the cursor.
   * @param {number} width @param {import("./scrubber/paint.js").Scene["theme"]} theme @param {Set<number>} shown
   */
  drawScene(width, theme, shown) {
    const { page, facts, armOf, crowded } = this;
    const { stretch, whole, sampled } = this.cursor;
    const { boxes, height } = arrange(facts.panels.length, width);
    const smooth = this.model.get("smooth");
    page.stage.style.height = `${height}px`;
    for (const curve of this.curves) curve.drawn = smoothed(curve.values, smooth);
    const curves = this.curves.filter((curve) => shown.has(curve.run));
    const of = (/** @type {number} */ panel) => curves.filter((curve) => curve.panel === panel);
    const ranges = boxes.map((_, panel) => rangeOf(of(panel), stretch.from, stretch.to));
    const font = getComputedStyle(page.root).fontFamily;
    const { panels } = facts;
    const place = { width, height, boxes, ranges, stretch, whole };
    const scene = { ...place, panels, curves, armOf, crowded, sampled, theme, font };
    drawCurves(page.curves, scene);
    page.swatches.forEach((canvas, i) => drawSwatch(canvas, armOf[i], theme.hues));
    drawChecks(page, facts, shown);
    page.smoothing.set(smooth - 1);
    page.title.textContent = this.model.get("title") || plainTitle(facts);
    return scene;
  }

  /**
   * What the shown runs wrote at a step: what Python sent last, or what the page has without Python.
   * @returns {import("./scrubber/completions.js").Completions}
   */
  completions() {
    const [archive, shown, most] = ["archive", "shown", "most"].map((name) => this.model.get(name));
    if (!archive) return this.model.get("completions");
    const wanted = [this.cursor.step, ...shown].join();
    if (wanted !== this.foundFor) this.found = fromArchive(archive, this.cursor.step, shown, most);
    this.foundFor = wanted;
    return this.found;
  }

  /** What the shown runs wrote at the cursor's step; Python sends it when a step is chosen. */
  drawCards() {
    const { written } = this.page;
    const completions = this.completions();
    if (!this.kept.length) {
      if (!written.firstChild)
        written.append(make("p", { class: "lk-hint" }, "These runs kept no completions."));
      return;
    }
    if (completions.step !== this.cursor.step || completions === this.cardsOf) return; // still on its way, or here
    this.cardsOf = completions;
    const { unit, runs } = this.facts;
    const goTo = (/** @type {number} */ step) => this.cursor.set({ step });
    written.replaceChildren(
      ...cards(completions, { unit, goTo, nameOf: (run) => nameOf(runs[run], this.crowded) }),
    );
  }
}
