// Keeps the keys pressed in the surrounding box from the notebook's shortcuts.

/** @param {{ el: HTMLElement }} props */
export function render({ el }) {
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
    box?.removeEventListener("keydown", stop);
  };
}
