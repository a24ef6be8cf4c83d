// beam_tree/: unpacking, places, keys and words of a tree that was written down by hand.

import assert from "node:assert/strict";
import { test } from "node:test";
import { callTicks } from "../../labkit/widgets/static/beam_tree/axes.js";
import { lateness } from "../../labkit/widgets/static/beam_tree/board.js";
import { actionOf } from "../../labkit/widgets/static/beam_tree/keys.js";
import { DETAIL, Layout, LEFT, MARK, RIGHT } from "../../labkit/widgets/static/beam_tree/layout.js";
import { lastDigit, moved } from "../../labkit/widgets/static/beam_tree/own.js";
import * as trees from "../../labkit/widgets/static/beam_tree/tree.js";
import * as words from "../../labkit/widgets/static/beam_tree/words.js";
import { key } from "./keyboard.js";
import { long, lowerAnswer, names, packed, tree } from "./small_tree.js";

test("counts become offsets and rows know their step", () => {
  assert.deepEqual([...trees.offsets([2, 0, 3])], [0, 2, 2, 5]);
  assert.deepEqual([tree.rows, tree.steps, tree.slots], [4, 2, 2]);
  assert.deepEqual([...tree.step], [0, 1, 1, 2]);
  assert.deepEqual(
    [0, 1, 2, 3].map((r) => trees.slotOf(tree, r)),
    [0, 0, 1, 0],
  );
});

test("arrays are read at their place in a larger buffer", () => {
  const bytes = new Uint8Array(3 + 16);
  bytes.set(new Uint8Array(packed.tokens.buffer), 3); // not a multiple of four
  const moved = trees.unpack({ ...packed, tokens: new DataView(bytes.buffer, 3, 16) });
  assert.deepEqual([...moved.tokens], [1, 0, 0, 0]);
});

test("a state lasts as long as something of it is in the beam", () => {
  assert.deepEqual([...tree.lastStep], [2, 2, 1, 2]);
  assert.deepEqual([...tree.onAnswer], [1, 1, 0, 1]);
  assert.deepEqual([...lowerAnswer.lastStep], [2, 1, 2, 2]);
});

test("the range of scores leaves out states that have committed nothing", () => {
  assert.deepEqual(tree.range, [0.25, 0.75]);
  const none = trees.unpack({ ...packed, committed: new DataView(new ArrayBuffer(8)) });
  assert.deepEqual(none.range, [0, 1]);
});

test("trees side by side share the range of scores and the colours of calls", () => {
  const later = { ...packed, offset: 7, score: new DataView(new Float32Array([0, 0.5, 0.125, 0.5]).buffer) };
  const [one, other] = trees.unpackAll([packed, later]);
  assert.deepEqual([one.range, other.range], [trees.unpackAll([later, packed])[0].range, one.range]);
  assert.deepEqual(one.range, [0.125, 0.75]);
  assert.deepEqual([one.latest, other.latest], [9, 9]);
  const summed = trees.unpackAll([packed, { ...later, score_name: "sum" }]);
  assert.deepEqual(summed[0].range, tree.range); // of another kind of score
});

test("candidates lead to their children or are dropped", () => {
  assert.deepEqual(
    [0, 1, 2].map((c) => trees.childOf(tree, 0, c)),
    [1, 2, -1],
  );
  assert.equal(trees.childOf(tree, 1, 3), 3);
  assert.deepEqual(trees.droppedCandidates(tree, 0), [2]);
  assert.deepEqual(trees.droppedCandidates(tree, 2), [4]);
  assert.deepEqual(trees.committedFills(tree, 1, 3), [3, 4]);
  assert.deepEqual(
    [0, 1, 2, 3].map((r) => trees.nextState(tree, r)),
    [1, 3, undefined, undefined],
  );
  assert.equal(trees.nextState(lowerAnswer, 0), 2); // the one on the way to the answer, not the best one
});

test("a board is what its ancestors committed, each cell with its call", () => {
  const { tokens, filledBy } = trees.boardOf(tree, 3);
  assert.deepEqual([...tokens], [1, 2, 3, 4]);
  assert.deepEqual([...filledBy], [0, 1, 2, 2]);
  const forked = trees.unpack({ ...packed, offset: 7 });
  assert.deepEqual([...trees.boardOf(forked, 2).filledBy], [0, 0, 8, 0]);
});

test("a state accelerates with min_parallel fills above the threshold, not at it", () => {
  assert.equal(trees.wouldAccelerate(tree, 1, 0.75), true);
  assert.equal(trees.wouldAccelerate(tree, 1, 0.875), false);
  assert.equal(trees.wouldAccelerate(tree, 0, 0.75), false);
  assert.deepEqual(trees.countAccelerated(tree, 0.4), { states: 3, recorded: 1, preview: 3 });
});

test("a preview is another threshold than the recorded one, or than the stand-in", () => {
  const greedy = trees.unpack({ ...packed, threshold: null });
  assert.equal(trees.isPreviewing(tree, tree, 0.75), false);
  assert.equal(trees.isPreviewing(tree, tree, 0.9), true);
  assert.equal(trees.isPreviewing(greedy, greedy, 0.9), false);
  assert.equal(trees.isPreviewing(greedy, tree, 0.75), false);
  assert.equal(trees.isPreviewing(greedy, greedy, 0.75), true);
});

