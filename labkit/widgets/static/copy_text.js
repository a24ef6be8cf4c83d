// The preset as YAML and as commands, folded away; each can be copied.

import { make, palette } from "./shared/dom.js";
import { instrument } from "./shared/instrument.js";

/** @param {import("./shared/instrument.js").RenderProps} props */
export function render({ model, el }) {
  const blocks = [copyable("preset", "YAML"), copyable("command", "commands")];
  const folded = make("div", { class: "ct-blocks" }, ...blocks.map((block) => block.node));
  const details = make("details", {}, make("summary", {}, "Copy as preset"), folded);
  const root = make("div", { class: "lk ct" }, details);
  const draw = () => {
    palette(root);
    for (const block of blocks) block.text.textContent = model.get(block.trait);
  };
  return instrument({ model, el, root, draw, watch: ["preset", "command"] }).close;
}

/**
 * A text with a button that copies it.
 * @param {string} trait that holds the text @param {string} label
 */
function copyable(trait, label) {
  const text = make("pre", { tabindex: 0, "aria-label": label });
  const status = make("span", { class: "lk-hint", role: "status" });
  const copy = async () => {
    status.textContent = await copied(text);
    setTimeout(() => {
      status.textContent = "";
    }, 2500);
  };
  const button = make("button", { type: "button", onclick: copy }, `Copy ${label}`);
  const row = make("div", { class: "lk-row" }, button, status);
  return { trait, text, node: make("div", { class: "ct-block" }, row, text) };
}

/**
 * Copy the text of `node`; says what happened.
 * @param {HTMLElement} node
 */
async function copied(node) {
  try {
    await navigator.clipboard.writeText(node.textContent ?? "");
    return "copied";
  } catch {
    // Without a secure page there is no clipboard: select the text, so that Ctrl+C takes it.
    const range = document.createRange();
    range.selectNodeContents(node);
    const selection = /** @type {Selection} */ (getSelection());
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy") ? "copied" : "selected: press Ctrl+C";
  }
}
