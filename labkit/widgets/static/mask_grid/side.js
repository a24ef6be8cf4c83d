// The group under the cursor, beside the grid: its four values, its bits, what the kernel wrote.

import { make } from "../shared/dom.js";
import { clamp, shorten } from "../shared/values.js";
import { differences } from "./plane.js";
import { bits, fateText, kernelText, spokenGroup, valueText, visible } from "./words.js";

/**
 * @typedef {import("./plane.js").Plane} Plane
 * @typedef {import("./paint.js").Scene} Scene
 */

/** Draws into `side`; returns the words to speak. @param {HTMLElement} side @param {Scene} scene */
export function drawSide(side, { plane, cursor: { token, feature }, tokens, compared, colours }) {
  const group = feature >> 2;
  const text = visible(tokens[token]);
  const places = [0, 1, 2, 3].map((i) => 4 * group + i);
  const values = places.map((place) => plane.value(token, place));
  const kept = places.map((place) => plane.kept(token, place));
  const nibble = plane.nibble(token, group);
  const [i0, i1] = [nibble & 3, nibble >> 2];
  const where = make("span", { class: "mg-token" }, shorten(text, 14));
  side.replaceChildren(
    make("p", { class: "mg-where" }, "token ", where, ` (${token})`),
    make("span", {}, `group ${group}: features ${4 * group} to ${4 * group + 3}`),
    make("div", { class: "mg-values" }, ...valueRows(values, kept, feature & 3, colours)),
    make("div", { class: "mg-bits" }, pairFigure("i1", i1), pairFigure("i0", i0)),
    fact("stored values ", make("code", {}, `${valueText(values[i0])}, ${valueText(values[i1])}`)),
    nibbleFact(plane, token, group),
    fact(kernelText(compared, differences(compared, plane).get(token * plane.groups + group))),
  );
  return spokenGroup(text, feature, values, kept, nibble);
}

/** @param {(Node | string)[]} parts */
const fact = (...parts) => make("p", { class: "mg-fact" }, ...parts);

/** @param {Plane} plane @param {number} token @param {number} group */
function nibbleFact(plane, token, group) {
  const nibble = make("code", {}, bits(plane.nibble(token, group), 4));
  const byte = make("code", {}, `0x${plane.byteOf(token, group).toString(16).padStart(2, "0")}`);
  return fact("nibble ", nibble, ` is the ${group & 1 ? "high" : "low"} half of byte ${group >> 1}: `, byte);
}

/**
 * A bar for each of the four, as long as the value is large among them.
 * @param {number[]} values @param {boolean[]} kept @param {number} here the place under the cursor
 * @param {import("./colours.js").Colours} colours
 */
function valueRows(values, kept, here, colours) {
  const top = Math.max(...values.map(Math.abs).filter(Number.isFinite), 0) || 1;
  return values.flatMap((value, i) => {
    const mark = i === here ? " mg-here" : "";
    const fill = make("i", {});
    fill.style.width = `${100 * (clamp(Math.abs(value) / top, 0, 1) || 0)}%`;
    fill.style.background = (kept[i] ? colours.kept : colours.dropped)(0.5);
    return [
      make("span", { class: `mg-place${mark}` }, String(i)),
      make("span", { class: "mg-bar" }, fill),
      make("span", { class: `mg-number${mark}` }, valueText(value)),
      make("span", { class: `mg-fate${mark}` }, fateText(value, kept[i])),
    ];
  });
}

/** Two bits that name a place. @param {string} label @param {number} place */
function pairFigure(label, place) {
  const digits = [...bits(place, 2)].map((bit) =>
    make("span", { class: `mg-bit${bit === "1" ? " mg-one" : ""}` }, bit),
  );
  return make("figure", {}, ...digits, make("figcaption", {}, `${label} = place ${place}`));
}