test("a tree opens whole, however long it is, and Fit comes back to that", () => {
  const layout = new Layout(long, 300);
  assert.ok(layout.x(60) < 300 - RIGHT && layout.view.whole);
  const closer = new Layout(long, 300, layout.zoomed(1, 100));
  assert.ok(!closer.view.whole && closer.view.scale > layout.view.scale);
  assert.deepEqual(closer.zoomed(0, 100), layout.view);
});

test("dropped candidates: none from afar, one mark per fate where it is narrow, each its own closer up", () => {
  const fates = [0, 2, 2, 2, 2, 2, 2, 2, 1, 1]; // of the first state: one kept, seven pruned, two merged
  const u2 = (array) => new DataView(Uint16Array.from(array).buffer);
  const busy = trees.unpack({
    ...packed,
    candidates: u2([fates.length, 0, 0, 0]),
    cand_fate: new DataView(Uint8Array.from(fates).buffer),
    cand_child: u2(fates.map((fate) => (fate ? 65535 : 0))),
    cand_commits: u2(fates.map(() => 0)),
  });
  const at = (scale) => new Layout(busy, 900, { start: 0, scale, whole: false }, 2).dropped(0);
  assert.deepEqual(at(DETAIL - 1), []);
  const grouped = at(DETAIL).map(({ candidate, fate, count }) => [candidate, fate, count]);
  assert.deepEqual(grouped, [
    [1, 2, 7],
    [8, 1, 2],
  ]);
  const apart = at(200);
  assert.deepEqual(
    apart.map(({ candidate }) => candidate),
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  for (const one of apart)
    for (const other of apart.slice(one.candidate))
      assert.ok(Math.max(Math.abs(one.at[0] - other.at[0]), Math.abs(one.at[1] - other.at[1])) >= MARK);
});

test("a puzzle of one's own takes digits, and arrows stay inside it", () => {
  assert.deepEqual(
    ["7", "17", "0", "x", "", "9"].map((text) => lastDigit(text, 8)),
    ["7", "7", "", "", "", ""],
  );
  assert.deepEqual(
    ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].map((name) => moved(name, 4, 4)),
    [4, 5, 0, 8],
  );
});

test("the whole tree fits and x has an inverse", () => {
  const layout = new Layout(tree, 400);
  assert.equal(layout.lastCall, 2);
  assert.ok(layout.x(0) > LEFT && layout.x(2) < 400 - RIGHT);
  for (const call of [0, 0.5, 2]) assert.ok(Math.abs(layout.callAt(layout.x(call)) - call) < 1e-9);
});

test("zooming keeps the call under the anchor and stops at the ends", () => {
  const fitted = new Layout(long, 800);
  const closer = new Layout(long, 800, fitted.zoomed(1, 300));
  assert.ok(Math.abs(closer.callAt(300) - fitted.callAt(300)) < 1e-9);
  assert.ok(Math.abs(closer.view.scale / fitted.view.scale - 1.35) < 1e-9);
  assert.deepEqual(new Layout(long, 800, fitted.zoomed(-1, 300)).view.scale, fitted.view.scale);
  assert.deepEqual(closer.zoomed(0, 300), fitted.view);
  const panned = new Layout(long, 800, closer.panned(1000));
  assert.ok(panned.x(60) < 800 && panned.x(60) > 700); // the last call is still in sight
  assert.deepEqual(panned.panned(-1000), closer.panned(-1000));
});

test("a call outside of the view is brought into it", () => {
  let layout = new Layout(long, 800);
  for (let i = 0; i < 6; i++) layout = new Layout(long, 800, layout.zoomed(1, LEFT));
  assert.ok(layout.x(40) > 800);
  const moved = new Layout(long, 800, layout.showing(40));
  assert.ok(moved.x(40) > LEFT && moved.x(40) < 800 - RIGHT);
});

test("the pointer finds the nearest state or dropped candidate", () => {
  const layout = new Layout(tree, 600);
  assert.ok(layout.view.scale >= DETAIL);
  const near = ([x, y]) => layout.hit(x + 3, y - 3);
  for (let r = 0; r < tree.rows; r++) assert.deepEqual(near(layout.at(r)), { row: r, candidate: -1 });
  assert.deepEqual(near(layout.dropped(0)[0].at), { row: 0, candidate: 2 });
  assert.equal(layout.hit(layout.x(0) - 40, 10), null);
});

test("calls are numbered at least 34 pixels apart, inside the canvas", () => {
  assert.deepEqual(callTicks(new Layout(long, 300)), [0, 10, 20, 30, 40, 50, 60]); // 34 pixels for ten
  assert.deepEqual(callTicks(new Layout(tree, 400)), [0, 1, 2]);
  const forked = trees.unpack({ ...packed, offset: 60 });
  assert.deepEqual(callTicks(new Layout(forked, 400)), [60, 61, 62]); // its own calls alone
});

