// The parts that instruments are made of: elements, sliders, checkboxes, sharp canvases.

import { isDark } from "./values.js";

/**
 * @typedef {string | number | boolean | null | undefined | ((event: any) => unknown)} Attribute
 * @typedef {{ node: HTMLElement, set: (value: number) => void, input: HTMLInputElement }} Slider
 * @typedef {{ node: HTMLElement, set: (on: boolean) => void, input: HTMLInputElement }} Checkbox
 * @typedef {{ dark: boolean, ink: string, muted: string, line: string, paper: string, accent: string }} Palette
 */

/**
 * One element: make("button", { class: "x", onclick: f, "aria-label": "y" }, "text", child, ...)
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, Attribute>} attributes on...: a listener; true: empty; false and null: left out
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/**
 * A labelled range input that also says its value in words.
 * @param {string} label
 * @param {{ max: number, value: number, say?: (value: number) => string, change: (value: number) => void }} options
 * @returns {Slider}
 */
export function slider(label, { max, value, say = String, change }) {
  const input = make("input", {
    type: "range",
    min: 0,
    max,
    step: 1,
    "aria-label": label,
    disabled: max < 1,
  });
  const output = make("output", {});
  const set = (/** @type {number} */ now) => {
    input.value = String(now);
    output.textContent = say(now);
    input.setAttribute("aria-valuetext", say(now));
  };
  input.addEventListener("input", () => {
    set(Number(input.value));
    change(Number(input.value));
  });
  set(value);
  return { node: make("label", { class: "lk-slider" }, make("span", {}, label), input, output), set, input };
}

/**
 * @param {string | (Node | string)[]} label
 * @param {{ value: boolean, change: (on: boolean) => void, title?: string }} options
 * @returns {Checkbox}
 */
export function checkbox(label, { value, change, title }) {
  const input = make("input", { type: "checkbox" });
  input.addEventListener("change", () => change(input.checked));
  input.checked = value;
  const set = (/** @type {boolean} */ now) => {
    input.checked = now;
  };
  return { node: make("label", { class: "lk-check", title }, input, ...[label].flat()), set, input };
}

/**
 * The 2d context of a canvas sized in CSS pixels, sharp on any screen, empty.
 * @param {HTMLCanvasElement} canvas @param {number} width @param {number} height
 */
export function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const ink = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  ink.setTransform(ratio, 0, 0, ratio, 0, 0);
  ink.clearRect(0, 0, width, height);
  return ink;
}

/**
 * The colours in force: JupyterLab's where it defines them, else those of instrument.css.
 * @param {HTMLElement} root marked lk-dark where its background is dark
 * @returns {Palette}
 */
export function palette(root) {
  const style = getComputedStyle(root);
  const read = (/** @type {string} */ name) => style.getPropertyValue(`--lk-${name}`).trim();
  const dark = isDark(style.backgroundColor);
  root.classList.toggle("lk-dark", dark);
  const [ink, muted, line, paper, accent] = ["ink", "muted", "line", "paper", "accent"].map(read);
  return { dark, ink, muted, line, paper, accent };
}
