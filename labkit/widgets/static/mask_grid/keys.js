// What each key does: from the key and the cursor to an action.

import { isShortcut } from "../shared/values.js";

/**
 * @typedef {{ do: "move", token: number, feature: number } | { do: "layer", by: number } | { do: "seek" }} Action
 * move: to a place that may lie outside
 */

/**
 * The action of a key, null for a key that is not ours.
 * @param {import("../shared/values.js").Key} event
 * @param {{ token: number, feature: number }} cursor
 * @param {{ rows: number, features: number }} size rows in view, features of the layer
 * @returns {Action | null}
 */
export function actionOf(event, { token, feature }, { rows, features }) {
  if (isShortcut(event)) return null;
  const leap = event.shiftKey ? 4 : 1;
  switch (event.key) {
    case "ArrowLeft":
      return { do: "move", token, feature: feature - leap };
    case "ArrowRight":
      return { do: "move", token, feature: feature + leap };
    case "ArrowUp":
      return { do: "move", token: token - 1, feature };
    case "ArrowDown":
      return { do: "move", token: token + 1, feature };
    case "PageUp":
      return { do: "move", token: token - rows, feature };
    case "PageDown":
      return { do: "move", token: token + rows, feature };
    case "Home":
      return { do: "move", token, feature: 0 };
    case "End":
      return { do: "move", token, feature: features - 1 };
    case "[":
      return { do: "layer", by: -1 };
    case "]":
      return { do: "layer", by: 1 };
    case "n":
    case "N":
      return { do: "seek" };
    default:
      return null;
  }
}