test("arrows walk, Home and End go to the ends, C turns through the candidates", () => {
  const select = (row, candidate = -1) => ({ do: "select", row, candidate });
  assert.deepEqual(actionOf(key("ArrowRight"), tree, 0, -1), select(1));
  assert.deepEqual(actionOf(key("ArrowRight"), tree, 3, -1), {
    do: "say",
    text: "finished: no further call",
  });
  assert.equal(actionOf(key("ArrowRight"), tree, 2, -1).text, "no candidate of this state was kept");
  assert.deepEqual(actionOf(key("ArrowLeft"), tree, 3, -1), select(1));
  assert.deepEqual(actionOf(key("ArrowLeft"), tree, 0, -1), { do: "nothing" });
  assert.deepEqual(actionOf(key("ArrowDown"), tree, 1, -1), select(2));
  assert.deepEqual(actionOf(key("ArrowDown"), tree, 2, -1), select(2)); // the last of its call
  assert.deepEqual(actionOf(key("ArrowUp"), tree, 1, -1), select(1));
  assert.deepEqual(actionOf(key("Home"), tree, 2, -1), select(0));
  assert.deepEqual(actionOf(key("End"), tree, 2, -1), select(3));
  assert.deepEqual(
    [-1, 0, 2].map((c) => actionOf(key("c"), tree, 0, c).candidate),
    [0, 1, 0],
  );
  assert.deepEqual(actionOf(key("C", { shiftKey: true }), tree, 3, -1), { do: "nothing" });
  assert.deepEqual(actionOf(key("Escape"), tree, 0, 2), select(0));
});

test("other keys zoom, pan and play, or belong to someone else", () => {
  assert.deepEqual(
    ["+", "=", "-", "0"].map((name) => actionOf(key(name), tree, 0, -1).sign),
    [1, 1, -1, 0],
  );
  assert.deepEqual(actionOf(key("ArrowLeft", { shiftKey: true }), tree, 1, -1), { do: "pan", pixels: -60 });
  assert.deepEqual(actionOf(key(" "), tree, 0, -1), { do: "play" });
  assert.equal(actionOf(key("x"), tree, 0, -1), null);
  assert.equal(actionOf(key("ArrowRight", { ctrlKey: true }), tree, 0, -1), null);
});

test("confidences are counted in nines and back", () => {
  assert.ok(Math.abs(words.nines(0.999) - 3) < 1e-9);
  assert.equal(words.nines(1), 6);
  assert.equal(words.confidenceOf(2), 0.99);
  assert.deepEqual([0.5, 0.99, 0.99995].map(words.digits), ["0.500", "0.99", "0.99995"]);
});

test("cells are named by row and column, positions of a text by number", () => {
  assert.equal(words.fillText(names, tree, 1), "r2c1=3");
  assert.equal(words.fillText({ side: 0, texts: { 3: "cat" } }, tree, 1), "2: “cat”");
  assert.equal(words.tokenText(names, 77), "77");
  assert.equal(words.commitsText(names, tree, 1, 3), "r2c1=3, r2c2=4");
});

test("a state and its candidate are told in words", () => {
  assert.equal(words.stateTitle(tree, 2), "Call 1, rank 2 of 2");
  const about = "search: tries positions one by one; mean confidence 0.250, 1 filled; ";
  assert.equal(words.aboutState(tree, 2), `${about}given up: nothing of it is left after call 1`);
  assert.match(
    words.aboutState(tree, 3),
    /^finished; mean confidence 0.750, 3 filled; it leads to the answer$/,
  );
  assert.deepEqual(
    [0, 1, 2].map((c) => words.candidateFate(tree, 0, c)),
    ["kept as rank 1", "kept as rank 2", "pruned"],
  );
  assert.equal(
    words.aboutCandidate(names, tree, 2, 4),
    "Candidate 1: r1c2=2; score 0.375; merged: same board as a better one",
  );
  assert.match(words.spokenState(names, tree, 0, 2), /\. Candidate 3: r2c2=4, pruned$/);
  assert.equal(words.tipText(names, tree, 0, 1), "r2c1=3: kept as rank 2, score 0.250");
});

test("a board is read row by row, masked cells as _", () => {
  assert.equal(words.boardRows(names, tree, Int32Array.of(1, 0, 0, 4)), "1 _; _ 4");
  const title = words.boardTitle(tree, 3, { masked: 0, wrong: 1, named: true });
  assert.equal(title, "SOAR, after call 2, rank 1: full, 1 wrong (struck out)");
  assert.equal(lateness(tree, 1), 0.08);
  assert.ok(Math.abs(lateness(tree, 2) - 0.92) < 1e-9);
});

test("a run of one special token is told once, a repeated word twice", () => {
  const ends = ["<eos>", "<eos>", "<eos>"];
  assert.deepEqual(words.runsOnce(["so", "so", ...ends]), ["so", "so", "<eos>", "·", "·"]);
  assert.deepEqual(words.runsOnce(["<mask>", "<eos>"]), ["<mask>", "<eos>"]);
});
