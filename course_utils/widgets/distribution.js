// From logits to the probabilities a token is drawn from: temperature, top-k, top-p, min-p, softmax, in the
// order of transformers' generate() and with the arithmetic of its logits processors.

/**
 * The logits of one position, in descending order. No setting changes that order, so every filter is a cut:
 * it keeps the tokens before some rank.
 *
 * A saved page holds only the first logits one by one. After them an entry stands for several tokens of
 * about the same logit: `counts` of them, with their mean in `logits` and their variance in `variances`.
 *
 * @typedef {{ logits: Float32Array, counts?: Float32Array, variances?: Float32Array }} Sorted
 * @typedef {{ temperature: number, top_k: number, top_p: number, min_p: number }} Settings top_k 0, top_p 1
 *   and min_p 0 are off
 */

/**
 * The distribution after all settings.
 * @param {Sorted} sorted
 * @param {Settings} settings
 * @returns {{
 *   probs: Float64Array,   probability of each entry, 0 where removed; all of them sum to 1
 *   cuts: { "top-k": number, "top-p": number, "min-p": number },   tokens left after each filter
 *   kept: number,          tokens left in the end
 *   approximate: boolean,  true if a cut falls among tokens that are only counted
 *   mass: number,          what the kept tokens had of the probability before the filters, 0 to 1
 *   entropy: number,       of `probs`, in bits
 * }}
 */
export function distribution(sorted, { temperature, top_k, top_p, min_p }) {
  const { logits, variances } = sorted;
  const counts = sorted.counts?.slice();
  const scale = Math.fround(temperature); // float32 like the scores it divides: a rounded quotient can make a tie
  const scores = logits.map((logit) => logit / scale);
  const weights = new Float64Array(scores.length);
  for (let i = 0; i < weights.length; i++) weights[i] = Math.exp(scores[i] - scores[0]);
  if (counts) {
    for (let i = 0; i < weights.length; i++)
      weights[i] *= counts[i] * (1 + variances[i] / (2 * scale * scale));
  }
  const all = sum(weights, weights.length);

  let entries = weights.length; // how many are left, the last perhaps in part
  while (scores[entries - 1] === -Infinity) entries--;
  let approximate = false;
  const takeShare = (entry, share) => {
    approximate = true;
    weights[entry] *= share;
    counts[entry] *= share;
  };
  const many = (entry) => counts !== undefined && counts[entry] > 1;
  const tokens = () => (counts ? Math.round(sum(counts, entries)) : entries);
  const cuts = {};

  if (top_k > 0 && top_k < entries) {
    entries = top_k;
    while (entries < scores.length && scores[entries] === scores[top_k - 1]) entries++; // ties with the k-th stay
  }
  cuts["top-k"] = tokens();

  if (top_p < 1) {
    // As transformers does it: from the least likely token up, remove while the sum is at most 1 - p.
    const total = sum(weights, entries);
    const limit = Math.fround(1 - top_p);
    let below = 0;
    let last = entries - 1;
    while (last > 0 && Math.fround((below + weights[last]) / total) <= limit) below += weights[last--];
    if (many(last)) takeShare(last, 1 - (limit * total - below) / weights[last]);
    entries = last + 1;
  }
  cuts["top-p"] = tokens();

  if (min_p > 0) {
    const least = scores[0] + Math.log(min_p);
    const shareAbove = (entry) => {
      if (!many(entry)) return weights[entry] < min_p ? 0 : 1; // weights[0] is 1
      // Tokens that are only counted lie about evenly within sqrt(3) deviations of their mean.
      const reach = Math.sqrt(3 * variances[entry]) / scale;
      if (reach === 0) return scores[entry] < least ? 0 : 1;
      return Math.min(1, Math.max(0, (scores[entry] + reach - least) / (2 * reach)));
    };
    let last = entries - 1;
    while (last > 0 && shareAbove(last) === 0) last--;
    if (last > 0 && shareAbove(last) < 1) takeShare(last, shareAbove(last));
    entries = last + 1;
  }
  cuts["min-p"] = tokens();

  const left = sum(weights, entries);
  let entropy = 0;
  for (let i = 0; i < weights.length; i++) {
    weights[i] = i < entries ? weights[i] / left : 0;
    if (weights[i] > 0) entropy -= weights[i] * Math.log2(weights[i] / (counts ? counts[i] : 1));
  }
  return {
    probs: weights,
    cuts,
    kept: cuts["min-p"],
    approximate,
    mass: left / all,
    entropy: Math.max(0, entropy),
  };
}

/** The sum of the first `count` values. */
function sum(values, count) {
  let total = 0;
  for (let i = 0; i < count; i++) total += values[i];
  return total;
}

/** The entry that a uniform number `u` in [0, 1) draws from `probs`. */
export function draw(probs, u) {
  let last = 0;
  for (let i = 0, below = 0; i < probs.length && below <= u; i++) {
    if (probs[i] > 0) last = i;
    below += probs[i];
  }
  return last;
}

/**
 * Uniform numbers in [0, 1) that repeat for the same seed (mulberry32 of Tommy Ettinger).
 * @param {number} seed an integer
 * @returns {() => number}
 */
export function uniforms(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
