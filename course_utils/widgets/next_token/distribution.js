// From logits to the probabilities a token is drawn from: repetition penalty, temperature, top-k, top-p, min-p,
// typical, softmax, in the order of transformers' generate() and with the arithmetic of its logits processors.

/**
 * The logits of one position, in descending order. `seen` are the places in it of the tokens that the text
 * holds already, ascending: the repetition penalty changes these.
 *
 * A saved page holds only some logits one by one. The others are slices, which stand for several tokens of
 * about the same logit: `counts` of them, and `widths` says how far off that logit may be. Of a token that is
 * held by itself the count is 1 and the width 0.
 *
 * @typedef {{ logits: Float32Array, seen: Uint32Array, counts?: Float64Array, widths?: Float64Array }} Sorted
 * @typedef {{ temperature: number, top_k: number, top_p: number, min_p: number, repetition_penalty?: number,
 *   typical_p?: number }} Settings   off are top_k 0, min_p 0 and the others at 1
 *
 * What is left after a filter: the ranks `from` to before `to`, how many tokens they are, and their share of
 * the probability that there was before the first filter; approximate if a cut fell among slices.
 * @typedef {{ from: number, to: number, tokens: number, mass: number, approximate: boolean }} Step
 */

/** Room for the arrays of a distribution of `length` ranks: to take new ones at every move of a slider is slow. */
export function roomFor(length) {
  return {
    merged: new Float32Array(length),
    places: new Uint32Array(length),
    scores: new Float32Array(length),
    weights: new Float64Array(length),
  };
}

/**
 * The distribution after all settings.
 * @param {Sorted} sorted
 * @param {Settings} settings
 * @param {object} [room] see roomFor; what is returned holds until the next call with the same one
 * @returns {{
 *   probs: Float64Array,   probability of each rank, 0 where removed; all of them sum to 1
 *   places: ?Uint32Array,  the place in `sorted` of each rank; null if the penalty moves none
 *   steps: { "top-k": Step, "top-p": Step, "min-p": Step, "typical": Step },   the last is what is left
 *   entropy: number,       of `probs`, in bits
 *   surprise: ?{ first: number, mean: number },   what typical compares, in bits: that of the likeliest token that
 *     the other filters left, and the entropy of what they left; null where typical is off
 *   unsure: (rank: number) => boolean,   true where slices leave open whether typical keeps a rank
 * }}
 */
export function distribution(sorted, settings, room = roomFor(sorted.logits.length)) {
  const { temperature, top_k, top_p, min_p, repetition_penalty = 1, typical_p = 1 } = settings;
  const { logits, counts, widths, places } = penalized(sorted, repetition_penalty, room);
  const scale = Math.fround(temperature); // float32 like the scores it divides: a rounded quotient can make a tie
  const { scores, weights } = room;
  for (let i = 0; i < scores.length; i++) scores[i] = logits[i] / scale;
  for (let i = 0; i < weights.length; i++) weights[i] = Math.exp(scores[i] - scores[0]);
  if (counts) for (let i = 0; i < weights.length; i++) weights[i] *= counts[i];

  let from = 0; // the ranks that are left
  let to = weights.length;
  while (scores[to - 1] === -Infinity) to--;
  const all = sum(weights, 0, to);
  let left = { tokens: counts ? Math.round(sum(counts, 0, to)) : to, mass: 1, approximate: false };
  const doubt = () =>
    counts ? Math.max(...[from - 1, from, to - 1, to].map((rank) => widths[rank] ?? 0)) : 0;
  const steps = {};
  const done = (name, on) => {
    if (on)
      left = {
        tokens: counts ? Math.round(sum(counts, from, to)) : to - from,
        mass: sum(weights, from, to) / all,
        approximate: left.approximate || (to - from < weights.length && doubt() > 0),
      };
    steps[name] = { from, to, ...left };
  };

  if (top_k > 0 && top_k < to) {
    to = top_k;
    while (to < scores.length && scores[to] === scores[top_k - 1]) to++; // ties with the k-th stay
  }
  done("top-k", top_k > 0);

  if (top_p < 1) {
    // As transformers does it: from the least likely token up, remove while the sum is at most 1 - p.
    const total = sum(weights, 0, to);
    const limit = Math.fround(1 - top_p);
    let below = 0;
    while (to > 1 && Math.fround((below + weights[to - 1]) / total) <= limit) below += weights[--to];
  }
  done("top-p", top_p < 1);

  if (min_p > 0) {
    const least = scores[0] + Math.log(min_p);
    while (to > 1 && scores[to - 1] < least) to--;
  }
  done("min-p", min_p > 0);

  const candidates = to;
  let typical = null;
  if (typical_p < 1) ({ from, to } = typical = nearest(scores, weights, to, typical_p));
  done("typical", typical_p < 1);

  const { total, entropy } = summed(scores, weights, from, to);
  for (let i = 0; i < weights.length; i++) weights[i] = i >= from && i < to ? weights[i] / total : 0;
  const slack = left.approximate ? doubt() / scale : 0;
  return {
    probs: weights,
    places,
    steps,
    entropy: Math.max(0, entropy / Math.LN2),
    surprise: typical?.surprise ?? null,
    unsure: (rank) =>
      typical !== null && rank < candidates && Math.abs(typical.distance(rank) - typical.farthest) < slack,
  };
}

