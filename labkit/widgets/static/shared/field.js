// A number that someone types: its bounds stand beside it, and so does what is wrong with it.

import { make } from "./dom.js";

/** What is wrong with a typed whole number, "" if nothing is. @param {string} text @param {number} low @param {number} high */
export function faultOf(text, low, high) {
  const value = Number(text);
  if (text.trim() === "") return `empty: a whole number from ${low} to ${high}`;
  if (!Number.isInteger(value)) return `${text} is not a whole number`;
  return value < low || value > high ? `${text} is not one of ${low} to ${high}` : "";
}

/**
 * @param {string} name said to a screen reader
 * @param {{ low: number, high: number, explicit?: boolean, change?: (value: number) => void }} options
 * explicit: only a button of its own applies it; change: called with every number within the bounds
 */
export function numberField(name, { low, high, explicit = false, change }) {
  const input = make("input", {
    type: "number",
    class: "lk-number",
    "aria-label": name,
    ...(explicit && { "data-explicit": true }),
  });
  const span = make("span", { class: "lk-bounds" });
  const fault = make("span", { class: "lk-fault", role: "alert" });
  const say = (/** @type {string} */ text) => {
    fault.textContent = text;
    input.setAttribute("aria-invalid", String(Boolean(text)));
  };
  /** The bounds from now on. @param {number} least @param {number} most */
  const bound = (least, most) => {
    [input.min, input.max] = [String(least), String(most)];
    span.textContent = `${least} to ${most}`;
  };
  /** The number, null if it is none within the bounds; what is wrong is then said. */
  const read = () => {
    const wrong = input.validity.badInput
      ? "not a number"
      : faultOf(input.value, Number(input.min), Number(input.max));
    say(wrong);
    return wrong ? null : Number(input.value);
  };
  /** Show a value, unless someone types another. @param {number} value */
  const set = (value) => {
    if (document.activeElement === input) return;
    input.value = String(value);
    say("");
  };
  input.addEventListener("input", read);
  input.addEventListener("change", () => {
    const value = read();
    if (value !== null) change?.(value);
  });
  bound(low, high);
  return { nodes: [input, span, fault], input, bound, read, set, say };
}
