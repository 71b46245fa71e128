// One query of an attention head, in the arithmetic of float32, bfloat16 or float16: what torch does on a CPU.

/**
 * A type of number: `digits` of its significand in bits, the exponent of its `least` normal number, its
 * `largest` number.
 * @typedef {{ digits: number, least: number, largest: number }} Format
 */

/** @type {Object<string, Format>} */
export const FORMATS = {
  float32: { digits: 24, least: -126, largest: (2 - 2 ** -23) * 2 ** 127 },
  bfloat16: { digits: 8, least: -126, largest: (2 - 2 ** -7) * 2 ** 127 },
  float16: { digits: 11, least: -14, largest: 65504 },
};

/** How far apart the format's numbers lie near `value`. */
export function spacing(value, { digits, least }) {
  const exponent = value === 0 ? least : Math.max(least, Math.floor(Math.log2(Math.abs(value))));
  return 2 ** (exponent - digits + 1);
}

/** The format's number nearest to `value`; of two as near, the even one; beyond the largest, infinity. */
export function rounded(value, format) {
  if (value === 0 || !Number.isFinite(value)) return value;
  const step = spacing(value, format);
  const steps = value / step; // exact, since the step is a power of two
  const below = Math.floor(steps);
  const up = steps - below > 0.5 || (steps - below === 0.5 && below % 2 !== 0);
  const nearest = (below + (up ? 1 : 0)) * step;
  return Math.abs(nearest) > format.largest ? Math.sign(value) * Infinity : nearest;
}

/** The number at a forbidden place. @param {string} fill "-inf", "finfo.min" or the text of a number */
export function fillValue(fill, format) {
  if (fill === "-inf") return -Infinity;
  return fill === "finfo.min" ? -format.largest : rounded(Number(fill), format);
}

/** Softmax as torch computes it for each of the formats: in float32, the result rounded once more. */
export function softmax(values, format) {
  const most = Math.max(...values);
  const powers = values.map((value) => Math.fround(Math.exp(Math.fround(value - most)))); // -inf - -inf is NaN
  const total = Math.fround(powers.reduce((sum, power) => sum + power, 0));
  return powers.map((power) => rounded(power / total, format));
}

/**
 * All stages of one query.
 * @param {ArrayLike<number>} raw its scores, float32, one a key
 * @param {boolean[]} allowed which keys it may look at
 * @returns {{ scores: number[], mask: number[], sums: number[], weights: number[], unmasked: number[] }}
 *   `unmasked` are the weights without any mask
 */
export function attend(raw, allowed, fill, format) {
  const scores = Array.from(raw, (score) => rounded(score, format));
  const mask = allowed.map((may) => (may ? 0 : fillValue(fill, format)));
  // Adding in float64 and rounding once gives the format's own sum: float64 has twice its digits and more.
  const sums = scores.map((score, key) => rounded(score + mask[key], format));
  return { scores, mask, sums, weights: softmax(sums, format), unmasked: softmax(scores, format) };
}

/** What became of a query that may look nowhere: "NaN", "as if unmasked", "uniform" or "rounding". */
export function outcome({ weights, unmasked }) {
  if (weights.some(Number.isNaN)) return "NaN";
  if (weights.every((weight, key) => Math.abs(weight - unmasked[key]) < 0.005)) return "as if unmasked";
  return weights.every((weight) => weight === weights[0]) ? "uniform" : "rounding";
}
