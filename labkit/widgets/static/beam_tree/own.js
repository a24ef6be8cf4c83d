// A puzzle of the reader's own, typed into a grid.

import { make } from "../shared/dom.js";
import { clamp } from "../shared/values.js";

/** @type {Record<string, [number, number]>} rows and columns that a key moves by */
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** Where an arrow leads from cell `place`, which stays within the grid. @param {string} key @param {number} place @param {number} side */
export function moved(key, place, side) {
  const [down, right] = MOVES[key];
  const row = clamp(Math.floor(place / side) + down, 0, side - 1);
  return row * side + clamp((place % side) + right, 0, side - 1);
}

/** The digit of 1 to `side` that someone typed last, "" if it is none. @param {string} text @param {number} side */
export function lastDigit(text, side) {
  const digit = text.slice(-1);
  return Number(digit) >= 1 && Number(digit) <= side ? digit : "";
}

/**
 * @param {number} side of the board
 * @param {{ decode: (tokens: number[]) => void, leave: () => void }} actions
 */
export function ownBoard(side, { decode, leave }) {
  const cells = Array.from({ length: side * side }, (_, place) => {
    const label = `r${Math.floor(place / side) + 1}c${(place % side) + 1}`;
    const cell = make("input", { inputmode: "numeric", "aria-label": label, "data-explicit": true });
    cell.addEventListener("focus", () => cell.select());
    cell.addEventListener("input", () => {
      cell.value = lastDigit(cell.value, side);
      if (cell.value) cells[Math.min(place + 1, cells.length - 1)].focus();
    });
    cell.addEventListener("keydown", (event) => {
      if (!(event.key in MOVES)) return;
      event.preventDefault();
      cells[moved(event.key, place, side)].focus();
    });
    return cell;
  });
  const tokens = () => cells.map((cell) => Number(cell.value));
  /** @param {ArrayLike<number>} given 0: nothing */
  const fill = (given) => {
    cells.forEach((cell, place) => {
      cell.value = given[place] ? String(given[place]) : "";
    });
  };
  const root = make(
    "div",
    { class: "bt-own", hidden: true },
    make("h2", {}, `Your own puzzle: digits 1 to ${side}`),
    make("div", { class: "bt-board bt-grid", role: "group", "aria-label": "your own puzzle" }, ...cells),
    make("button", { onclick: () => decode(tokens()) }, "Decode it"),
    " ",
    make("button", { onclick: () => fill([]) }, "Empty"),
    " ",
    make("button", { onclick: leave }, "Back"),
  );
  /** @type {HTMLElement} */ (root.children[1]).style.setProperty("--side", String(side));
  return { root, fill, focus: () => cells[0].focus() };
}
