// Keeps the keys pressed in the surrounding box from the notebook's shortcuts.

import { hideTwin } from "./shared/instrument.js";

/** @param {import("./shared/instrument.js").RenderProps} props */
export function render({ model, el }) {
  const showTwin = hideTwin(model);
  const stop = (/** @type {Event} */ event) => event.stopPropagation();
  /** @type {Element | null} */
  let box = null;
  const frame = requestAnimationFrame(() => {
    el.style.display = "none";
    box = el.closest(".widget-vbox, .widget-hbox, .widget-box");
    box?.addEventListener("keydown", stop);
  });
  return () => {
    cancelAnimationFrame(frame);
    showTwin();
    box?.removeEventListener("keydown", stop);
  };
}
