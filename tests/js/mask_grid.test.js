// mask_grid/: decoding of a plane written down by hand, the window of cells, keys and words.

import assert from "node:assert/strict";
import { test } from "node:test";
import { shareOf } from "../../labkit/widgets/static/mask_grid/colours.js";
import { actionOf } from "../../labkit/widgets/static/mask_grid/keys.js";
import * as layout from "../../labkit/widgets/static/mask_grid/layout.js";
import { differences, Plane } from "../../labkit/widgets/static/mask_grid/plane.js";
import * as words from "../../labkit/widgets/static/mask_grid/words.js";
import { key } from "./keyboard.js";

// float16: 0x3c00 is 1, 0x3800 is 0.5, 0xbc00 is -1, 0x0001 is 2^-24, 0x7c00 is infinite. Two planes of two
// tokens and eight features; the second plane is in view: its first group is crowded in the second row.
const ROOTS = [
  ...new Array(16).fill(0x3c00),
  ...[0x3c00, 0, 0, 0x3800, 0, 0xbc00, 0, 0x0001],
  ...[0x3800, 0x3c00, 0x3c00, 0, 0, 0, 0, 0x7c00],
];
// Groups store the places i0 | i1 << 2: (0, 3) is 12, (1, 3) is 13, (1, 2) is 9, (2, 3) is 14.
const NIBBLES = [0, 0, 12 | (13 << 4), 9 | (14 << 4)];
const packed = {
  step: 1,
  layer: 0,
  layers: 4,
  tokens: 2,
  features: 8,
  held: [3, 4],
  scales: [1, 10],
  values: new DataView(Uint16Array.from(ROOTS).buffer),
  metadata: new DataView(Uint8Array.from(NIBBLES).buffer),
};
const plane = Plane.read(packed);

test("values are signed squares of float16 roots times the scale", () => {
  assert.deepEqual(
    [0, 1, 3, 5].map((feature) => plane.value(0, feature)),
    [10, 0, 2.5, -10],
  );
  assert.equal(plane.relative(0, 7), 2 ** -48);
  assert.equal(plane.value(1, 7), Infinity);
});

test("a plane that is not held is null", () => {
  assert.equal(Plane.read({ ...packed, layer: 1 }), null);
  assert.equal(Plane.read({ ...packed, step: 0, layer: 3 }).value(0, 1), 1); // the other one
});

test("nibbles tell the stored pair; the even group is the low half", () => {
  assert.deepEqual(
    [plane.nibble(0, 0), plane.nibble(0, 1), plane.nibble(1, 0), plane.nibble(1, 1)],
    [12, 13, 9, 14],
  );
  assert.equal(plane.byteOf(0, 1), 12 | (13 << 4));
  const kept = (token) => [0, 1, 2, 3, 4, 5, 6, 7].filter((feature) => plane.kept(token, feature));
  assert.deepEqual(kept(0), [0, 3, 5, 7]);
  assert.deepEqual(kept(1), [1, 2, 6, 7]);
});

test("the mask drops only from crowded groups", () => {
  assert.deepEqual(
    [plane.nonzeros(0, 0), plane.nonzeros(0, 1), plane.nonzeros(1, 0), plane.nonzeros(1, 1)],
    [2, 2, 3, 1],
  );
  assert.deepEqual(plane.nextCrowded(0, 0), [1, 0]);
  assert.deepEqual(plane.nextCrowded(1, 0), [1, 0]); // all around, back to itself
  assert.equal(
    Plane.read({ ...packed, scales: [1, 10], values: new DataView(new ArrayBuffer(64)) }).nextCrowded(0, 0),
    null,
  );
});

test("energy is the share of squares that are kept", () => {
  const broken = Plane.read({ ...packed, values: new DataView(new Uint16Array(32).fill(0x7e00).buffer) });
  assert.ok(Number.isNaN(broken.energy(0)));
  assert.equal(plane.energy(0), 1);
  const finite = Plane.read({
    ...packed,
    values: new DataView(Uint16Array.from(ROOTS.map((r) => (r === 0x7c00 ? 0 : r))).buffer),
  });
  assert.equal(finite.energy(1), 2 / (2 + 0.25 ** 2));
});

test("differing groups are those of the plane in view", () => {
  const found = [
    [4, 1, 0, 9, 6],
    [3, 1, 1, 4, 9],
  ];
  assert.deepEqual([...differences({ found }, plane)], [[2, [9, 6]]]);
  assert.equal(differences({ problem: "no Triton" }, plane).size, 0);
});

test("the view follows the cursor by as little as it must", () => {
  const size = { tokens: 64, groups: 96 };
  const start = { top: 0, first: 0, rows: 1, groups: 1 };
  const view = layout.follow(start, size, 180 + 5 * 77, 20, 40);
  assert.deepEqual(view, { top: 6, first: 6, rows: 15, groups: 5 });
  assert.deepEqual(layout.follow(view, size, 180 + 5 * 77, 7, 35), view);
  assert.equal(layout.follow(view, size, 180 + 5 * 77, 63, 0).top, 49);
  assert.deepEqual(layout.follow(start, { tokens: 3, groups: 2 }, 9999, 0, 0), {
    top: 0,
    first: 0,
    rows: 3,
    groups: 2,
  });
});

