// Curves as numbers: unpacking, places, smoothing, ranges, round ticks and how values are written.

/**
 * One series of one run, a point per logged step.
 * @typedef {object} Curve
 * @property {number} run @property {number} panel
 * @property {Int32Array} steps ascending
 * @property {Float32Array} values as logged
 * @property {Float32Array} drawn `values`, smoothed
 */

/**
 * Every curve of the model.
 * @param {DataView} points (step int32, value float32) of all curves, little-endian
 * @param {[number, number, number, number][]} extent run, panel, first point and count of each curve
 * @returns {Curve[]}
 */
export function readCurves(points, extent) {
  return extent.map(([run, panel, first, count]) => {
    const steps = new Int32Array(count);
    const values = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      steps[i] = points.getInt32(8 * (first + i), true);
      values[i] = points.getFloat32(8 * (first + i) + 4, true);
    }
    return { run, panel, steps, values, drawn: values };
  });
}

/** @param {DataView} view little-endian int32 */
export const readIntegers = (view) =>
  Array.from({ length: view.byteLength / 4 }, (_, i) => view.getInt32(4 * i, true));

/** Every step at which some curve has a point, ascending. @param {Curve[]} curves */
export const allSteps = (curves) =>
  Int32Array.from(new Set(curves.flatMap((curve) => Array.from(curve.steps)))).sort();

/**
 * The index of the last of the ascending `steps` at or before `step`; -1: none.
 * @param {ArrayLike<number>} steps @param {number} step
 */
export function indexAt(steps, step) {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** The nearest of the ascending `steps`, of two the earlier. @param {Int32Array} steps @param {number} wanted */
export function nearestStep(steps, wanted) {
  const at = Math.max(0, indexAt(steps, wanted));
  const next = Math.min(at + 1, steps.length - 1);
  return Math.abs(steps[next] - wanted) < Math.abs(steps[at] - wanted) ? steps[next] : steps[at];
}

/** Trailing mean over `width` points. @param {Float32Array} values @param {number} width */
export function smoothed(values, width) {
  if (width < 2) return values;
  const out = new Float32Array(values.length);
  let sum = 0;
  let count = 0;
  const add = (/** @type {number} */ value, /** @type {number} */ sign) => {
    if (!Number.isFinite(value)) return; // one infinity must not swallow the rest
    sum += sign * value;
    count += sign;
  };
  for (let i = 0; i < values.length; i++) {
    add(values[i], 1);
    if (i >= width) add(values[i - width], -1);
    out[i] = Number.isFinite(values[i]) ? sum / count : values[i];
  }
  return out;
}

/**
 * The range of what `curves` draw between two steps, with a little room; 0 to 1 where there is nothing.
 * @param {Curve[]} curves @param {number} from @param {number} to
 * @returns {{ low: number, high: number }}
 */
export function rangeOf(curves, from, to) {
  let low = Infinity;
  let high = -Infinity;
  for (const { steps, drawn } of curves)
    drawn.forEach((value, i) => {
      if (!Number.isFinite(value) || steps[i] < from || steps[i] > to) return;
      if (value < low) low = value;
      if (value > high) high = value;
    });
  if (low > high) [low, high] = [0, 1];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  return { low: low - room, high: high + room };
}

/**
 * About `count` round numbers between low and high, two at least.
 * @param {number} low @param {number} high @param {number} count
 * @returns {number[]}
 */
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = power * /** @type {number} */ ([1, 2, 5, 10].find((step) => step * power >= rough));
  const found = [];
  for (let at = Math.ceil(low / unit) * unit; at <= high + unit * 1e-6; at += unit)
    found.push(Number(at.toPrecision(12)));
  return found.length > 1 || count > 12 ? found : ticks(low, high, 2 * count);
}

/** A value in a table. @param {number | null | undefined} value */
export function numberText(value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return decimals(value).replace("-", "−");
}

/** @param {number} value */
function decimals(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100) return value.toFixed(1);
  if (size >= 10) return value.toFixed(2);
  return size >= 0.001 || size === 0 ? value.toFixed(3) : value.toExponential(1);
}

/** A value beside its axis. @param {number} value */
export const tickText = (value) =>
  Number(value.toPrecision(6)).toLocaleString("en", { maximumSignificantDigits: 4 }).replace("-", "−");
