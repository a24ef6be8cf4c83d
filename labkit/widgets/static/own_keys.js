// Keeps the keys pressed in the surrounding box from the notebook's shortcuts.
function render({ el }) {
  const stop = (event) => event.stopPropagation();
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
export default { render };