test("a point of the grid is the cell that is drawn there", () => {
  const view = { top: 6, first: 6, rows: 15, groups: 5 };
  for (const [token, feature] of [
    [6, 24],
    [9, 31],
    [20, 43],
  ]) {
    const [x, y] = [layout.cellX(view, feature), layout.rowY(view, token)];
    assert.deepEqual(layout.cellAt(view, x + 1, y + 1), [token, feature]);
    assert.deepEqual(layout.cellAt(view, x + layout.CELL - 1, y + layout.ROW - 1), [token, feature]);
  }
  assert.deepEqual(layout.cellAt(view, layout.groupX(1) - 2, layout.HEAD), [6, 27]); // the gap is the last cell's
  for (const [x, y] of [
    [10, 60],
    [200, 5],
    [9999, 60],
    [200, 9999],
  ])
    assert.equal(layout.cellAt(view, x, y), null);
});

test("the frame of the map goes where the pointer is, and takes the cursor along", () => {
  const view = { top: 0, first: 0, rows: 15, groups: 5 };
  const size = { tokens: 64, groups: 96 };
  const middle = layout.centred(view, size, 0.5, 0.5);
  assert.deepEqual([middle.top, middle.first], [25, 46]);
  assert.deepEqual([layout.centred(view, size, 1, 1).top, layout.centred(view, size, 0, 0).first], [49, 0]);
  assert.deepEqual(layout.inView(middle, 3, 5), [25, 185]);
  assert.deepEqual(layout.inView(middle, 30, 190), [30, 190]);
});

test("keys move by cells, groups, windows and layers", () => {
  const act = (name, held) =>
    actionOf(key(name, held), { token: 20, feature: 40 }, { rows: 15, features: 384 });
  const to = (name, held) => [act(name, held).token, act(name, held).feature];
  assert.deepEqual(to("ArrowLeft"), [20, 39]);
  assert.deepEqual(to("ArrowRight", { shiftKey: true }), [20, 44]);
  assert.deepEqual(
    [to("ArrowUp"), to("PageDown")],
    [
      [19, 40],
      [35, 40],
    ],
  );
  assert.deepEqual(
    [to("Home"), to("End")],
    [
      [20, 0],
      [20, 383],
    ],
  );
  assert.deepEqual(
    [act("["), act("]")],
    [
      { do: "layer", by: -1 },
      { do: "layer", by: 1 },
    ],
  );
  assert.deepEqual([act("n"), act("N")], [{ do: "seek" }, { do: "seek" }]);
  assert.equal(act("x"), null);
  assert.equal(act("n", { altKey: true }), null);
});

test("values, bits and fates are written as on the page", () => {
  assert.deepEqual([0, 2.5, -0.00012, 12345, Infinity].map(words.valueText), [
    "0",
    "2.50",
    "-1.2e-4",
    "1.23e+4",
    "Infinity",
  ]);
  assert.equal(words.bits(6, 4), "0110");
  assert.equal(words.visible(" a\tb\n"), "␣a⇥b↵");
  const fates = [
    [0, false],
    [0, true],
    [3, true],
    [3, false],
  ].map((pair) => words.fateText(...pair));
  assert.deepEqual(fates, ["· zero by itself", "· zero, stored", "✓ kept", "× dropped"]);
  assert.deepEqual([shareOf(-0.125), shareOf(Infinity), shareOf(NaN)], [0.5, 1, 1]);
});

test("a group is told with its values, places and bits", () => {
  const said = words.spokenGroup("def", 2, [1, 0, 2, 3], [false, false, true, true], 14);
  assert.equal(
    said,
    "Token def, feature 2: 2.00, kept. Group 0: 1.00, 0, 2.00, 3.00. Places 2 and 3 are stored, bits 1110.",
  );
});

test("the titles tell what kernel and mask did", () => {
  const compared = { where: "Triton's interpreter", groups: 18432, different: 0 };
  assert.match(
    words.comparedTitle(compared),
    /18,432 groups \(Triton's interpreter\): all agree bit for bit$/,
  );
  assert.match(words.comparedTitle({ ...compared, different: 1 }), /: 1 differ$/);
  assert.equal(
    words.kernelText(compared, [4, 9]),
    "≠ the kernel wrote 1001, the reference 0100, or other values",
  );
  assert.equal(words.kernelText({ problem: "no Triton" }, undefined), "not compared: no Triton");
  const shares = { natural: 0.5, enforced: 0.125, energy: 0.98765 };
  assert.match(words.layerTitle("", 1, { ...shares, energy: null }, 0), /more; NaN or infinite values$/);
  const said = words.layerTitle("step 9", 1, shares, 3);
  assert.match(
    said,
    /^step 9, layer 1: zero by itself 50.0 %, by the mask 12.5 % more; 98.77 % of the energy stays \(the last 3 /,
  );
});
