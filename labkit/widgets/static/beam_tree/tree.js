// One packed decode (labkit/widgets/beam_pack.py says what each array holds) as typed arrays, and its questions.

// Modes of a state.
export const SEARCH = 0;
export const ACCELERATE = 1;
export const FINISHED = 2;

// Fates of a candidate.
export const KEPT = 0;
export const MERGED = 1;
export const PRUNED = 2;

const NO_CHILD = 65535;

/**
 * Rows are states, in the order of their calls; a column of offsets `x` has the entries of row r at
 * x[r] to x[r + 1] - 1. Candidate and fill numbers count over the whole tree.
 * @typedef {ReturnType<typeof unpack>} Tree
 */

/**
 * @param {Record<string, any>} packed byte strings as DataView, numbers and texts as they are
 */
export function unpack(packed) {
  const arrays = readArrays(packed);
  const rows = arrays.parent.length;
  const steps = arrays.first.length - 2; // forward calls: the last step is the finished one
  const { step, slots } = stepOfRows(arrays.first, rows);
  const lastStep = Uint16Array.from(step); // the last step at which something of this state was in the beam
  for (let r = rows - 1; r > 0; r--) {
    const parent = arrays.parent[r];
    lastStep[parent] = Math.max(lastStep[parent], lastStep[r]);
  }
  const onAnswer = new Uint8Array(rows);
  for (const r of arrays.answer) onAnswer[r] = 1;
  return {
    .../** @type {PackedSettings} */ (packed),
    ...arrays,
    rows,
    steps,
    step,
    slots,
    lastStep,
    onAnswer,
    range: scoreRange(arrays),
    latest: packed.offset + steps, // the last call of the trees side by side, where unpackAll knows others
  };
}

/**
 * Trees that stand side by side: one range for scores of one kind, one colour scale for calls.
 * @param {Record<string, any>[]} packed
 */
export function unpackAll(packed) {
  const trees = packed.map(unpack);
  const latest = Math.max(...trees.map(lastCallOf));
  return trees.map((t) => {
    const alike = trees.filter((other) => other.score_name === t.score_name).map(({ range }) => range);
    const [lows, highs] = [alike.map(([low]) => low), alike.map(([, high]) => high)];
    return { ...t, latest, range: /** @type {[number, number]} */ ([Math.min(...lows), Math.max(...highs)]) };
  });
}

/**
 * @typedef {object} PackedSettings
 * @property {string} strategy
 * @property {number} beam
 * @property {string} score_name "mean" or another score
 * @property {number | null} threshold null where the strategy has none
 * @property {number} min_parallel confident fills from which a state accelerates
 * @property {number} mask_id
 * @property {number} offset forward calls spent before this decode began
 * @property {[number, number] | null} forced position and token it began with
 * @property {string} finding its title
 */

/** @param {Record<string, any>} packed */
function readArrays(packed) {
  /** @template A @param {string} name @param {new (buffer: ArrayBuffer) => A} Kind @returns {A} */
  const read = (name, Kind) => {
    const view = packed[name];
    return new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  };
  return {
    tokens: read("tokens", Int32Array), // at the start
    given: read("given", Uint8Array),
    truth: packed.truth ? read("truth", Int32Array) : null,
    first: offsets(read("counts", Uint16Array)), // of a step: its rows
    parent: read("parent", Int32Array), // -1: none
    score: read("score", Float32Array),
    committed: read("committed", Uint16Array),
    mode: read("mode", Uint8Array),
    delta: offsets(read("changed", Uint16Array)), // of a row: what differs from its parent
    deltaPosition: read("delta_position", Uint16Array),
    deltaToken: read("delta_token", Int32Array),
    fill: offsets(read("fills", Uint16Array)), // of a row: its most confident fills, best first
    fillPosition: read("fill_position", Uint16Array),
    fillToken: read("fill_token", Int32Array),
    fillConfidence: read("fill_confidence", Float32Array),
    cand: offsets(read("candidates", Uint16Array)), // of a row: its candidates, best first
    candScore: read("cand_score", Float32Array),
    candFate: read("cand_fate", Uint8Array),
    candChild: read("cand_child", Uint16Array),
    commit: offsets(read("cand_commits", Uint16Array)), // of a candidate: what it commits
    commitRank: read("commit_rank", Uint16Array), // which of its row's fills
    answer: read("answer", Int32Array), // of a step: the row that leads to the answer
  };
}

/**
 * Sums of `sizes` from 0 on, one more than there are sizes.
 * @param {ArrayLike<number>} sizes
 */
export function offsets(sizes) {
  const sums = new Uint32Array(sizes.length + 1);
  for (let i = 0; i < sizes.length; i++) sums[i + 1] = sums[i] + sizes[i];
  return sums;
}

