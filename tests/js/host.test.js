// The model of a page without Python: as anywidget's, and the state as export.py packs it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { fromArchive } from "../../labkit/widgets/static/scrubber/completions.js";
import { inflated, modelOf } from "../../labkit/widgets/static/shared/host.js";

test("a change is heard once, an equal value and after off not at all", () => {
  const model = modelOf({ step: 1 });
  const heard = [];
  const hear = () => heard.push(model.get("step"));
  model.on("change:step", hear);
  model.set("step", 1);
  model.set("step", 2);
  model.set("other", 3);
  model.off("change:step", hear);
  model.set("step", 4);
  assert.deepEqual(heard, [2]);
  assert.equal(model.get("step"), 4);
});

test("bytes come back as a DataView wherever they stand", async () => {
  const state = {
    points: { base64: Buffer.from([1, 2, 255]).toString("base64") },
    trees: [{ deep: { base64: "" } }],
    é: "<b>",
  };
  const text = deflateSync(JSON.stringify(state)).toString("base64");
  const found = await inflated(text);
  assert.deepEqual([...new Uint8Array(found.points.buffer)], [1, 2, 255]);
  assert.equal(found.trees[0].deep.byteLength, 0);
  assert.equal(found.é, "<b>");
});

test("what was written at a step, or where the nearest is", () => {
  const rows = (/** @type {string} */ text) => ({ rows: [{ text }], of: 9 });
  const archive = [{ 2: rows("a"), 7: rows("b"), 8: rows("c"), 30: rows("d") }, {}];
  const found = fromArchive(archive, 7, [0, 1], 1);
  assert.deepEqual(found, { step: 7, runs: [{ run: 0, ...rows("b"), near: [2, 7, 8] }], more: 1 });
  const [first, second] = fromArchive(archive, 20, [0, 1], 2).runs;
  assert.deepEqual(first, { run: 0, rows: [], of: 0, near: [7, 8, 30] });
  assert.deepEqual(second, { run: 1, rows: [], of: 0, near: [] });
});
