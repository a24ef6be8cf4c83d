// What the beam tree says: names, numbers and sentences.

import { callOf, childOf, committedFills, FINISHED, KEPT, MERGED, slotOf } from "./tree.js";

export const MODE_NAMES = [
  "search: tries positions one by one",
  "accelerate: commits all it is sure of",
  "finished",
];
const FATE_NAMES = ["kept", "merged: same board as a better one", "pruned: the beam was full"];
/** @type {Record<string, string>} */
export const STRATEGY_NAMES = {
  greedy: "greedy",
  parallel: "parallel",
  adaptive: "adaptive",
  fast_dllm: "Fast-dLLM",
  factor: "Fast-dLLM, factor rule",
  eb: "EB-Sampler",
  klass: "KLASS",
  prophet: "Prophet",
  rcr: "RCR",
  pbs: "PBS",
  order_token: "order-token search",
  soar: "SOAR",
};

/**
 * @typedef {import("./tree.js").Tree} Tree
 * @typedef {{ side: number, texts: Record<string, string> }} Names side: of the board, 0: a text; texts: by token
 */

/** Confidence as a count of nines, the scale of the threshold. @param {number} confidence */
export const nines = (confidence) => -Math.log10(Math.max(1 - confidence, 1e-6));

/** The confidence with so many nines, rounded. @param {number} count */
export const confidenceOf = (count) => Number((1 - 10 ** -count).toFixed(5));

/** @param {number} confidence */
export const digits = (confidence) =>
  confidence >= 0.99 ? confidence.toFixed(5).replace(/\.?0+$/, "") : confidence.toFixed(3);

/** A score beside its axis. @param {number} score */
export const axisLabel = (score) => (score > 10 ? score.toFixed(1) : digits(score).slice(0, 6));

/** @param {Names} names @param {number} position */
export const placeText = ({ side }, position) =>
  side ? `r${Math.floor(position / side) + 1}c${(position % side) + 1}` : `${position}`;

/** @param {Names} names @param {number} token */
export const tokenText = ({ texts }, token) => texts[token] ?? String(token);

/**
 * A run of one special token told once: the ends of text behind an answer would fill the page.
 * @param {string[]} words
 */
export const runsOnce = (words) =>
  words.map((word, i) => (word === words[i - 1] && /^<.+>$/.test(word) ? "·" : word));

/** @param {Names} names @param {number} position @param {number} token */
export const assignmentText = (names, position, token) =>
  names.side
    ? `${placeText(names, position)}=${tokenText(names, token)}`
    : `${position}: “${tokenText(names, token)}”`;

/** @param {Names} names @param {Tree} t @param {number} fill */
export const fillText = (names, t, fill) => assignmentText(names, t.fillPosition[fill], t.fillToken[fill]);

/** All that a candidate commits. @param {Names} names @param {Tree} t @param {number} r @param {number} c */
export const commitsText = (names, t, r, c) =>
  committedFills(t, r, c)
    .map((fill) => fillText(names, t, fill))
    .join(", ");

/** @param {Tree} t @param {number} r */
function stateFate(t, r) {
  if (t.onAnswer[r]) return "it leads to the answer";
  if (t.lastStep[r] === t.steps) return "it lives to the end, below the answer";
  return `given up: nothing of it is left after call ${t.offset + t.lastStep[r]}`;
}

/** @param {Tree} t @param {number} r @param {number} c */
export function candidateFate(t, r, c) {
  if (t.candFate[c] === KEPT) return `kept as rank ${slotOf(t, childOf(t, r, c)) + 1}`;
  return t.candFate[c] === MERGED ? "merged" : "pruned";
}

/** @param {Tree} t @param {number} r */
export const stateTitle = (t, r) =>
  `Call ${callOf(t, r)}, rank ${slotOf(t, r) + 1} of ${t.first[t.step[r] + 1] - t.first[t.step[r]]}`;

/** @param {Tree} t @param {number} r */
export function aboutState(t, r) {
  const kind = t.score_name === "mean" ? "mean confidence" : "score";
  const score = t.committed[r] ? `${kind} ${digits(t.score[r])}, ` : "";
  const filled = `${t.committed[r]} filled${t.offset ? " since the fork" : ""}`;
  return `${MODE_NAMES[t.mode[r]]}; ${score}${filled}; ${stateFate(t, r)}`;
}

/** @param {Names} names @param {Tree} t @param {number} r @param {number} c */
export function aboutCandidate(names, t, r, c) {
  const commits = commitsText(names, t, r, c) || "nothing";
  return `Candidate ${c - t.cand[r] + 1}: ${commits}; score ${digits(t.candScore[c])}; ${FATE_NAMES[t.candFate[c]]}`;
}

/**
 * The selection as it is spoken.
 * @param {Names} names @param {Tree} t @param {number} r @param {number | null} c the chosen candidate, if any
 */
export function spokenState(names, t, r, c) {
  const candidate =
    c === null
      ? ""
      : `. Candidate ${c - t.cand[r] + 1}: ${commitsText(names, t, r, c)}, ${candidateFate(t, r, c)}`;
  return `${stateTitle(t, r)}. ${aboutState(t, r)}${candidate}`;
}

/**
 * What stands under the pointer.
 * @param {Names} names @param {Tree} t @param {number} r @param {number} candidate -1: the state itself
 */
export function tipText(names, t, r, candidate) {
  if (candidate < 0) {
    const mode = MODE_NAMES[t.mode[r]].split(":")[0];
    return `call ${callOf(t, r)}, rank ${slotOf(t, r) + 1}: ${mode}, score ${digits(t.score[r])}`;
  }
  const c = t.cand[r] + candidate;
  const commits = commitsText(names, t, r, c) || "nothing";
  return `${commits}: ${candidateFate(t, r, c)}, score ${digits(t.candScore[c])}`;
}

/** Why a state has no next one. @param {Tree} t @param {number} r */
export const deadEnd = (t, r) =>
  t.mode[r] === FINISHED ? "finished: no further call" : "no candidate of this state was kept";

/**
 * What the threshold under preview would do.
 * @param {Tree} t @param {{ states: number, recorded: number, preview: number }} counts
 * @param {boolean} changed
 */
export function previewText(t, { states, recorded, preview }, changed) {
  if (changed)
    return `preview: ${preview} of these ${states} states would accelerate (recorded: ${recorded})`;
  if (t.threshold !== null) return `as recorded: ${recorded} of the ${states} states of all ranks accelerate`;
  return `${STRATEGY_NAMES[t.strategy]} has no threshold: move it to preview one`;
}

/**
 * The rows of a square board in words, masked cells as _.
 * @param {Names} names @param {Tree} t @param {Int32Array} tokens
 */
export function boardRows(names, t, tokens) {
  const text = (/** @type {number} */ token) => (token === t.mask_id ? "_" : tokenText(names, token));
  const row = (/** @type {number} */ i) =>
    Array.from(tokens.slice(i * names.side, (i + 1) * names.side), text);
  return Array.from({ length: names.side }, (_, i) => row(i).join(" ")).join("; ");
}

/**
 * @param {Tree} t @param {number} r @param {{ masked: number, wrong: number, named: boolean }} counts
 * named: say the strategy, since two trees are shown
 */
export function boardTitle(t, r, { masked, wrong, named }) {
  const which = named ? `${STRATEGY_NAMES[t.strategy]}, ` : "";
  const filled = masked ? `${masked} masked` : "full";
  const errors = t.truth && wrong ? `, ${wrong} wrong (struck out)` : "";
  return `${which}after call ${callOf(t, r)}, rank ${slotOf(t, r) + 1}: ${filled}${errors}`;
}
