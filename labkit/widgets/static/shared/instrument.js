// What every instrument does around its drawing: themes, sizes, one frame at a time, visible errors.

import { make } from "./dom.js";
import { watchKernel } from "./kernel.js";

/**
 * anywidget's model: the traits that browser and kernel share.
 * @typedef {object} Model
 * @property {(name: string) => any} get
 * @property {(name: string, value: unknown) => void} set
 * @property {(event: string, call: () => void) => void} on
 * @property {(event: string, call: () => void) => void} off
 * @property {() => void} save_changes
 * @property {(message: unknown) => void} send
 *
 * @typedef {{ model: Model, el: HTMLElement }} RenderProps what anywidget hands to render
 */

/**
 * Put `root` on the page and call `draw` in the next frame after whatever may change the picture. Shortcuts
 * of the notebook are kept out while the instrument has the focus.
 * @param {RenderProps & { root: HTMLElement, draw: () => void, watch: string[] }} parts watch: trait names
 * @returns {{ redraw: () => void, close: () => void }} close: the clean-up
 */
export function instrument({ model, el, root, draw, watch }) {
  const showTwin = hideTwin(model);
  const problem = make("pre", { class: "lk-problem", role: "alert", hidden: true });
  const main = root.querySelector(".lk-main");
  if (main) main.before(problem);
  else root.append(problem);
  const unwatchKernel = watchKernel(model, root);
  el.append(root);
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.addEventListener("keydown", (event) => event.stopPropagation());
  const say = (/** @type {string} */ text) => {
    problem.textContent = text;
    problem.hidden = !text;
  };
  let frame = 0;
  const drawFrame = () => {
    frame = 0;
    try {
      draw();
      comeIntoView(model, root);
      say(model.get("problem") || "");
    } catch (error) {
      say(String(error));
      throw error;
    }
  };
  const redraw = () => {
    frame ||= requestAnimationFrame(drawFrame);
  };
  const unwatchPage = watchPage(root, redraw);
  const events = [...watch, "problem"].map((name) => `change:${name}`);
  for (const name of events) model.on(name, redraw);
  redraw();
  const close = () => {
    cancelAnimationFrame(frame);
    unwatchPage();
    unwatchKernel();
    showTwin();
    for (const name of events) model.off(name, redraw);
  };
  return { redraw, close };
}

/**
 * A view that is made anew, in its place, when one of `traits` brings other contents; returns the clean-up.
 * @param {RenderProps} props @param {string[]} traits @param {() => { close: () => void }} make
 */
export function renewed({ model, el }, traits, make) {
  let view = make();
  let [waiting, closed] = [false, false]; // once for all traits of one message
  const renew = () => {
    waiting = false;
    if (closed) return;
    const label = document.activeElement?.getAttribute("aria-label");
    const focused = el.contains(document.activeElement);
    view.close();
    el.replaceChildren();
    view = make();
    const same = [...el.querySelectorAll("[aria-label]")].find(
      (node) => node.getAttribute("aria-label") === label,
    );
    if (focused && same) /** @type {HTMLElement} */ (same).focus({ preventScroll: true });
  };
  const soon = () => {
    if (!waiting) queueMicrotask(renew);
    waiting = true;
  };
  for (const trait of traits) model.on(`change:${trait}`, soon);
  return () => {
    closed = true;
    for (const trait of traits) model.off(`change:${trait}`, soon);
    view.close();
  };
}

/** Models that have come into view. @type {WeakSet<Model>} */
const seen = new WeakSet();

/**
 * Run All leaves JupyterLab at the last cell: if that is the selected one, scroll to the first instrument, once.
 * @param {Model} model @param {HTMLElement} root
 */
export function comeIntoView(model, root) {
  if (seen.has(model)) return;
  seen.add(model);
  const book = root.closest(".jp-Notebook");
  const first = book?.querySelector(".lk:not(.ex), .widget-vbox");
  const last = [...(book?.querySelectorAll(".jp-Cell") ?? [])].at(-1);
  if (last?.classList.contains("jp-mod-active") && first === (root.closest(".widget-vbox") ?? root))
    root.scrollIntoView({ block: "start" });
}

/**
 * Hide what stands in the notebook for a widget that has no kernel; returns what shows it again.
 * @param {Model} model
 */
export function hideTwin(model) {
  const id = model.get("twin");
  /** @type {NodeListOf<HTMLElement> | never[]} */
  const twins = id ? document.querySelectorAll(`#${id}`) : []; // a notebook can be open twice
  const hide = (/** @type {boolean} */ on) => {
    for (const twin of twins) twin.hidden = on;
  };
  hide(true);
  return () => hide(false);
}

/**
 * Call `changed` when `root` gets another size or the page another theme; returns the clean-up.
 * @param {HTMLElement} root @param {() => void} changed
 */
function watchPage(root, changed) {
  const sizes = new ResizeObserver(changed);
  sizes.observe(root);
  const themes = new MutationObserver(changed);
  const attributeFilter = ["data-jp-theme-light", "data-jp-theme-name", "class"];
  for (const node of [document.documentElement, document.body])
    themes.observe(node, { attributes: true, attributeFilter });
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", changed);
  return () => {
    sizes.disconnect();
    themes.disconnect();
    scheme.removeEventListener("change", changed);
  };
}

/**
 * Set traits here and in Python. Unsent values would be lost: an echo of the ones before overwrites them.
 * How often they travel is the model's affair: it holds back what comes while Python is busy.
 * @param {Model} model @param {Record<string, unknown>} changes
 */
export function setTraits(model, changes) {
  for (const [name, value] of Object.entries(changes)) model.set(name, value);
  model.save_changes();
}
