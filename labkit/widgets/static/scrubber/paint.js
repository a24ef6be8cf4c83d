// The curves, drawn when something changes, and the cursor, drawn in every frame.

import { sized } from "../shared/dom.js";
import { clamp } from "../shared/values.js";
import { indexAt, ticks, tickText } from "./curves.js";
import { toX, toY } from "./layout.js";
import { DASHES, drawMarker, fitting, LOOKS, SAMPLED } from "./marks.js";

/**
 * @typedef {import("./curves.js").Curve} Curve
 * @typedef {import("./layout.js").Box} Box
 * @typedef {CanvasRenderingContext2D} Ink
 * @typedef {object} Scene
 * @property {number} width @property {number} height
 * @property {Box[]} boxes by panel
 * @property {{ low: number, high: number }[]} ranges by panel
 * @property {string[]} panels their labels
 * @property {Curve[]} curves that are shown
 * @property {number[]} armOf by run
 * @property {boolean} crowded more runs than arms
 * @property {number[]} sampled steps with completions
 * @property {import("./layout.js").Stretch} stretch in view
 * @property {import("./layout.js").Stretch} whole
 * @property {import("../shared/dom.js").Palette & { hues: string[] }} theme
 * @property {string} font family
 */

/** @param {HTMLCanvasElement} canvas @param {Scene} scene */
export function drawCurves(canvas, scene) {
  const ink = sized(canvas, scene.width, scene.height);
  ink.font = `11px ${scene.font}`;
  ink.lineJoin = "round";
  scene.panels.forEach((label, panel) => {
    ink.setLineDash([]);
    ink.lineWidth = 1;
    drawValueAxis(ink, scene, panel);
    drawStepAxis(ink, scene, panel);
    drawLabel(ink, scene, panel, label);
    drawSampled(ink, scene, panel);
  });
  for (const curve of scene.curves) drawCurve(ink, scene, curve);
}

/** @param {Ink} ink @param {Scene} scene @param {number} panel */
function drawValueAxis(ink, { boxes, ranges, theme }, panel) {
  const [box, range] = [boxes[panel], ranges[panel]];
  ink.textBaseline = "middle";
  ink.textAlign = "right";
  for (const value of ticks(range.low, range.high, 3)) {
    const y = Math.round(toY(box, range, value)) + 0.5;
    ink.strokeStyle = theme.line;
    ink.beginPath();
    ink.moveTo(box.x, y);
    ink.lineTo(box.x + box.w, y);
    ink.stroke();
    ink.fillStyle = theme.muted;
    ink.fillText(tickText(value), box.x - 5, y);
  }
}

/** @param {Ink} ink @param {Scene} scene @param {number} panel */
function drawStepAxis(ink, { boxes, stretch, whole }, panel) {
  const box = boxes[panel];
  const { from, to } = stretch;
  ink.textBaseline = "top";
  ink.textAlign = "center";
  const zoomed = from > whole.from || to < whole.to; // then its ends say where one is
  const steps = zoomed ? [from, to] : ticks(from, Math.max(to, from + 1), Math.max(2, box.w / 70));
  for (const step of steps)
    if (Number.isInteger(step) && step <= to)
      ink.fillText(step.toLocaleString("en"), toX(box, stretch, step), box.y + box.h + 8);
}

/** @param {Ink} ink @param {Scene} scene @param {number} panel @param {string} label */
function drawLabel(ink, { boxes, theme, font }, panel, label) {
  const box = boxes[panel];
  ink.fillStyle = theme.ink;
  ink.textAlign = "left";
  ink.textBaseline = "alphabetic";
  ink.font = `600 12px ${font}`;
  ink.fillText(fitting(ink, label, box.w + 34), box.x - 30, box.y - 8);
  ink.font = `11px ${font}`;
}

/** @param {Ink} ink @param {Scene} scene @param {number} panel */
function drawSampled(ink, { boxes, sampled, stretch, theme }, panel) {
  const box = boxes[panel];
  ink.fillStyle = theme.muted;
  let before = -9;
  for (const step of sampled) {
    const x = toX(box, stretch, step);
    if (x - before < 5 || step < stretch.from || step > stretch.to) continue;
    drawMarker(ink, SAMPLED, x, box.y + box.h + 4, 2);
    before = x;
  }
}

