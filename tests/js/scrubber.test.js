// scrubber/: curves as numbers, panels, keys, what a completion says.

import assert from "node:assert/strict";
import { test } from "node:test";
import { factsOf } from "../../labkit/widgets/static/scrubber/completions.js";
import * as curves from "../../labkit/widgets/static/scrubber/curves.js";
import { actionOf } from "../../labkit/widgets/static/scrubber/keys.js";
import * as layout from "../../labkit/widgets/static/scrubber/layout.js";
import { key } from "./keyboard.js";

test("curves are read from pairs of a step and a value", () => {
  const points = new DataView(new ArrayBuffer(24));
  [
    [3, 0.5],
    [7, -2],
    [9, Infinity],
  ].forEach(([step, value], i) => {
    points.setInt32(8 * i, step, true);
    points.setFloat32(8 * i + 4, value, true);
  });
  const found = curves.readCurves(points, [
    [0, 1, 1, 2],
    [2, 0, 0, 1],
  ]);
  assert.deepEqual(
    found.map(({ run, panel }) => [run, panel]),
    [
      [0, 1],
      [2, 0],
    ],
  );
  assert.deepEqual([...found[0].steps], [7, 9]);
  assert.deepEqual([...found[0].values], [-2, Infinity]);
  assert.deepEqual([...curves.allSteps(found)], [3, 7, 9]);
});

test("all steps are sorted as numbers", () => {
  assert.deepEqual(
    [...curves.allSteps([{ steps: Int32Array.of(10, 100) }, { steps: Int32Array.of(9, 100) }])],
    [9, 10, 100],
  );
});

test("a step has the last point at or before it, and the nearest one", () => {
  const steps = Int32Array.of(2, 4, 8);
  assert.deepEqual(
    [1, 2, 3, 4, 100].map((step) => curves.indexAt(steps, step)),
    [-1, 0, 0, 1, 2],
  );
  assert.deepEqual(
    [0, 3, 5.9, 6.1, 99].map((step) => curves.nearestStep(steps, step)),
    [2, 2, 4, 8, 8],
  );
});

test("smoothing is a trailing mean that an infinity does not swallow", () => {
  const values = Float32Array.of(1, 3, 5, Infinity, 8);
  assert.deepEqual([...curves.smoothed(values, 2)], [1, 2, 4, Infinity, 8]);
  assert.equal(curves.smoothed(values, 1), values);
});

test("a range has room, counts only what is in view, and is never empty", () => {
  const curve = { steps: Int32Array.of(1, 2, 3), drawn: Float32Array.of(0, 10, 1000) };
  assert.deepEqual(curves.rangeOf([curve], 1, 2), { low: -0.8, high: 10.8 });
  const flat = curves.rangeOf([{ steps: Int32Array.of(1), drawn: Float32Array.of(5) }], 1, 1);
  assert.deepEqual(flat, { low: 4.5, high: 5.5 });
  assert.deepEqual(curves.rangeOf([], 1, 2), { low: -0.08, high: 1.08 });
});

test("ticks are round, inside, and two at least", () => {
  assert.deepEqual(curves.ticks(0, 10, 5), [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(curves.ticks(-0.31, 0.12, 3), [-0.2, 0]);
  assert.ok(curves.ticks(0.95, 1.95, 1).length >= 2);
});

test("numbers are written short, with a true minus", () => {
  const wanted = {
    3: "3",
    1234567: "1,234,567",
    1234.5: "1,235",
    123.45: "123.5",
    12.345: "12.35",
    0.5: "0.500",
    0.00012: "1.2e−4",
  };
  for (const [value, text] of Object.entries(wanted)) assert.equal(curves.numberText(Number(value)), text);
  assert.deepEqual([null, NaN, Infinity, -Infinity, -2].map(curves.numberText), ["–", "–", "∞", "−∞", "−2"]);
  assert.equal(curves.tickText(-1234.5678), "−1,235");
});

test("panels fill rows of at most four", () => {
  const { boxes, height } = layout.arrange(5, 900);
  assert.deepEqual(
    boxes.map(({ y }) => y),
    [24, 24, 24, 24, 194],
  );
  assert.equal(boxes[1].x - boxes[0].x, 225);
  assert.equal(height, 348);
  assert.equal(layout.arrange(5, 100).boxes[4].x, layout.arrange(5, 100).boxes[0].x); // one column
});

test("a point in a panel is a step of the stretch in view", () => {
  const { boxes } = layout.arrange(2, 600);
  const stretch = { from: 10, to: 20 };
  for (const box of boxes)
    assert.ok(Math.abs(layout.stepUnder(boxes, stretch, layout.toX(box, stretch, 13), box.y) - 13) < 1e-9);
  assert.equal(layout.stepUnder(boxes, stretch, boxes[0].x - 5, boxes[0].y), 10);
  assert.equal(layout.stepUnder(boxes, stretch, 0, 0), null);
  const range = { low: -1, high: 1 };
  assert.equal(layout.toY(boxes[0], range, 1), boxes[0].y);
  assert.equal(layout.toY(boxes[0], range, -1), boxes[0].y + boxes[0].h);
});

test("a stretch stays inside of the run and shows eight steps at least", () => {
  const whole = { from: 1, to: 101 };
  assert.deepEqual(layout.around(whole, 50, 20), { from: 40, to: 60 });
  assert.deepEqual(layout.around(whole, 3, 20), { from: 1, to: 21 });
  assert.deepEqual(layout.around(whole, 50, 2), { from: 46, to: 54 });
  assert.deepEqual(layout.around(whole, 50, 9999), whole);
  assert.deepEqual(layout.around({ from: 1, to: 4 }, 2, 2), { from: 1, to: 4 });
});

test("keys move the cursor, zoom, play and look for completions", () => {
  const steps = Int32Array.from({ length: 40 }, (_, i) => 10 * i);
  const act = (name, step = 100, sampled = [50, 150]) => actionOf(key(name), steps, step / 10, step, sampled);
  const places = ["ArrowLeft", "ArrowUp", "PageUp", "PageDown", "Home", "End"].map((name) => act(name).index);
  assert.deepEqual(places, [9, 11, 14, 6, 0, 39]);
  assert.deepEqual(
    ["+", "=", "-"].map((name) => act(name).factor),
    [0.5, 0.5, 2],
  );
  assert.deepEqual(act("s"), { do: "step", step: 150 });
  assert.deepEqual(act("S", 150), { do: "step", step: 50 }); // after the last the first
  assert.deepEqual(act("s", 100, []), { do: "nothing" });
  assert.deepEqual(act(" "), { do: "play" });
  assert.equal(act("x"), null);
  assert.equal(actionOf(key("s", { ctrlKey: true }), steps, 0, 0, [50]), null);
});

test("only what is known of a completion is said", () => {
  assert.equal(
    factsOf({ length: 11, entropy: 0.7, advantage: 0.25 }),
    "11 tokens · 0.700 nats · advantage +0.250",
  );
  assert.equal(factsOf({ length: 0, entropy: null, advantage: -0.25 }), "0 tokens · advantage −0.250");
  assert.equal(factsOf({}), "");
});
