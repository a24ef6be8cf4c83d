// Colours of kept and dropped values (darker or brighter: larger) and of the map, by theme.

import { ramp } from "../shared/values.js";

/**
 * @typedef {object} Colours
 * @property {(share: number) => string} kept @property {(share: number) => string} dropped
 * @property {string} mark the cross of a dropped value
 * @property {string[]} counts by the non-zeros of a group
 * @property {string} wrong a group on which kernel and reference differ
 */

/** @type {{ light: Colours, dark: Colours }} */
export const COLOURS = {
  light: {
    kept: ramp(["#c6dff0", "#0072b2", "#00304d"]),
    dropped: ramp(["#fdebc8", "#e69f00", "#7a5200"]),
    mark: "#1b1f24",
    counts: ["#f3f4f6", "#c6dff0", "#7fb3d5", "#b36b00", "#5c2e00"],
    wrong: "#b00020",
  },
  dark: {
    kept: ramp(["#173a52", "#56b4e9", "#e3f3fd"]),
    dropped: ramp(["#4d3905", "#e69f00", "#ffe7ad"]),
    mark: "#ffffff",
    counts: ["#20252c", "#12405e", "#2a7db0", "#f0b429", "#ffedc2"],
    wrong: "#ff6b6b",
  },
};

/**
 * The place on the scale of a value relative to the largest; the root spreads the small ones.
 * @param {number} relative
 */
export const shareOf = (relative) => (Number.isFinite(relative) ? Math.cbrt(Math.abs(relative)) : 1);
