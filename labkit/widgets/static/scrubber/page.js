// What stands on the page of the scrubber: inputs, panels of curves, the table, what was written.

import { checkbox, make, slider } from "../shared/dom.js";

/**
 * @typedef {object} Facts what does not change
 * @property {{ arm: string, seed: string }[]} runs
 * @property {string[]} arms @property {string[]} seeds
 * @property {string[]} panels
 * @property {string} unit "step" or "question"
 * @property {Int32Array} steps
 * @property {boolean} sampled some steps have completions
 * @property {number[]} thinned points kept and points of the longest curve; empty: all are kept
 *
 * @typedef {object} Actions
 * @property {(index: number) => void} go to a place among the steps
 * @property {(factor: number) => void} zoom
 * @property {() => void} play
 * @property {(width: number) => void} smooth
 * @property {(chosen: (run: number) => boolean, on: boolean) => void} show
 *
 * @typedef {ReturnType<typeof page>} Page
 */

/**
 * @param {Facts} facts @param {Actions} actions
 * @param {{ index: number, smooth: number }} now where the inputs stand at first
 */
export function page(facts, actions, now) {
  const inputs = inputRow(facts, actions, now);
  const curves = make("canvas", { "aria-hidden": "true" });
  const cursor = cursorCanvas(facts);
  const parts = {
    title: make("p", { class: "lk-title" }),
    curves,
    cursor,
    stage: make("div", { class: "sc-stage" }, curves, cursor),
    written: make("div", { class: "sc-written", "aria-live": "polite" }),
    ...inputs,
    ...runTable(facts, actions),
  };
  const root = make(
    "div",
    { class: "lk sc" },
    parts.title,
    parts.inputRow,
    parts.stage,
    make("div", { class: "sc-scroll" }, parts.table),
    parts.written,
    hint(facts),
  );
  return { ...parts, root };
}

/** @param {Facts} facts @param {Actions} actions @param {{ index: number, smooth: number }} now */
function inputRow(facts, { go, zoom, play, smooth, show }, now) {
  const { runs, arms, seeds, steps } = facts;
  const say = (/** @type {number} */ i) => `${steps[i]} of ${steps.at(-1)}`;
  const scrub = slider(facts.unit, { max: steps.length - 1, value: now.index, say, change: go });
  scrub.input.classList.add("sc-step");
  const zoomButton = (
    /** @type {string} */ label,
    /** @type {number} */ factor,
    /** @type {string} */ sign,
  ) => make("button", { type: "button", "aria-label": label, onclick: () => zoom(factor) }, sign);
  const zooms = [zoomButton("zoom in around the cursor", 0.5, "+"), zoomButton("zoom out", 2, "−")];
  const playing = make("button", { type: "button", "aria-pressed": "false", onclick: play }, "▶ play");
  const smoothing = slider("smooth over", {
    max: 29,
    value: now.smooth - 1,
    say: (i) => (i ? `${i + 1} points` : "off"),
    change: (i) => smooth(i + 1),
  });
  const pick = (
    /** @type {string} */ label,
    /** @type {string} */ text,
    /** @type {(run: number) => boolean} */ chosen,
  ) => checkbox(text, { value: true, title: `show or hide ${label}`, change: (on) => show(chosen, on) });
  const armBoxes = arms.map((arm) => pick(`all runs of ${arm}`, arm, (i) => runs[i].arm === arm));
  const seedBoxes = seeds.map((seed) => pick(`seed ${seed}`, seed, (i) => runs[i].seed === seed));
  const crowded = runs.length > arms.length;
  const row = make(
    "div",
    { class: "lk-row" },
    scrub.node,
    playing,
    make("span", {}, "zoom ", zooms[0], " ", zooms[1]),
    ...(facts.thinned.length ? [] : [smoothing.node]),
    ...(arms.length > 1 && crowded ? [group("arms", armBoxes)] : []),
    ...(seeds.length > 1 && crowded ? [group("seeds", seedBoxes)] : []),
  );
  return { inputRow: row, scrub, playing, smoothing, armBoxes, seedBoxes };
}

/** @param {string} label @param {{ node: HTMLElement }[]} items */
function group(label, items) {
  const attributes = { class: "lk-row", role: "group", "aria-label": label, style: "margin:0" };
  return make("span", attributes, label, ...items.map((item) => item.node));
}

/** @param {Facts} facts */
function cursorCanvas({ unit, steps }) {
  return make("canvas", {
    tabindex: 0,
    role: "slider",
    "aria-label":
      `Cursor over ${unit}s. Left and right move it by one, Page Up and Page Down by a tenth, Home and End ` +
      `to the ends, Space plays, S goes to the next ${unit} with completions.`,
    "aria-valuemin": steps[0],
    "aria-valuemax": steps.at(-1),
  });
}

/** A row for each run, a column for each panel. @param {Facts} facts @param {Actions} actions */
function runTable({ runs, arms, panels }, { show }) {
  const swatches = runs.map(() => make("canvas", { "aria-hidden": "true" }));
  const boxes = runs.map((run, i) =>
    checkbox([swatches[i], nameOf(run, runs.length > arms.length)], {
      value: true,
      change: (on) => show((j) => j === i, on),
    }),
  );
  const cells = runs.map(() => panels.map(() => make("td", {}, "–")));
  const rows = runs.map((_, i) => make("tr", {}, make("th", { scope: "row" }, boxes[i].node), ...cells[i]));
  const corner = make("th", { scope: "col" });
  const heads = panels.map((label) => make("th", { scope: "col" }, label));
  const head = make("thead", {}, make("tr", {}, corner, ...heads));
  const table = make("table", { class: "sc-table" }, head, make("tbody", {}, ...rows));
  return { table, corner, rows, cells, boxes, swatches };
}

/** A run, with its seed where an arm has several. @param {{ arm: string, seed: string }} run @param {boolean} crowded */
export const nameOf = (run, crowded) => (crowded ? `${run.arm}, seed ${run.seed}` : run.arm);

/** @param {Facts} facts */
function hint({ unit, sampled, thinned: [most, longest] }) {
  const keys = [
    ["← →", `one ${unit}`],
    ["+ −", "zoom"],
    ["PgUp PgDn", "a tenth"],
    ["Home End", "ends"],
    ["Space", "play"],
  ];
  if (sampled) keys.push(["S", `next ${unit} with completions (▴)`]);
  const words = keys.flatMap(([key, does], i) => [i ? " · " : "", make("kbd", {}, key), ` ${does}`]);
  const node = make("p", { class: "lk-hint" }, "Drag in a panel, or ", ...words);
  if (most) {
    const points = `at most ${most} of ${longest.toLocaleString("en")} points`;
    node.append(` · each curve is drawn by its ends and extremes: ${points}`);
  }
  return node;
}
