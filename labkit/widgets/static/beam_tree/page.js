// What stands on the page of the beam tree: inputs above, trees and details side by side, words below.

import { make, slider } from "../shared/dom.js";
import { STRATEGY_NAMES } from "./words.js";

/** The threshold's range in nines: 0.5 to 0.99997. */
export const NINES = [0.3, 4.5];

/**
 * @typedef {object} Actions
 * @property {(prompt: number) => void} showPrompt
 * @property {(strategy: string, beam: number) => void} decode
 * @property {() => void} undo
 * @property {() => void} play
 * @property {(call: number) => void} goTo
 * @property {(sign: number) => void} zoom
 * @property {(nines: number) => void} preview
 * @property {() => void} resetPreview
 * @property {(call: number) => string} sayCall
 *
 * @typedef {ReturnType<typeof page>} Page
 */

/** @param {Actions} actions */
export function page(actions) {
  const parts = {
    title: make("p", { class: "lk-title" }),
    stages: make("div", { class: "lk-stage bt-stages" }),
    tip: make("div", { class: "bt-tip", hidden: true }),
    boards: make("div", { class: "bt-boards" }),
    details: make("div", { class: "bt-details" }),
    live: make("div", { class: "lk-live", "aria-live": "polite", role: "status" }),
    legend: make("div", { class: "lk-legend" }),
    ...decodeRow(actions),
    ...walkRow(actions),
    ...thresholdRow(actions),
  };
  parts.stages.append(parts.tip);
  const side = make("div", { class: "lk-side bt-side" }, parts.boards, parts.details);
  const root = make(
    "div",
    { class: "lk bt", role: "group", "aria-label": "beam tree" },
    parts.title,
    parts.decodeRow,
    parts.walkRow,
    parts.thresholdRow,
    make("div", { class: "lk-main" }, parts.stages, side),
    parts.legend,
    hint(),
    parts.live,
  );
  return { ...parts, side, root };
}

/** Which prompt, and how it is decoded. @param {Actions} actions */
function decodeRow({ showPrompt, decode, undo }) {
  const prompt = make("input", {
    type: "number",
    min: 0,
    "aria-label": "puzzle or prompt",
    class: "bt-number",
  });
  prompt.addEventListener("change", () => showPrompt(Math.round(Number(prompt.value)) || 0));
  const what = make("span", { class: "bt-what" }, "prompt");
  const count = make("span", { class: "bt-count" });
  const strategy = make("select", { "aria-label": "strategy", "data-explicit": true });
  for (const [value, text] of Object.entries(STRATEGY_NAMES))
    strategy.append(make("option", { value }, text));
  const beam = make("input", {
    type: "number",
    min: 1,
    max: 16,
    "data-explicit": true,
    "aria-label": "beam: states kept",
    class: "bt-number",
  });
  const onclick = () => decode(strategy.value, Number(beam.value));
  const decodeAgain = make("button", { class: "bt-run", onclick }, "Decode again");
  const back = make("button", { onclick: undo }, "Undo");
  const note = make("span", { class: "bt-note" });
  const promptLabel = make("label", { class: "lk-check" }, what, prompt);
  const strategyLabel = make("label", { class: "lk-check" }, "strategy", strategy);
  const beamLabel = make("label", { class: "lk-check" }, "beam", beam);
  const row = make(
    "div",
    { class: "lk-row" },
    promptLabel,
    count,
    strategyLabel,
    beamLabel,
    decodeAgain,
    back,
    note,
  );
  return {
    decodeRow: row,
    prompt,
    promptLabel,
    what,
    count,
    strategy,
    strategyLabel,
    beam,
    beamLabel,
    decodeAgain,
    back,
    note,
  };
}

/** Where the cursor is, and how near one looks. @param {Actions} actions */
function walkRow({ play, goTo, zoom, sayCall }) {
  const playing = make("button", { onclick: play }, "▶ Play");
  const scrub = slider("after call", { max: 1, value: 0, say: sayCall, change: goTo });
  scrub.input.classList.add("bt-wide");
  const button = (/** @type {string} */ label, /** @type {number} */ sign, /** @type {string} */ text) =>
    make("button", { "aria-label": label, title: label, onclick: () => zoom(sign) }, text);
  const zooms = make(
    "span",
    { class: "bt-zoom" },
    button("zoom out", -1, "−"),
    button("zoom in", 1, "+"),
    button("fit the whole tree", 0, "Fit"),
  );
  return { walkRow: make("div", { class: "lk-row" }, playing, scrub.node, zooms), playing, scrub };
}

/** The threshold under preview. @param {Actions} actions */
function thresholdRow({ preview, resetPreview }) {
  const threshold = make("input", {
    type: "range",
    min: NINES[0],
    max: NINES[1],
    step: 0.02,
    "aria-label": "threshold",
    class: "bt-wide",
  });
  threshold.addEventListener("input", () => preview(Number(threshold.value)));
  const thresholdText = make("output", {});
  const previewText = make("span", { class: "bt-preview" });
  const reset = make("button", { onclick: resetPreview }, "Reset");
  const label = make(
    "label",
    { class: "lk-slider" },
    make("span", {}, "threshold"),
    threshold,
    thresholdText,
  );
  const row = make("div", { class: "lk-row" }, label, previewText, reset);
  return { thresholdRow: row, threshold, thresholdText, previewText, reset };
}

function hint() {
  const key = (/** @type {string} */ text) => make("kbd", {}, text);
  return make(
    "p",
    { class: "lk-hint" },
    ...[key("←"), " ", key("→"), " parent, child · ", key("↑"), " ", key("↓"), " rank · "],
    ...[key("C"), " next candidate · ", key("Space"), " play · "],
    ...[key("+"), " ", key("−"), " ", key("0"), " or Ctrl+wheel zoom · "],
    ...[key("Shift"), "+", key("←"), " ", key("→"), " or drag pans"],
  );
}
