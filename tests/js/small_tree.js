// A decode small enough to check by hand: a 2 x 2 board, two beams, three forward calls.
//
// call 0: row 0 searches the board [1, _, _, _]. Its candidates: position 1 = 2 (kept, row 1),
//         position 2 = 3 (kept, row 2), position 3 = 4 (pruned).
// call 1: row 1 accelerates with positions 2 = 3 and 3 = 4 in one candidate (kept, row 3); row 2 searches
//         with position 1 = 2 (merged).
// call 2: row 3 is finished.

import { unpack } from "../../labkit/widgets/static/beam_tree/tree.js";

const view = (array) => new DataView(array.buffer);
const u1 = (...values) => view(Uint8Array.from(values));
const u2 = (...values) => view(Uint16Array.from(values));
const i4 = (...values) => view(Int32Array.from(values));
const f4 = (...values) => view(Float32Array.from(values));

export const packed = {
  strategy: "soar",
  beam: 2,
  score_name: "mean",
  threshold: 0.75,
  min_parallel: 2,
  mask_id: 0,
  offset: 0,
  forced: null,
  finding: "A small tree",
  tokens: i4(1, 0, 0, 0),
  given: u1(1, 0, 0, 0),
  truth: i4(1, 2, 3, 1),
  counts: u2(1, 2, 1),
  parent: i4(-1, 0, 0, 1),
  score: f4(0, 0.5, 0.25, 0.75),
  committed: u2(0, 1, 1, 3),
  mode: u1(0, 1, 0, 2),
  changed: u2(0, 1, 1, 2),
  delta_position: u2(1, 2, 2, 3),
  delta_token: i4(2, 3, 3, 4),
  fills: u2(3, 2, 2, 0),
  fill_position: u2(1, 2, 3, 2, 3, 1, 3),
  fill_token: i4(2, 3, 4, 3, 4, 2, 4),
  fill_confidence: f4(0.875, 0.5, 0.25, 0.9375, 0.875, 0.75, 0.5),
  candidates: u2(3, 1, 1, 0),
  cand_score: f4(0.5, 0.25, 0.125, 0.75, 0.375),
  cand_fate: u1(0, 0, 2, 0, 1),
  cand_child: u2(0, 1, 65535, 0, 65535),
  cand_commits: u2(1, 1, 1, 2, 1),
  commit_rank: u2(0, 1, 2, 0, 1, 0),
  answer: i4(0, 1, 3),
};

export const names = { side: 2, texts: { 1: "1", 2: "2", 3: "3", 4: "4" } };

export const tree = unpack(packed);

/** The same with the answer through row 2: row 1 is merged after call 1, row 3 comes from row 2. */
export const lowerAnswer = unpack({
  ...packed,
  parent: i4(-1, 0, 0, 2),
  cand_fate: u1(0, 0, 2, 1, 0),
  cand_child: u2(0, 1, 65535, 65535, 0),
  answer: i4(0, 2, 3),
});

const calls = Array.from({ length: 61 }, (_, call) => call);
const none = (count) => u2(...Array(count).fill(0));

/** Sixty calls with one state each. */
export const long = unpack({
  ...packed,
  counts: u2(...calls.map(() => 1)),
  parent: i4(...calls.map((call) => call - 1)),
  score: f4(...calls.map(() => 0.5)),
  committed: u2(...calls),
  mode: u1(...calls.map((call) => (call < 60 ? 0 : 2))),
  changed: none(61),
  fills: none(61),
  candidates: none(61),
  answer: i4(...calls),
});