/**
 * The ranks before `to` that typical decoding keeps: nearest to the entropy first, until they hold `mass`.
 * A token's surprise, the negative logarithm of its probability, grows with its rank, so they lie side by side.
 * @returns {{ from: number, to: number, distance: (rank: number) => number, farthest: number, surprise: object }}
 *   `distance` of a rank's surprise from the entropy, in nats, and the `farthest` that is kept
 */
function nearest(scores, weights, to, mass) {
  const { total, entropy } = summed(scores, weights, 0, to);
  const mean = scores[0] + Math.log(total) - entropy; // the score of a token as surprising as the mean
  const distance = (rank) => Math.abs(scores[rank] - mean);
  const enough = Math.fround(mass);
  let high = 0;
  while (high < to && scores[high] > mean) high++;
  let low = high;
  let farthest = 0;
  for (let held = 0; high - low < to; ) {
    const above = low > 0 ? distance(low - 1) : Infinity;
    const below = high < to ? distance(high) : Infinity;
    const next = Math.min(above, below);
    if (Math.fround(held / total) >= enough && next > farthest) break; // ties with the last one stay
    farthest = next;
    held += weights[above < below ? --low : high++];
  }
  const surprise = { first: Math.log(total) / Math.LN2, mean: entropy / Math.LN2 };
  return { from: low, to: high, distance, farthest, surprise };
}

/**
 * The logits after the repetition penalty, in descending order again: of the tokens in the text a positive logit
 * is divided by it, a negative one multiplied. That leaves these tokens in order among themselves, and the
 * others too, so the two are merged.
 */
function penalized(sorted, penalty, { merged, places }) {
  const { logits, seen, counts, widths } = sorted;
  if (penalty === 1 || seen.length === 0) return { ...sorted, places: null };
  const factor = Math.fround(penalty);
  const changed = Float32Array.from(seen, (place) =>
    logits[place] < 0 ? logits[place] * factor : logits[place] / factor,
  );
  let rank = 0;
  let next = 0; // of `changed`
  let passed = 0; // of `seen`
  const put = (place, logit) => {
    merged[rank] = logit;
    places[rank++] = place;
  };
  for (let place = 0; place <= logits.length; place++) {
    if (place === seen[passed]) {
      passed++;
      continue;
    }
    while (next < seen.length && !(changed[next] <= logits[place])) put(seen[next], changed[next++]);
    if (place < logits.length) put(place, logits[place]);
  }
  const moved = (values) => values?.map((_, i) => values[places[i]]);
  return { logits: merged, places, counts: moved(counts), widths: moved(widths) };
}

/** Of the ranks `from` to before `to`: their `total` weight and the entropy they make, in nats. */
function summed(scores, weights, from, to) {
  let total = 0;
  let mean = 0; // of the score's distance from the highest
  for (let i = from; i < to; i++) {
    total += weights[i];
    mean += weights[i] * (scores[0] - scores[i]);
  }
  return { total, entropy: Math.log(total) + mean / total };
}

/** The sum of the values from `from` to before `to`. */
function sum(values, from, to) {
  let total = 0;
  for (let i = from; i < to; i++) total += values[i];
  return total;
}

const SLICES = 128;

/**
 * The logits of a saved page: `logits` one by one, and bins of the others, each with the `means`, `counts` and
 * `deviations` of its logits. A bin's logits lie about evenly within sqrt(3) deviations of their mean, so it
 * is cut into slices, which stand in order with the single ones.
 * @param {{ logits: Float32Array, seen: Uint32Array }} alone
 * @param {Object<string, Float32Array>} bins
 * @returns {{ sorted: Sorted, placeOf: (alone: number) => number }} `placeOf` gives the new place of a single one
 */
export function unfold({ logits, seen }, { means, counts, deviations }) {
  const entries = Array.from(logits, (logit, single) => ({ logit, count: 1, width: 0, single }));
  means.forEach((mean, bin) => {
    const reach = Math.sqrt(3) * deviations[bin];
    for (let slice = 0; slice < SLICES; slice++) {
      const logit = mean + reach * (1 - (2 * slice + 1) / SLICES);
      entries.push({ logit, count: counts[bin] / SLICES, width: Math.max(reach, 1e-6) });
    }
  });
  entries.sort((a, b) => (a.logit < b.logit) - (a.logit > b.logit)); // also of -Infinity
  const places = [];
  entries.forEach(({ single }, place) => {
    if (single !== undefined) places[single] = place;
  });
  const sorted = {
    logits: Float32Array.from(entries, ({ logit }) => logit),
    counts: Float64Array.from(entries, ({ count }) => count),
    widths: Float64Array.from(entries, ({ width }) => width),
    seen: seen.map((single) => places[single]),
  };
  return { sorted, placeOf: (single) => places[single] };
}

/** The index that a uniform number `u` in [0, 1) draws from `probs`. */
export function draw(probs, u) {
  let last = 0;
  for (let i = 0, below = 0; i < probs.length && below <= u; i++) {
    if (probs[i] > 0) last = i;
    below += probs[i];
  }
  return last;
}

/** How often each entry of `probs` is drawn by the uniform numbers `us`. */
export function tally(probs, us) {
  const counts = probs.map(() => 0);
  for (const u of us) counts[draw(probs, u)] += 1;
  return counts;
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