/**
 * The step of every row, and the most rows of one step.
 * @param {Uint32Array} first @param {number} rows
 */
function stepOfRows(first, rows) {
  const step = new Uint16Array(rows);
  let slots = 1;
  for (let s = 0; s < first.length - 1; s++) {
    step.fill(s, first[s], first[s + 1]);
    slots = Math.max(slots, first[s + 1] - first[s]);
  }
  return { step, slots };
}

/**
 * Lowest and highest score of the states that have committed something; 0 and 1 if none has.
 * @param {{ score: Float32Array, committed: Uint16Array }} arrays
 * @returns {[number, number]}
 */
function scoreRange({ score, committed }) {
  const scores = score.filter((_, r) => committed[r]);
  const low = scores.reduce((a, b) => Math.min(a, b), Infinity);
  const high = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  return low <= high ? [low, high] : [0, 1];
}

/** The rank of a state in its beam, from 0. @param {Tree} t @param {number} r */
export const slotOf = (t, r) => r - t.first[t.step[r]];

/** The forward call after which a state stands. @param {Tree} t @param {number} r */
export const callOf = (t, r) => t.offset + t.step[r];

/** The last forward call of a decode. @param {Tree} t */
export const lastCallOf = (t) => t.offset + t.steps;

/** The state on the way to the answer after `call`, or at the nearest end. @param {Tree} t @param {number} call */
export const answerAt = (t, call) => t.answer[Math.max(0, Math.min(t.steps, call - t.offset))];

/** The state that candidate `c` of `r` became; -1: none. @param {Tree} t @param {number} r @param {number} c */
export const childOf = (t, r, c) =>
  t.candChild[c] === NO_CHILD ? -1 : t.first[t.step[r] + 1] + t.candChild[c];

/** The merged and pruned candidates of a state, best first. @param {Tree} t @param {number} r */
export function droppedCandidates(t, r) {
  const found = [];
  for (let c = t.cand[r]; c < t.cand[r + 1]; c++) if (t.candFate[c] !== KEPT) found.push(c);
  return found;
}

/** The child on the way to the answer, else the best one; undefined: none. @param {Tree} t @param {number} r */
export function nextState(t, r) {
  const children = [];
  for (let c = t.cand[r]; c < t.cand[r + 1]; c++) if (t.candFate[c] === KEPT) children.push(childOf(t, r, c));
  return children.find((child) => t.onAnswer[child]) ?? children[0];
}

/** The fills that candidate `c` of `r` commits. @param {Tree} t @param {number} r @param {number} c */
export function committedFills(t, r, c) {
  return Array.from(t.commitRank.subarray(t.commit[c], t.commit[c + 1]), (rank) => t.fill[r] + rank);
}

/**
 * The tokens of a state and the call that filled each position (0: the prompt's, or before a fork).
 * @param {Tree} t @param {number} row
 */
export function boardOf(t, row) {
  const tokens = Int32Array.from(t.tokens);
  const filledBy = new Uint16Array(tokens.length);
  const path = [];
  for (let r = row; r >= 0; r = t.parent[r]) path.push(r);
  for (const r of path.reverse())
    for (let i = t.delta[r]; i < t.delta[r + 1]; i++) {
      tokens[t.deltaPosition[i]] = t.deltaToken[i];
      filledBy[t.deltaPosition[i]] = callOf(t, r);
    }
  return { tokens, filledBy };
}

/**
 * Would this state accelerate at `threshold`? From the confidences that the decode recorded.
 * @param {Tree} t @param {number} row @param {number} threshold
 */
export function wouldAccelerate(t, row, threshold) {
  let confident = 0;
  for (let i = t.fill[row]; i < t.fill[row + 1] && t.fillConfidence[i] > threshold; i++) confident++;
  return confident >= t.min_parallel;
}

/**
 * How many states there are before the end, how many accelerated, and how many would at `threshold`.
 * @param {Tree} t @param {number} threshold
 */
export function countAccelerated(t, threshold) {
  let [states, recorded, preview] = [0, 0, 0];
  for (let r = 0; r < t.rows; r++) {
    if (t.mode[r] === FINISHED) continue;
    states++;
    if (t.mode[r] === ACCELERATE) recorded++;
    if (wouldAccelerate(t, r, threshold)) preview++;
  }
  return { states, recorded, preview };
}

/** The threshold of a decode, or what stands in for it. @param {Tree} t */
export const recordedThreshold = (t) => t.threshold ?? 0.9;

/**
 * Does `preview` differ from what was recorded?
 * @param {Tree} t @param {Tree} first the first tree, whose threshold is previewed
 * @param {number} preview
 */
export const isPreviewing = (t, first, preview) =>
  preview !== t.threshold && (t.threshold !== null || preview !== recordedThreshold(first));
