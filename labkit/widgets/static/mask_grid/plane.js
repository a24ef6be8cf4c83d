// The plane in view (one layer at one step), decoded from the model's bytes, and its questions.

// float16 of a root -> the signed square, all 65,536 of them, once.
const SQUARES = Float64Array.from({ length: 65536 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Infinity;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return sign * size ** 2;
});

/**
 * @typedef {object} Packed traits of the model
 * @property {number} step @property {number} layer @property {number} layers
 * @property {number} tokens @property {number} features
 * @property {number[]} held planes whose bytes are here
 * @property {number[]} scales by held plane
 * @property {DataView} values float16 roots of activation / scale, by held plane, token and feature
 * @property {DataView} metadata nibbles i0 | i1 << 2 of the groups, the even group in the low half
 */

export class Plane {
  /**
   * The plane of `step` and `layer`; null while Python is fetching it.
   * @param {Packed} packed
   */
  static read(packed) {
    const place = packed.held.indexOf(packed.step * packed.layers + packed.layer);
    return place < 0 ? null : new Plane(packed, place);
  }

  /** @param {Packed} packed @param {number} place among the held planes */
  constructor({ step, layer, layers, tokens, features, scales, values, metadata }, place) {
    this.number = step * layers + layer;
    this.tokens = tokens;
    this.features = features;
    this.groups = features / 4;
    this.scale = scales[place];
    this.values = values;
    this.metadata = metadata;
    this.firstValue = place * tokens * features;
    this.rowBytes = Math.ceil(features / 8);
    this.firstByte = place * tokens * this.rowBytes;
  }

  /** The activation divided by the plane's scale. @param {number} token @param {number} feature */
  relative(token, feature) {
    return SQUARES[this.values.getUint16(2 * (this.firstValue + token * this.features + feature), true)];
  }

  /** The activation. @param {number} token @param {number} feature */
  value(token, feature) {
    return this.relative(token, feature) * this.scale;
  }

  /** The byte of metadata in which a group is. @param {number} token @param {number} group */
  byteOf(token, group) {
    return this.metadata.getUint8(this.firstByte + token * this.rowBytes + (group >> 1));
  }

  /** The places of a group's stored pair, i0 | i1 << 2. @param {number} token @param {number} group */
  nibble(token, group) {
    return (this.byteOf(token, group) >> (group & 1 ? 4 : 0)) & 15;
  }

  /** @param {number} token @param {number} feature */
  kept(token, feature) {
    const pair = this.nibble(token, feature >> 2);
    const place = feature & 3;
    return (pair & 3) === place || pair >> 2 === place;
  }

  /** How many of a group's four are not zero. @param {number} token @param {number} group */
  nonzeros(token, group) {
    return [0, 1, 2, 3].filter((i) => this.relative(token, 4 * group + i) !== 0).length;
  }

  /** The share of a token's squares that the mask keeps. @param {number} token */
  energy(token) {
    let kept = 0;
    let all = 0;
    for (let feature = 0; feature < this.features; feature++) {
      const square = this.relative(token, feature) ** 2;
      all += square;
      if (this.kept(token, feature)) kept += square;
    }
    return all === 0 ? 1 : kept / all; // NaN where a value is none or infinite
  }

  /**
   * The next group in which the mask had to drop a value, and that value; null if there is none.
   * @param {number} token @param {number} feature where the search begins
   * @returns {[number, number] | null} token and feature
   */
  nextCrowded(token, feature) {
    const count = this.tokens * this.groups;
    const from = token * this.groups + (feature >> 2);
    for (let i = 1; i <= count; i++) {
      const at = (from + i) % count;
      const [row, group] = [Math.floor(at / this.groups), at % this.groups];
      if (this.nonzeros(row, group) < 3) continue;
      const places = [0, 1, 2, 3].map((j) => 4 * group + j);
      const lost = places.find((one) => this.value(row, one) !== 0 && !this.kept(row, one));
      return [row, /** @type {number} */ (lost)];
    }
    return null;
  }
}

/**
 * The result of the kernel against the reference; problem: why there is none.
 * @typedef {{ problem?: string, where: string, groups: number, different: number,
 *   found?: [number, number, number, number, number][] }} Compared
 * found: plane, token, group, nibbles of reference and kernel
 */

/**
 * The differing groups of a plane: token * groups + group -> nibbles of reference and kernel.
 * @param {Compared} compared @param {Plane} plane
 * @returns {Map<number, [number, number]>}
 */
export function differences({ found = [] }, plane) {
  const here = found.filter(([number]) => number === plane.number);
  return new Map(here.map(([, token, group, a, b]) => [token * plane.groups + group, [a, b]]));
}
