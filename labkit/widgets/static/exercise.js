// One question: the reader predicts, then reveals. Python judges, so the page does not hold the answer.

import { make, palette } from "./shared/dom.js";
import { instrument, setTraits } from "./shared/instrument.js";

/** @param {import("./shared/instrument.js").RenderProps} props */
export function render({ model, el }) {
  const told = make("p", { class: "ex-told", role: "status" });
  const reveal = make("button", { type: "submit" }, "Reveal");
  const question = make("legend", { class: "lk-title" }, `Predict. ${model.get("question")}`);
  const row = make("div", { class: "lk-row" }, ...inputs(model), reveal);
  const root = make("form", { class: "lk ex labkit-explicit" }, make("fieldset", {}, question, row), told);
  root.noValidate = true; // what is wrong with a guess is told below
  root.addEventListener("submit", (event) => {
    event.preventDefault();
    const guess = String(new FormData(root).get("guess") ?? "");
    setTraits(model, { guess, asked: model.get("asked") + 1 });
  });
  const draw = () => {
    palette(root);
    if (told.textContent !== model.get("told")) told.textContent = model.get("told");
  };
  return instrument({ model, el, root, draw, watch: ["told"] }).close;
}

/**
 * One radio button for each option, or a field for a number.
 * @param {import("./shared/instrument.js").Model} model
 */
function inputs(model) {
  /** @type {string[]} */
  const options = model.get("options");
  const guess = model.get("guess");
  if (!options.length) {
    const value = guess || null;
    const field = make("input", { type: "number", step: "any", name: "guess", class: "lk-number", value });
    return [make("label", { class: "lk-check" }, "your number", field, model.get("unit"))];
  }
  return options.map((value) => {
    const radio = make("input", { type: "radio", name: "guess", value, checked: value === guess });
    return make("label", { class: "lk-check" }, radio, value);
  });
}