/** @param {Ink} ink @param {Scene} scene @param {Curve} curve */
function drawCurve(ink, { boxes, ranges, armOf, crowded, stretch, whole, theme }, curve) {
  const [box, range, look] = [boxes[curve.panel], ranges[curve.panel], armOf[curve.run] % LOOKS];
  ink.strokeStyle = ink.fillStyle = theme.hues[look];
  ink.globalAlpha = crowded ? 0.8 : 1;
  ink.lineWidth = crowded ? 1.3 : 1.8;
  ink.setLineDash(DASHES[look]);
  ink.save();
  ink.beginPath();
  ink.rect(box.x - 3, box.y - 3, box.w + 6, box.h + 6);
  ink.clip();
  ink.beginPath();
  let open = false;
  curve.drawn.forEach((value, i) => {
    const here = Number.isFinite(value);
    const point = /** @type {[number, number]} */ ([
      toX(box, stretch, curve.steps[i]),
      toY(box, range, value),
    ]);
    if (here && open) ink.lineTo(...point);
    else if (here) ink.moveTo(...point);
    open = here;
  });
  ink.stroke();
  ink.setLineDash([]);
  const share = Math.min(1, (stretch.to - stretch.from + 1) / (whole.to - whole.from + 1));
  const every = Math.max(1, Math.ceil((curve.drawn.length * share) / 5)); // about five markers in view
  for (let i = curve.run % every; i < curve.drawn.length; i += every)
    if (Number.isFinite(curve.drawn[i]))
      drawMarker(ink, look, toX(box, stretch, curve.steps[i]), toY(box, range, curve.drawn[i]), 2.6);
  ink.restore();
  ink.globalAlpha = 1;
}

/**
 * A line in every panel and a marker on every curve.
 * @param {HTMLCanvasElement} canvas @param {Scene} scene @param {number} step
 * @param {boolean} hovering dashed: the pointer is not the cursor yet
 */
export function drawCursor(canvas, scene, step, hovering) {
  const ink = sized(canvas, scene.width, scene.height);
  ink.font = `600 11px ${scene.font}`;
  for (const box of scene.boxes) drawCursorLine(ink, scene, box, step, hovering);
  ink.setLineDash([]);
  for (const curve of scene.curves) {
    const at = indexAt(curve.steps, step);
    if (at < 0 || !Number.isFinite(curve.drawn[at]) || curve.steps[at] < scene.stretch.from) continue;
    const [box, range, look] = [
      scene.boxes[curve.panel],
      scene.ranges[curve.panel],
      scene.armOf[curve.run] % LOOKS,
    ];
    const [x, y] = [toX(box, scene.stretch, curve.steps[at]), toY(box, range, curve.drawn[at])];
    ink.fillStyle = scene.theme.paper;
    drawMarker(ink, look, x, y, 6);
    ink.fillStyle = scene.theme.hues[look];
    drawMarker(ink, look, x, y, 4.2);
  }
}

/** @param {Ink} ink @param {Scene} scene @param {Box} box @param {number} step @param {boolean} hovering */
function drawCursorLine(ink, { stretch, theme }, box, step, hovering) {
  const x = toX(box, stretch, step);
  ink.strokeStyle = theme.ink;
  ink.lineWidth = 1.5;
  ink.setLineDash(hovering ? [3, 3] : []);
  ink.beginPath();
  ink.moveTo(x, box.y - 3);
  ink.lineTo(x, box.y + box.h + 2);
  ink.stroke();
  const text = step.toLocaleString("en");
  const wide = ink.measureText(text).width + 8;
  const left = clamp(x - wide / 2, box.x - 8, box.x + box.w - wide + 8);
  ink.fillStyle = theme.ink;
  ink.fillRect(left, box.y + box.h + 6, wide, 15);
  ink.fillStyle = theme.paper;
  ink.textAlign = "left";
  ink.textBaseline = "middle";
  ink.fillText(text, left + 4, box.y + box.h + 14);
}

/** The look of an arm beside its name. @param {HTMLCanvasElement} canvas @param {number} arm @param {string[]} hues */
export function drawSwatch(canvas, arm, hues) {
  const ink = sized(canvas, 40, 14);
  const look = arm % LOOKS;
  ink.strokeStyle = ink.fillStyle = hues[look];
  ink.lineWidth = 2;
  ink.setLineDash(DASHES[look]);
  ink.beginPath();
  ink.moveTo(0, 7);
  ink.lineTo(40, 7);
  ink.stroke();
  ink.setLineDash([]);
  drawMarker(ink, look, 20, 7, 4);
}
