// What the mask grid says: tokens, numbers, bits and sentences.

/**
 * @typedef {import("./plane.js").Compared} Compared
 * @typedef {{ natural: number, enforced: number, energy: number | null }} Shares of one plane
 */

/** A token whose white space can be seen. @param {string} token */
export const visible = (token) => token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣");

/** @param {number} share @param {number} digits */
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** @param {number} number @param {number} length */
export const bits = (number, length) => number.toString(2).padStart(length, "0");

/** @param {number} value */
export function valueText(value) {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  return Math.abs(value) < 1e-3 ? value.toExponential(1) : value.toPrecision(3);
}

/** What became of a value: a sign, a space and words. @param {number} value @param {boolean} kept */
export function fateText(value, kept) {
  if (value === 0) return kept ? "· zero, stored" : "· zero by itself";
  return kept ? "✓ kept" : "× dropped";
}

/**
 * What the kernel did with one group.
 * @param {Compared} compared
 * @param {[number, number] | undefined} nibbles of reference and kernel where they differ
 */
export function kernelText(compared, nibbles) {
  if (compared.problem) return `not compared: ${compared.problem}`;
  if (!nibbles) return "= the Triton kernel wrote the same bits and values";
  const [reference, kernel] = nibbles.map((nibble) => bits(nibble, 4));
  return `≠ the kernel wrote ${kernel}, the reference ${reference}, or other values`;
}

/** What the kernel did with all groups. @param {Compared} compared */
export function comparedTitle(compared) {
  if (compared.problem) return `Kernel and reference were not compared: ${compared.problem}`;
  const { groups, where, different } = compared;
  const found = different ? `${different.toLocaleString("en")} differ` : "all agree bit for bit";
  return `Triton kernel against reference on ${groups.toLocaleString("en")} groups (${where}): ${found}`;
}

/**
 * @param {string} step its label, "" if there is one step only
 * @param {number} layer @param {Shares} shares @param {number} leftOut tokens that are not shown
 */
export function layerTitle(step, layer, { natural, enforced, energy }, leftOut) {
  const left = leftOut ? ` (the last ${leftOut} tokens are not shown)` : "";
  const stays = energy === null ? "NaN or infinite values" : `${percent(energy, 2)} of the energy stays`;
  return (
    `${step ? `${step}, ` : ""}layer ${layer}: zero by itself ${percent(natural)}, ` +
    `by the mask ${percent(enforced)} more; ${stays}${left}`
  );
}

/**
 * The value under the cursor and its group, as they are spoken.
 * @param {string} token its text @param {number} feature @param {number[]} values of the group
 * @param {boolean[]} kept of the group @param {number} nibble
 */
export function spokenGroup(token, feature, values, kept, nibble) {
  const [group, place] = [feature >> 2, feature & 3];
  const fate = fateText(values[place], kept[place]).slice(2);
  return (
    `Token ${token}, feature ${feature}: ${valueText(values[place])}, ${fate}. ` +
    `Group ${group}: ${values.map(valueText).join(", ")}. ` +
    `Places ${nibble & 3} and ${nibble >> 2} are stored, bits ${bits(nibble, 4)}.`
  );
}
