// What each key does on a tree: from the key and the selection to an action.

import { clamp, isShortcut } from "../shared/values.js";
import { nextState } from "./tree.js";
import { deadEnd } from "./words.js";

const PAN = 60; // pixels

/**
 * @typedef {{ do: "select", row: number, candidate: number }
 *   | { do: "pan", pixels: number } | { do: "zoom", sign: number } | { do: "play" }
 *   | { do: "say", text: string } | { do: "nothing" }} Action
 */

/**
 * The action of a key, null for a key that is not ours.
 * @param {import("../shared/values.js").Key} event
 * @param {import("./tree.js").Tree} t
 * @param {number} r the selected state
 * @param {number} candidate the selected candidate of it, -1: none
 * @returns {Action | null}
 */
export function actionOf(event, t, r, candidate) {
  if (isShortcut(event)) return null;
  const step = t.step[r];
  switch (event.key.length === 1 ? event.key.toLowerCase() : event.key) {
    case "ArrowLeft":
      if (event.shiftKey) return { do: "pan", pixels: -PAN };
      return t.parent[r] >= 0 ? select(t.parent[r]) : { do: "nothing" };
    case "ArrowRight":
      return event.shiftKey ? { do: "pan", pixels: PAN } : forward(t, r);
    case "ArrowUp":
      return select(clamp(r - 1, t.first[step], t.first[step + 1] - 1));
    case "ArrowDown":
      return select(clamp(r + 1, t.first[step], t.first[step + 1] - 1));
    case "Home":
      return select(t.answer[0]);
    case "End":
      return select(t.answer[t.steps]);
    case "c":
      return nextCandidate(t, r, candidate);
    case "Escape":
      return select(r);
    case " ":
      return { do: "play" };
    case "+":
    case "=":
      return { do: "zoom", sign: 1 };
    case "-":
      return { do: "zoom", sign: -1 };
    case "0":
      return { do: "zoom", sign: 0 };
    default:
      return null;
  }
}

/** @param {number} row @param {number} candidate @returns {Action} */
const select = (row, candidate = -1) => ({ do: "select", row, candidate });

/** @param {import("./tree.js").Tree} t @param {number} r @returns {Action} */
function forward(t, r) {
  const next = nextState(t, r);
  return next === undefined ? { do: "say", text: deadEnd(t, r) } : select(next);
}

/** @param {import("./tree.js").Tree} t @param {number} r @param {number} candidate @returns {Action} */
function nextCandidate(t, r, candidate) {
  const count = t.cand[r + 1] - t.cand[r];
  return count > 0 ? select(r, (candidate + 1) % count) : { do: "nothing" };
}
