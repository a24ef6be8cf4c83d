// Numbers, texts and colours without a page: shared by the instruments.

/** @param {number} value @param {number} low @param {number} high */
export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/**
 * The text, cut to `limit` signs with an ellipsis.
 * @param {string} text @param {number} limit
 */
export const shorten = (text, limit) => (text.length > limit ? `${text.slice(0, limit - 1)}…` : text);

/**
 * The three parts (0 to 255) of #rrggbb.
 * @param {string} hex
 */
export const rgb = (hex) => [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));

/**
 * Linear mix of two #rrggbb colours as rgb(...).
 * @param {string} from @param {string} to @param {number} share 0: from, 1: to
 */
export function mix(from, to, share) {
  const b = rgb(to);
  return `rgb(${rgb(from)
    .map((part, i) => Math.round(part + (b[i] - part) * share))
    .join(",")})`;
}

/**
 * A colour scale over 0 to 1 through equally spaced #rrggbb colours.
 * @param {string[]} stops at least two
 * @returns {(share: number) => string}
 */
export const ramp = (stops) => (share) => {
  const place = clamp(share, 0, 1) * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2);
  return mix(stops[first], stops[first + 1], place - first);
};

/**
 * Is a #rrggbb or rgb(...) background dark? By its luma; white where there is no colour.
 * @param {string} colour as getComputedStyle gives it
 */
export function isDark(colour) {
  const [r, g, b] = (colour.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b < 128;
}

/**
 * @typedef {Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey" | "shiftKey">} Key
 * what a keyboard map reads of an event
 */

/**
 * Does the key belong to the browser or to JupyterLab?
 * @param {Key} event
 */
export const isShortcut = (event) => event.ctrlKey || event.metaKey || event.altKey;
