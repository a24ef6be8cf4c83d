// shared/values.js: colours, short texts, shortcuts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { isDark, isShortcut, mix, ramp, rgb, shorten } from "../../labkit/widgets/static/shared/values.js";

test("a text is cut to the limit, the ellipsis included", () => {
  assert.equal(shorten("beam", 4), "beam");
  assert.equal(shorten("beams", 4), "bea…");
});

test("colours mix part by part", () => {
  assert.deepEqual(rgb("#0a10ff"), [10, 16, 255]);
  assert.equal(mix("#000000", "#ff8000", 0.5), "rgb(128,64,0)");
});

test("a ramp passes through its stops and stays at its ends", () => {
  const scale = ramp(["#000000", "#ff0000", "#ffffff"]);
  assert.equal(scale(0), "rgb(0,0,0)");
  assert.equal(scale(0.25), "rgb(128,0,0)");
  assert.equal(scale(0.5), "rgb(255,0,0)");
  assert.equal(scale(1), "rgb(255,255,255)");
  assert.equal(scale(-3), scale(0));
  assert.equal(scale(7), scale(1));
});

test("green is bright, blue is dark, no colour is white", () => {
  assert.equal(isDark("rgb(0, 255, 0)"), false);
  assert.equal(isDark("rgb(0, 0, 255)"), true);
  assert.equal(isDark(""), false);
});

test("keys with Ctrl, Alt or Meta are not ours, with Shift they are", () => {
  const plain = { key: "s", ctrlKey: false, altKey: false, metaKey: false, shiftKey: true };
  assert.equal(isShortcut(plain), false);
  for (const held of ["ctrlKey", "altKey", "metaKey"])
    assert.equal(isShortcut({ ...plain, [held]: true }), true);
});
