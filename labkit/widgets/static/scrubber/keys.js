// What each key does: from the key and the cursor to an action.

import { isShortcut } from "../shared/values.js";

/**
 * @typedef {{ do: "go", index: number } | { do: "step", step: number } | { do: "zoom", factor: number }
 *   | { do: "play" } | { do: "nothing" }} Action
 * go: to a place among all steps, which may lie outside; step: to a step itself
 */

/**
 * The action of a key, null for a key that is not ours.
 * @param {import("../shared/values.js").Key} event
 * @param {Int32Array} steps all of them
 * @param {number} index of the cursor
 * @param {number} step of the cursor
 * @param {number[]} sampled steps with completions, within `steps`
 * @returns {Action | null}
 */
export function actionOf(event, steps, index, step, sampled) {
  if (isShortcut(event)) return null;
  const leap = Math.max(1, Math.round(steps.length / 10));
  switch (event.key) {
    case "ArrowLeft":
    case "ArrowDown":
      return { do: "go", index: index - 1 };
    case "ArrowRight":
    case "ArrowUp":
      return { do: "go", index: index + 1 };
    case "PageDown":
      return { do: "go", index: index - leap };
    case "PageUp":
      return { do: "go", index: index + leap };
    case "Home":
      return { do: "go", index: 0 };
    case "End":
      return { do: "go", index: steps.length - 1 };
    case "+":
    case "=":
      return { do: "zoom", factor: 0.5 };
    case "-":
      return { do: "zoom", factor: 2 };
    case " ":
      return { do: "play" };
    case "s":
    case "S":
      return nextSample(step, sampled);
    default:
      return null;
  }
}

/** The next sampled step; after the last one the first. @param {number} step @param {number[]} sampled @returns {Action} */
function nextSample(step, sampled) {
  const next = sampled.find((one) => one > step) ?? sampled[0];
  return next === undefined ? { do: "nothing" } : { do: "step", step: next };
}
