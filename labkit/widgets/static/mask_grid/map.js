// The whole layer as a map, one pixel a group, and the legends of grid and map.

import { make, sized } from "../shared/dom.js";
import { clamp, rgb } from "../shared/values.js";
import { CELL } from "./layout.js";

/**
 * @typedef {import("./plane.js").Plane} Plane
 * @typedef {import("./colours.js").Colours} Colours
 * @typedef {import("../shared/dom.js").Palette} Palette
 * @typedef {CanvasRenderingContext2D} Ink
 */

/** How many of each group's four are non-zero, in colours. @param {Plane} plane @param {Colours} colours */
export function mapImage(plane, colours) {
  const image = new OffscreenCanvas(plane.groups, plane.tokens);
  const brush = /** @type {OffscreenCanvasRenderingContext2D} */ (image.getContext("2d"));
  const pixels = brush.createImageData(plane.groups, plane.tokens);
  const opaque = colours.counts.map((hex) => [...rgb(hex), 255]);
  let at = 0;
  for (let token = 0; token < plane.tokens; token++)
    for (let group = 0; group < plane.groups; group++, at += 4)
      pixels.data.set(opaque[plane.nonzeros(token, group)], at);
  brush.putImageData(pixels, 0, 0);
  return image;
}

/**
 * The map with a frame around what the grid shows.
 * @param {HTMLCanvasElement} canvas @param {OffscreenCanvas} image @param {number} width
 * @param {import("./layout.js").View} view @param {Palette} theme
 */
export function drawMap(canvas, image, width, view, theme) {
  const height = clamp(image.height, 48, 128);
  const ink = sized(canvas, width, height);
  ink.imageSmoothingEnabled = false;
  ink.drawImage(image, 0, 0, width, height);
  const [sx, sy] = [width / image.width, height / image.height];
  const [w, h] = [Math.max(4, view.groups * sx - 2), Math.max(4, view.rows * sy - 2)];
  for (const [colour, lineWidth] of /** @type {[string, number][]} */ ([
    [theme.paper, 5],
    [theme.ink, 2],
  ])) {
    ink.strokeStyle = colour;
    ink.lineWidth = lineWidth;
    ink.strokeRect(view.first * sx + 1, view.top * sy + 1, w, h);
  }
}

/** @param {HTMLElement} legend of the grid @param {Colours} colours @param {Palette} theme */
export function drawLegend(legend, colours, theme) {
  const square = (/** @type {string} */ fill, /** @type {boolean} */ crossed) => (/** @type {Ink} */ ink) => {
    ink.fillStyle = fill;
    ink.fillRect(1, 1, CELL - 2, 13);
    if (!crossed) return;
    ink.strokeStyle = colours.mark;
    ink.lineWidth = 1.4;
    ink.beginPath();
    ink.moveTo(5, 4);
    ink.lineTo(12, 11);
    ink.moveTo(5, 11);
    ink.lineTo(12, 4);
    ink.stroke();
  };
  const dot = (/** @type {Ink} */ ink) => {
    ink.fillStyle = theme.muted;
    ink.beginPath();
    ink.arc(8, 7.5, 1.8, 0, 7);
    ink.fill();
  };
  legend.replaceChildren(
    item(square(colours.kept(0.55), false), `kept (${theme.dark ? "brighter" : "darker"}: larger)`),
    item(square(colours.dropped(0.55), true), "dropped by the mask"),
    item(dot, "zero by itself"),
  );
}

/** @param {HTMLElement} legend of the map @param {Colours} colours @param {Palette} theme */
export function drawMapLegend(legend, colours, theme) {
  const square = (/** @type {string} */ fill) => (/** @type {Ink} */ ink) => {
    ink.fillStyle = fill;
    ink.fillRect(1, 1, CELL - 2, 13);
    ink.strokeStyle = theme.line;
    ink.strokeRect(1, 1, CELL - 2, 13);
  };
  legend.replaceChildren(
    "The whole layer, tokens down, groups across; drag the frame. Non-zeros of four:",
    ...colours.counts.map((fill, count) =>
      item(square(fill), count > 2 ? `${count} crowded` : String(count)),
    ),
  );
}

/** @param {(ink: Ink) => void} paint @param {string} text */
function item(paint, text) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  paint(sized(canvas, CELL, 15));
  return make("span", {}, canvas, text);
}
