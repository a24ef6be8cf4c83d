// What stands on the page of the mask grid: inputs, the grid, the map, the group beside them.

import { checkbox, make, slider } from "../shared/dom.js";
import { shorten } from "../shared/values.js";
import { visible } from "./words.js";

/**
 * @typedef {object} Actions
 * @property {(changes: Record<string, unknown>) => void} set traits
 * @property {() => void} seek
 * @property {(text: string) => void} read a text of the reader's own
 *
 * @typedef {(name: string) => any} Get a trait
 * @typedef {ReturnType<typeof page>} Page
 */

const TOGGLES = {
  natural: ["natural zeros ·", "values that are zero without the mask"],
  enforced: ["enforced ×", "values that were there and that the mask set to zero"],
  difference: ["difference: kernel, reference", "position bits of the reference and of the Triton kernel"],
};

/** @param {Get} get @param {Actions} actions */
export function page(get, actions) {
  const inputs = inputRow(get, actions);
  const parts = {
    title: make("p", { class: "lk-title" }),
    grid: gridCanvas(),
    map: make("canvas", { class: "mg-map", role: "img" }),
    mapLegend: make("div", { class: "lk-legend" }),
    legend: make("div", { class: "lk-legend" }),
    side: make("div", { class: "lk-side" }),
    live: make("div", { class: "lk-live", "aria-live": "polite", "aria-atomic": "true" }),
  };
  const stage = make(
    "div",
    { class: "lk-stage mg-stage" },
    parts.grid,
    parts.legend,
    parts.map,
    parts.mapLegend,
  );
  const root = make(
    "div",
    { class: "lk mg" },
    parts.title,
    ...(get("longest") ? [textRow(get("longest"), actions)] : []),
    inputs.row,
    make("div", { class: "lk-main" }, stage, parts.side),
    hint(),
    parts.live,
  );
  return { ...parts, sliders: inputs.sliders, toggles: inputs.toggles, stage, root };
}

/** @param {Get} get @param {Actions} actions */
function inputRow(get, { set, seek }) {
  /** @type {[string[], string[]]} */
  const [steps, tokens] = [get("steps"), get("tokens")];
  const tokenText = (/** @type {number} */ i) => `${i} ${shorten(visible(tokens[i]), 8)}`;
  const input = (
    /** @type {string} */ name,
    /** @type {number} */ count,
    /** @type {((i: number) => string) | undefined} */ say,
  ) => slider(name, { max: count - 1, value: get(name), say, change: (value) => set({ [name]: value }) });
  const sliders = {
    step: input("step", steps.length, (i) => steps[i]),
    layer: input("layer", get("layers"), undefined),
    token: input("token", tokens.length, tokenText),
  };
  const toggles = Object.fromEntries(
    Object.entries(TOGGLES).map(([name, [label, title]]) => [
      name,
      checkbox(label, { title, value: get(name), change: (on) => set({ [name]: on }) }),
    ]),
  );
  const title = "the next group in which the mask had to drop a value (N)";
  const next = make("button", { type: "button", title, onclick: seek }, "next crowded group");
  const shown = [
    ...(steps.length > 1 ? [sliders.step] : []),
    sliders.layer,
    sliders.token,
    ...Object.values(toggles),
  ];
  return { row: make("div", { class: "lk-row" }, ...shown.map((one) => one.node), next), sliders, toggles };
}

/** A text of the reader's own. @param {number} longest in signs @param {Actions} actions */
function textRow(longest, { read }) {
  const text = make("input", {
    type: "text",
    class: "mg-text",
    maxlength: longest,
    placeholder: "a text of your own",
    "aria-label": "a text of your own",
    "data-explicit": true,
  });
  const count = make("span", { class: "lk-bounds" }, `1 to ${longest} signs`);
  const fault = make("span", { class: "lk-fault", role: "alert" });
  const send = () => {
    fault.textContent = text.value.trim() ? "" : "empty: type a text";
    if (text.value.trim()) read(text.value);
  };
  text.addEventListener("keydown", (event) => event.key === "Enter" && send());
  return make(
    "div",
    { class: "lk-row" },
    text,
    make("button", { onclick: send }, "Show its mask"),
    count,
    fault,
  );
}

const gridCanvas = () =>
  make("canvas", {
    class: "mg-grid",
    tabindex: 0,
    role: "application",
    "aria-roledescription": "2 to 4 mask",
    "aria-label":
      "2:4 mask, tokens by features. Arrow keys move, with Shift by groups of four; Page Up and Page Down " +
      "by windows; Home and End to the ends of the row; N to the next crowded group.",
  });

function hint() {
  const keys = [
    ["Point, or ", "←↑↓→", " move · "],
    ["", "Shift", " by groups · "],
    ["", "PgUp PgDn", " windows · "],
    ["", "Home End", " row · "],
    ["", "[ ]", " layer · "],
    ["", "N", " next crowded group"],
  ];
  const words = keys.flatMap(([before, key, after]) => [before, make("kbd", {}, key), after]);
  return make("p", { class: "lk-hint" }, ...words);
}
