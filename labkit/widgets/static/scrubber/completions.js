// What the shown runs wrote at the cursor's step, as cards.

import { make } from "../shared/dom.js";
import { numberText } from "./curves.js";

/**
 * @typedef {object} Sample
 * @property {string | null} [prompt] @property {string | null} [text] @property {boolean | null} [correct]
 * @property {number | null} [length] tokens
 * @property {number | null} [entropy] nats
 * @property {number | null} [advantage]
 *
 * @typedef {{ run: number, rows: Sample[], of: number, near: number[] }} RunSamples
 * of: how many were kept at the step; near: the nearest steps that kept some
 *
 * @typedef {{ step: number, runs: RunSamples[], more: number }} Completions more: shown runs left out
 *
 * @typedef {object} CardOptions
 * @property {(run: number) => string} nameOf
 * @property {string} unit "step" or "question"
 * @property {(step: number) => void} goTo
 */

/**
 * What Python answers to a step and the shown runs, looked up in the page itself.
 * @param {Record<number, { rows: Sample[], of: number }>[]} archive by run, then step
 * @param {number} step @param {number[]} shown @param {number} most runs to read at once
 * @returns {Completions}
 */
export function fromArchive(archive, step, shown, most) {
  const runs = shown.slice(0, most).map((run) => {
    const far = (/** @type {number} */ at) => Math.abs(at - step);
    const kept = Object.keys(archive[run]).map(Number);
    const near = kept.sort((a, b) => far(a) - far(b) || a - b).slice(0, 3);
    return { run, ...(archive[run][step] ?? { rows: [], of: 0 }), near: near.sort((a, b) => a - b) };
  });
  return { step, runs, more: Math.max(0, shown.length - most) };
}

/** @param {Completions} completions @param {CardOptions} options */
export function cards({ step, runs, more }, options) {
  const found = runs.map((samples) => card(samples, step, options));
  if (more)
    found.push(make("p", { class: "lk-hint" }, `${more} more runs are shown above; hide some to read them.`));
  return found;
}

/** @param {RunSamples} samples @param {number} step @param {CardOptions} options @returns {HTMLElement} */
function card({ run, rows, of, near }, step, { nameOf, unit, goTo }) {
  const count = of > rows.length ? ` (${rows.length} of ${of})` : "";
  const head = make("h2", {}, `${nameOf(run)}, ${unit} ${step}${count}`);
  if (rows.length) return make("section", { class: "sc-card" }, head, make("ol", {}, ...rows.map(item)));
  const nothing = near.length
    ? `No completions were kept at ${unit} ${step}. Kept nearby: `
    : "This run kept no completions.";
  const links = near.flatMap((at) => [
    make("button", { type: "button", onclick: () => goTo(at) }, `${unit} ${at}`),
    " ",
  ]);
  return make("section", { class: "sc-card" }, head, make("p", {}, nothing), ...links);
}

/** @param {Sample} sample */
function item(sample) {
  const verdict = sample.correct == null ? "" : sample.correct ? "✓ right" : "✗ wrong";
  return make(
    "li",
    {},
    make("span", { class: `sc-verdict ${sample.correct ? "sc-right" : "sc-wrong"}` }, verdict),
    make(
      "span",
      { class: "sc-text" },
      make("b", {}, sample.prompt ?? ""),
      sample.text ?? "",
      make("span", { class: "sc-note" }, factsOf(sample)),
    ),
  );
}

/** Length, entropy and advantage in words, as far as they are known. @param {Sample} sample */
export function factsOf({ length, entropy, advantage }) {
  const facts = [];
  if (length != null) facts.push(`${length} ${length === 1 ? "token" : "tokens"}`);
  if (entropy != null) facts.push(`${numberText(entropy)} nats`);
  if (advantage != null) facts.push(`advantage ${advantage > 0 ? "+" : ""}${numberText(advantage)}`);
  return facts.join(" · ");
}
