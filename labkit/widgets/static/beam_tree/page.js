// What stands on the page of the beam tree: inputs above, each tree beside its board, details, words below.

import { make, slider } from "../shared/dom.js";
import { numberField } from "../shared/field.js";
import { STRATEGY_NAMES } from "./words.js";

/** The threshold's range in nines: 0.5 to 0.99997. */
export const NINES = [0.3, 4.5];

/**
 * @typedef {object} Actions
 * @property {(prompt: number) => void} showPrompt
 * @property {(strategy: string, beam: number) => void} decode
 * @property {() => void} stop
 * @property {() => void} undo
 * @property {() => void} own a puzzle of the reader's
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
  const walk = walkRow(actions);
  const threshold = thresholdRow(actions);
  const parts = {
    title: make("p", { class: "lk-title" }),
    stages: make("div", { class: "lk-stage bt-stages" }),
    tip: make("div", { class: "bt-tip", hidden: true }),
    details: make("div", { class: "bt-details" }),
    side: make("div", { class: "lk-side" }),
    live: make("div", { class: "lk-live", "aria-live": "polite", role: "status" }),
    legend: make("div", { class: "lk-legend" }),
    ...decodeRow(actions),
    ...walk,
    ...threshold,
  };
  parts.stages.append(parts.tip);
  parts.side.append(parts.details);
  const root = make(
    "div",
    { class: "lk bt", role: "group", "aria-label": "beam tree" },
    parts.title,
    parts.decodeRow,
    make("div", { class: "lk-row" }, ...walk.walkNodes, ...threshold.thresholdNodes),
    make("div", { class: "lk-main" }, parts.stages, parts.side),
    parts.legend,
    hint(),
    parts.live,
  );
  return { ...parts, root };
}

/** Which prompt, and how it is decoded. @param {Actions} actions */
function decodeRow({ showPrompt, decode, stop, undo, own }) {
  const prompt = numberField("puzzle or prompt", { low: 0, high: 0, change: showPrompt });
  const what = make("span", { class: "bt-what" }, "prompt");
  const strategy = make("select", { "aria-label": "strategy", "data-explicit": true });
  for (const [value, text] of Object.entries(STRATEGY_NAMES))
    strategy.append(make("option", { value }, text));
  const beam = numberField("beam: states kept", { low: 1, high: 1, explicit: true });
  const onclick = () => {
    const kept = beam.read();
    if (kept !== null) decode(strategy.value, kept);
  };
  const decodeAgain = make("button", { class: "bt-run", onclick }, "Decode again");
  const halt = make("button", { onclick: stop, hidden: true }, "■ Stop");
  const back = make("button", { onclick: undo }, "Undo");
  const ownPuzzle = make("button", { onclick: own }, "Your own puzzle");
  const note = make("span", { class: "bt-note" });
  const promptLabel = make("label", { class: "lk-check" }, what, ...prompt.nodes);
  const strategyLabel = make("label", { class: "lk-check" }, "strategy", strategy);
  const beamLabel = make("label", { class: "lk-check" }, "beam", ...beam.nodes);
  const row = [promptLabel, strategyLabel, beamLabel, decodeAgain, halt, back, ownPuzzle, note];
  return {
    ...{ decodeRow: make("div", { class: "lk-row" }, ...row), prompt, promptLabel, what, strategy, beam },
    ...{ strategyLabel, beamLabel, decodeAgain, halt, back, ownPuzzle, note },
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
  return { walkNodes: [playing, scrub.node, zooms], playing, scrub };
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
  return { thresholdNodes: [label, previewText, reset], threshold, thresholdText, previewText, reset };
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
