// Keeps the keys pressed in the surrounding box from the notebook's shortcuts.

import { comeIntoView, hideTwin } from "./shared/instrument.js";
import { watchKernel } from "./shared/kernel.js";

/** @param {import("./shared/instrument.js").RenderProps} props */
export function render({ model, el }) {
  const showTwin = hideTwin(model);
  const stop = (/** @type {Event} */ event) => event.stopPropagation();
  /** @type {Element | null} */
  let box = null;
  let unwatch = () => {};
  const frame = requestAnimationFrame(() => {
    el.style.display = "none";
    box = el.closest(".widget-vbox, .widget-hbox, .widget-box");
    if (!box) return;
    unwatch = watchKernel(model, /** @type {HTMLElement} */ (box));
    box.addEventListener("keydown", stop);
    comeIntoView(model, /** @type {HTMLElement} */ (box));
  });
  return () => {
    cancelAnimationFrame(frame);
    showTwin();
    unwatch();
    box?.removeEventListener("keydown", stop);
  };
}
