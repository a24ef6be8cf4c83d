// shared/field.js: what is wrong with a typed number.

import assert from "node:assert/strict";
import { test } from "node:test";
import { faultOf } from "../../labkit/widgets/static/shared/field.js";

test("a whole number within its bounds has no fault", () => {
  for (const text of ["1", "9", " 5 ", "5.0"]) assert.equal(faultOf(text, 1, 9), "");
});

test("anything else is told in words", () => {
  assert.equal(faultOf("", 1, 9), "empty: a whole number from 1 to 9");
  assert.equal(faultOf("0", 1, 9), "0 is not one of 1 to 9");
  assert.equal(faultOf("999", 1, 16), "999 is not one of 1 to 16");
  assert.equal(faultOf("2.5", 1, 9), "2.5 is not a whole number");
  assert.equal(faultOf("many", 1, 9), "many is not a whole number");
});
