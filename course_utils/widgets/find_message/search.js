// Ranks messages by how well their phrases fit a text: course_utils/library/messages/find.py, line for line.
const WORD = /[a-z]{2,}|\ufffd/g;
const COLOUR = new RegExp(`${String.fromCharCode(27)}\\[[\\d;]*m`, "g");
const UNKNOWN = 0.6;
const MOST_LINES = 400;

function words(text) {
  return text.replace(COLOUR, "").toLowerCase().match(WORD) ?? [];
}

/** The words, and each two in a row. */
function terms(list) {
  return new Set([...list, ...list.slice(1).map((word, at) => `${list[at]} ${word}`)]);
}

/** The words of each line, of each two and three lines in a row, and of the whole text. */
function windows(text) {
  const lines = text
    .split(/\r\n|[\r\n]/)
    .slice(-MOST_LINES)
    .map(words)
    .filter((line) => line.length > 0);
  const spans = [1, 2, 3].flatMap((size) =>
    lines.slice(size - 1).map((_, at) => lines.slice(at, at + size).flat()),
  );
  return lines.length > 3 ? [...spans, lines.flat()] : spans;
}

/**
 * @param {string[][]} phrases of each thing
 * @returns {(text: string) => number[]} for each thing a number from 0, nothing in common, to 1, the same words
 */
export function finder(phrases) {
  const worded = phrases.map((each) =>
    each.map(words).map((list) => ({ terms: terms(list), text: ` ${list.join(" ")} ` })),
  );
  const count = new Map();
  for (const each of worded) {
    for (const term of new Set(each.flatMap((phrase) => [...phrase.terms])))
      count.set(term, (count.get(term) ?? 0) + 1);
  }
  const weights = new Map([...count].map(([term, times]) => [term, Math.log(1 + phrases.length / times)]));
  const sum = (some) => [...some].reduce((total, term) => total + weights.get(term), 0);
  for (const phrase of worded.flat()) phrase.weight = sum(phrase.terms);

  function look(list) {
    const known = [...terms(list)].filter((term) => weights.has(term));
    const unknown = new Set(list.filter((word) => !weights.has(word)));
    const weight = sum(known) + UNKNOWN * Math.log(1 + phrases.length) * unknown.size;
    return { known, weight, text: ` ${list.join(" ")}` };
  }

  /** The cosine of the two sets; a part of the phrase, as one types it, fits as well. */
  function score(typed, phrase) {
    const part = typed.text.length > 3 && phrase.text.includes(typed.text) ? 0.5 : 0;
    const shared = sum(typed.known.filter((term) => phrase.terms.has(term)));
    return shared > 0 ? Math.max(part, shared / Math.sqrt(typed.weight * phrase.weight)) : part;
  }

  return (text) => {
    const all = windows(text).map(look);
    return worded.map((each) =>
      Math.max(
        0,
        ...each.map((phrase) => all.reduce((best, typed) => Math.max(best, score(typed, phrase)), 0)),
      ),
    );
  };
}
