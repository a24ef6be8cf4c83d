// One tree and, beside it, its board: keys, wheel and pointer become calls of the instrument.

import { make } from "../shared/dom.js";

/**
 * @typedef {{ row: number, candidate: number }} Hit
 * @typedef {object} StageActions
 * @property {(event: KeyboardEvent) => void} key
 * @property {(sign: number, x: number) => void} zoom
 * @property {() => import("./layout.js").Layout} layout
 * @property {(x: number, y: number) => Hit | null} hit
 * @property {(calls: number) => void} pan
 * @property {(hit: Hit) => void} select
 * @property {(hit: (Hit & { x: number, y: number }) | null) => void} hover x, y in the box of all stages
 */

/**
 * @param {HTMLElement} box of all stages
 * @param {StageActions} actions
 */
export function addStage(box, { key, zoom, layout, hit, pan, select, hover }) {
  const canvas = make("canvas", { tabindex: 0, role: "application", "aria-roledescription": "beam tree" });
  const caption = make("p", { class: "bt-caption" });
  /** @type {{ x: number, start: number, moved: boolean } | null} */
  let drag = null;
  canvas.addEventListener("keydown", key);
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1 : -1, event.offsetX);
    },
    { passive: false },
  );
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.offsetX, start: layout().view.start, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      if (Math.abs(event.offsetX - drag.x) > 4) drag.moved = true;
      const { view } = layout();
      if (drag.moved) pan(drag.start - (event.offsetX - drag.x) / view.scale - view.start);
      return;
    }
    const found = hit(event.offsetX, event.offsetY);
    canvas.style.cursor = found ? "pointer" : "grab";
    hover(found && { ...found, x: event.offsetX, y: event.offsetY + canvas.offsetTop });
  });
  canvas.addEventListener("pointerup", (event) => {
    const found = drag?.moved ? null : hit(event.offsetX, event.offsetY);
    drag = null;
    if (found) select(found);
  });
  canvas.addEventListener("pointercancel", () => {
    drag = null;
  });
  canvas.addEventListener("pointerleave", () => hover(null));
  const board = make("div", { class: "bt-place" });
  box.append(make("div", { class: "bt-pair" }, make("div", { class: "bt-tree" }, caption, canvas), board));
  return { canvas, caption, board };
}
