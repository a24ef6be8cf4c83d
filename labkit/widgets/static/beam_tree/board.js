// The tokens of one state: a square board, or a text.

import { make } from "../shared/dom.js";
import { clamp, ramp } from "../shared/values.js";
import { boardOf } from "./tree.js";
import { boardRows, boardTitle, digits, nines, placeText, runsOnce, tokenText } from "./words.js";

/**
 * @typedef {import("./tree.js").Tree} Tree
 * @typedef {import("./words.js").Names} Names
 * @typedef {object} BoardOptions
 * @property {Names} names
 * @property {number} preview fills above this threshold stand out
 * @property {number} fullNines nines of a full bar
 * @property {boolean} named say the strategy
 * @property {((position: number) => void) | null} choose called for a masked cell that is clicked
 */

const CIVIDIS = ramp(["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"]);

/** The place on the colour scale of a call. @param {Tree} t @param {number} call */
export const lateness = (t, call) => 0.08 + (0.84 * Math.max(0, call - 1)) / Math.max(1, t.latest - 1);

/** @param {Tree} t @param {number} r @param {BoardOptions} options */
export function boardFigure(t, r, options) {
  const { names } = options;
  const { tokens, filledBy } = boardOf(t, r);
  /** @type {Map<number, number>} position -> its fill */
  const fills = new Map();
  for (let i = t.fill[r]; i < t.fill[r + 1]; i++) fills.set(t.fillPosition[i], i);
  let [wrong, masked] = [0, 0];
  const cells = Array.from(tokens, (token, p) => {
    const cell = make("span", { class: names.side ? "bt-cell" : "bt-word" });
    if (token < 0) return cell; // padding
    if (token === t.mask_id && !t.given[p]) {
      masked++;
      drawMasked(cell, t, p, fills.get(p), options);
      return cell;
    }
    cell.textContent = tokenText(names, token);
    drawFilled(cell, t, p, filledBy[p], names);
    if (t.truth && token !== t.truth[p]) {
      wrong++;
      cell.classList.add("bt-wrong");
    }
    return cell;
  });
  const title = boardTitle(t, r, { masked, wrong, named: options.named });
  const label = names.side ? `board, ${title}: ${boardRows(names, t, tokens)}` : `text, ${title}`;
  const box = make(
    "div",
    { class: names.side ? "bt-board" : "bt-text", role: "img", "aria-label": label },
    ...cells,
  );
  if (names.side) drawSquare(box, cells, names.side);
  else tellRunsOnce(cells);
  return make("figure", { class: "bt-figure" }, make("figcaption", {}, title), box);
}

/**
 * A masked cell shows its most confident token, if it is among the recorded fills.
 * @param {HTMLElement} cell @param {Tree} t @param {number} p @param {number | undefined} fill
 * @param {BoardOptions} options
 */
function drawMasked(cell, t, p, fill, { names, preview, fullNines, choose }) {
  cell.classList.add("bt-open");
  if (fill === undefined) {
    if (!names.side) cell.textContent = "▢";
    return;
  }
  const confidence = t.fillConfidence[fill];
  const confident = confidence > preview;
  const text = tokenText(names, t.fillToken[fill]);
  cell.textContent = text;
  const share = clamp(nines(confidence) / fullNines, 0.04, 1);
  cell.style.setProperty("--sure", `${Math.round(100 * share)}%`);
  cell.classList.toggle("bt-sure", confident);
  const above = confident ? ", above the threshold" : "";
  cell.title = `${placeText(names, p)}: ${text} with ${digits(confidence)}${above}`;
  if (!choose) return;
  cell.classList.add("bt-click");
  cell.addEventListener("click", () => choose(p));
}

/**
 * @param {HTMLElement} cell @param {Tree} t @param {number} p
 * @param {number} call that filled it, 0: none of this tree
 * @param {Names} names
 */
function drawFilled(cell, t, p, call, names) {
  if (t.given[p]) cell.classList.add("bt-given");
  else if (!call) cell.classList.add("bt-before");
  else {
    const place = lateness(t, call);
    cell.style.background = CIVIDIS(place);
    cell.style.color = place < 0.466 ? "#ffffff" : "#000000"; // there both have a contrast above 4.5
    cell.title = `filled by call ${call}`;
    if (names.side) cell.append(make("small", {}, String(call)));
  }
}

/** @param {HTMLElement[]} cells of a text */
function tellRunsOnce(cells) {
  const words = cells.map((cell) => cell.textContent ?? "");
  runsOnce(words).forEach((word, p) => {
    if (word !== words[p]) cells[p].textContent = word;
  });
}

/**
 * Heavy lines between the blocks of a square board.
 * @param {HTMLElement} box @param {HTMLElement[]} cells @param {number} side
 */
function drawSquare(box, cells, side) {
  box.style.setProperty("--side", String(side));
  box.classList.add(side > 4 ? "bt-large" : "bt-small");
  const block = Math.round(Math.sqrt(side));
  cells.forEach((cell, p) => {
    if (p % side && (p % side) % block === 0) cell.classList.add("bt-left");
    if (p >= side && Math.floor(p / side) % block === 0) cell.classList.add("bt-top");
  });
}
