// The selected state in words: its fills and candidates as a table, and a form that forces any token.

import { make } from "../shared/dom.js";
import { numberField } from "../shared/field.js";
import { clamp } from "../shared/values.js";
import { FINISHED } from "./tree.js";
import {
  aboutCandidate,
  aboutState,
  candidateFate,
  digits,
  fillText,
  nines,
  placeText,
  stateTitle,
  tokenText,
} from "./words.js";

/**
 * @typedef {import("./tree.js").Tree} Tree
 * @typedef {import("./words.js").Names} Names
 * @typedef {object} DetailsOptions
 * @property {Names} names
 * @property {number | null} chosen the chosen candidate (over the whole tree), if any
 * @property {number} preview
 * @property {number} fullNines nines of a full bar
 * @property {(candidate: number) => void} select of this state
 * @property {((position: number, token: number) => void) | null} force null: nothing can be decoded again
 */

/** Fewest fills that are listed. */
const LISTED = 8;

/** @param {Tree} t @param {number} r @param {DetailsOptions} options @returns {HTMLElement[]} */
export function stateDetails(t, r, options) {
  const parts = [make("h2", {}, stateTitle(t, r)), make("p", {}, aboutState(t, r))];
  if (t.fill[r + 1] > t.fill[r]) parts.push(fillTable(t, r, options));
  if (options.chosen !== null)
    parts.push(make("p", { class: "bt-fate" }, aboutCandidate(options.names, t, r, options.chosen)));
  return parts;
}

/** @param {Tree} t @param {number} r @param {DetailsOptions} options */
function fillTable(t, r, options) {
  /** @type {Map<number, number>} fill -> the candidate that commits it */
  const committedBy = new Map();
  for (let c = t.cand[r]; c < t.cand[r + 1]; c++)
    for (let i = t.commit[c]; i < t.commit[c + 1]; i++) committedBy.set(t.fill[r] + t.commitRank[i], c);
  const body = make("tbody");
  const shown = Math.min(t.fill[r + 1], t.fill[r] + Math.max(LISTED, committedBy.size));
  for (let i = t.fill[r]; i < shown; i++) body.append(fillRow(t, r, i, committedBy.get(i), options));
  const heads = ["fill", "confidence (log scale)", "fate", ...(options.force ? [""] : [])];
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  return make("table", { class: "bt-table" }, make("thead", {}, head), body);
}

/**
 * @param {Tree} t @param {number} r @param {number} fill
 * @param {number | undefined} c the candidate that commits it
 * @param {DetailsOptions} options
 */
function fillRow(t, r, fill, c, { names, chosen, preview, fullNines, select, force }) {
  const text = fillText(names, t, fill);
  const confidence = t.fillConfidence[fill];
  const share = (/** @type {number} */ value) => `${100 * clamp(nines(value) / fullNines, 0, 1)}%`;
  const bar = make("span", { class: "bt-bar" });
  bar.style.setProperty("--share", share(confidence));
  bar.style.setProperty("--threshold", share(preview));
  const picked = c !== undefined && c === chosen;
  const name =
    c === undefined
      ? text
      : make(
          "button",
          { class: "bt-link", "aria-pressed": String(picked), onclick: () => select(c - t.cand[r]) },
          text,
        );
  const row = make(
    "tr",
    { class: picked ? "bt-picked" : "" },
    make("th", { scope: "row" }, name),
    make("td", {}, bar, `${digits(confidence)}${confidence > preview ? " ▸" : ""}`),
    make("td", {}, c === undefined ? "not tried" : candidateFate(t, r, c)),
  );
  if (force) {
    const onclick = () => force(t.fillPosition[fill], t.fillToken[fill]);
    const label = `force ${text} and decode from here`;
    row.append(make("td", {}, make("button", { class: "bt-force", "aria-label": label, onclick }, "Force")));
  }
  return row;
}

/**
 * The form that forces any token at any masked position; it keeps its two inputs from draw to draw.
 * @param {number} side of the board, 0: a text
 * @param {(position: number) => void} chosen called when a position is chosen in the form
 */
export function forceForm(side, chosen) {
  const position = make("select", { "data-explicit": true, "aria-label": "masked position to force" });
  const digit = numberField("digit to force there", { low: 1, high: side, explicit: true });
  const word = make("select", { "data-explicit": true, "aria-label": "token to force there" });
  const token = side ? digit.input : word;
  position.addEventListener("change", () => chosen(Number(position.value)));

  /** Put position `p` with its most confident token into the form. @param {Tree} t @param {number} r @param {number} p */
  const choose = (t, r, p) => {
    position.value = String(p);
    for (let i = t.fill[r]; i < t.fill[r + 1]; i++)
      if (t.fillPosition[i] === p) token.value = String(t.fillToken[i]);
    digit.say("");
  };

  /**
   * The form for a state; null where there is nothing to force.
   * @param {Tree} t @param {number} r @param {Names} names @param {(position: number, token: number) => void} force
   */
  const draw = (t, r, names, force) => {
    if (t.mode[r] === FINISHED || t.fill[r + 1] === t.fill[r]) return null;
    const masked = Array.from(t.fillPosition.slice(t.fill[r], t.fill[r + 1])).sort((a, b) => a - b);
    position.replaceChildren(...masked.map((p) => make("option", { value: p }, placeText(names, p))));
    if (!names.side) word.replaceChildren(...tokenOptions(names, t.mask_id));
    choose(t, r, masked[0]);
    const onclick = () => {
      const wanted = side ? digit.read() : Number(word.value);
      if (wanted !== null) force(Number(position.value), wanted);
    };
    const what = names.side ? "any digit: " : "any token: ";
    return make(
      "div",
      { class: "bt-form" },
      what,
      position,
      " = ",
      ...(side ? digit.nodes : [word]),
      make("button", { onclick }, "Force"),
    );
  };
  return { choose, draw };
}

/** @param {Names} names @param {number} mask_id */
const tokenOptions = (names, mask_id) =>
  Object.keys(names.texts)
    .filter((token) => Number(token) !== mask_id)
    .map((token) => make("option", { value: token }, `“${tokenText(names, Number(token))}”`));
