// How the beam tree says what it shows: numbers, arithmetic, what became of a candidate.
import { element } from "../core/dom.js";
import { decimals, whole } from "../core/numbers.js";

export const FATES = {
  kept: ["→", "goes on"],
  finished: ["■", "finished"],
  pruned: ["×", "pruned"],
  open: ["…", "left open"],
};

/** @param {number} number from 1 */
function ordinal(number) {
  const teen = Math.floor(number / 10) % 10 === 1;
  return whole.format(number) + ((!teen && { 1: "st", 2: "nd", 3: "rd" }[number % 10]) || "th");
}

/** The arithmetic of a score: sum / length ^ penalty = score. */
export function arithmetic(total, length, penalty, score) {
  const power = String(penalty).replace("-", "−");
  const name = `${decimals(total)} divided by ${length} to the power of ${power} is ${decimals(score, 3)}`;
  const parts = [`${decimals(total)} / ${length}`, element("sup", {}, power), ` = ${decimals(score, 3)}`];
  return element("span", { role: "math", "aria-label": name }, ...parts);
}

/** How many candidates generate() weighs in a step. */
export function candidates({ num_beams, ends }) {
  return num_beams * Math.max(2, 1 + ends.length);
}

/** What became of a candidate, in words: a list of nodes and strings. */
export function fateOf(node, step, shown) {
  const { num_beams: beams, early_stopping: stopping } = shown;
  const weighed = candidates(shown);
  const length = step + 1;
  const rank = `${ordinal(node.rank + 1)} of ${weighed} candidates.`;
  const complete = node.ends ? "It ends here" : "It has all the new tokens it may have";
  if (node.rank >= weighed)
    return [
      `Greedy decoding goes here. Of all continuations of the beams this is the ${ordinal(node.rank + 1)}, and only ${weighed} are candidates.`,
    ];
  if (node.fate === "kept")
    return [`${rank} It is among the best ${beams} that have not ended, so it goes on.`];
  if (node.fate === "open") {
    const why =
      stopping === true
        ? `${beams} sequences are finished`
        : "no beam was expected to pass the finished sequences";
    return [`${rank} It would go on, but the search stopped here: ${why}.`];
  }
  if (node.fate === "pruned") {
    if (node.ends || length === shown.max_new_tokens)
      return [`${rank} ${complete}, but only the first ${beams} candidates of a step may finish: pruned.`];
    return [`${rank} Only the best ${beams} that have not ended go on: pruned.`];
  }
  const place = node.place ? `: result ${node.place}.` : `, and ${beams} sequences score higher: no result.`;
  const score = node.total / length ** shown.length_penalty;
  return [
    `${rank} ${complete}. Its score is `,
    arithmetic(node.total, length, shown.length_penalty, score),
    place,
  ];
}

/** How greedy decoding fared, in words. */
export function greedySentence({ greedy, results, steps }) {
  const step = steps.findLastIndex((one) => one.some((node) => node.greedy));
  const { place, fate } = steps[step].find((node) => node.greedy);
  if (place === 1) return "Greedy decoding finds result 1 too.";
  const [best] = results;
  const compared =
    greedy.score > best.score ? "more than" : greedy.score < best.score ? "less than" : "as much as";
  const fared = {
    pruned: `Beam search pruned its path in step ${step + 1}.`,
    open: `Beam search stopped on its path after step ${step + 1}.`,
    finished: place
      ? `It is result ${place} of beam search.`
      : `Beam search finished it too, but ${results.length} sequences score higher.`,
  };
  return `Greedy decoding’s sequence scores ${decimals(greedy.score, 3)}, ${compared} result 1. ${fared[fate]}`;
}
