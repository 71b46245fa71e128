// The bars of the next-token widget: each token's probability, what it was, and how often it was drawn.

import { arrowKeys, control, element } from "../core/dom.js";
import { percent, whole } from "../core/numbers.js";

const AXIS_END = 2; // of counts as multiples of their mean
const DEVIATIONS = 2; // on both sides of the mean: about 95 of 100 counts lie within

/** How often `draws` draws give what has probability `prob`: the mean, and how far around it most counts are. */
function expected(prob, draws) {
  return { mean: draws * prob, reach: DEVIATIONS * Math.sqrt(draws * prob * (1 - prob)) };
}

/**
 * What came of the draws: a sentence, or "" without draws.
 * @param {number[]} shares probability of each row
 * @param {number[]} counts how often it was drawn
 * @param {(row: number) => string} labelOf what a row stands for
 */
export function sayDraws(shares, counts, draws, seed, labelOf) {
  if (draws === 0) return "";
  if (draws === 1) return `One draw of seed ${seed}: ${labelOf(counts.indexOf(1))}.`;
  const open = shares.map((prob, row) => [prob, counts[row]]).filter(([prob]) => prob > 0 && prob < 1);
  const inside = open.filter(([prob, count]) => {
    const { mean, reach } = expected(prob, draws);
    return Math.abs(count - mean) <= reach;
  });
  const many = `${whole.format(draws)} draws of seed ${seed}`;
  if (open.length === 0) return `${many}: all of them in one row, which has all the probability.`;
  return (
    `${many}: ${inside.length} of ${open.length} counts lie within two standard deviations of what is expected. ` +
    "Over many seeds, about 95 of 100 do."
  );
}

function drawCount(number) {
  return number < 9.95 ? number.toFixed(1) : whole.format(Math.round(number));
}

const part = (name, ...children) => element("span", { class: `next-token-${name}` }, ...children);

/** One row: a button for a token, or without `choose` a line for all tokens that have no row. */
function barRow(full, choose) {
  const text = element("bdi", { class: "next-token-text" });
  const [share, bar, own, frame, dot, drawn] = ["share", "bar", "own", "frame", "dot", "drawn"].map((name) =>
    part(name),
  );
  const track = part("track", bar, own);
  const multiple = part("multiple", frame, dot);
  for (const picture of [track, multiple]) picture.setAttribute("aria-hidden", "true");
  const inside = [text, share, track, ...(full ? [multiple, drawn] : [])];
  const node = choose
    ? control("button", { type: "button", class: "next-token-row", tabindex: -1, onclick: choose }, ...inside)
    : element("div", { class: "next-token-row next-token-others" }, ...inside);
  return {
    node,
    /**
     * @param {{ label: string, prob: number, before: number, removed: ?string, unsure: boolean }} now
     *   `before` is the probability before any setting; the bar shows it where the token is `removed` by a filter
     */
    show({ label, prob, before, removed, unsure }) {
      if (text.textContent !== label) text.textContent = label;
      own.style.left = `${100 * before}%`;
      bar.style.width = `${100 * (removed ? before : prob)}%`;
      node.classList.toggle("next-token-removed", Boolean(removed));
      share.textContent = (unsure ? "≈ " : "") + (removed ? `removed by ${removed}` : percent(prob));
    },
    /** @param {number} count of `draws`; nothing is shown without draws, or of what cannot be drawn */
    showDraws(prob, count, draws) {
      const none = draws === 0 || prob === 0;
      multiple.hidden = none;
      drawn.textContent = "";
      if (none) return;
      const { mean, reach } = expected(prob, draws);
      const low = Math.max(0, 1 - reach / mean);
      const high = Math.min(AXIS_END, 1 + reach / mean);
      frame.style.left = `${(100 * low) / AXIS_END}%`;
      frame.style.width = `${(100 * (high - low)) / AXIS_END}%`;
      dot.style.left = `${(100 * Math.min(AXIS_END, count / mean)) / AXIS_END}%`;
      dot.classList.toggle("next-token-beyond", count > AXIS_END * mean);
      drawn.textContent = `${whole.format(count)} (${drawCount(mean)} ± ${drawCount(reach)})`;
    },
    /** @param {boolean} seen if the text holds the token already */
    mark(seen) {
      if (!text.classList.toggle("next-token-seen", seen)) node.removeAttribute("aria-description");
      else node.setAttribute("aria-description", "in the text already");
    },
  };
}

/**
 * The list: a button for each of `count` ranks, and in the full set a row for all other tokens. Buttons stay and
 * their contents change, so the focus stays where it is.
 * @returns {{ list: HTMLElement, head: HTMLElement, rows: object[], others: ?object }}   `head` names what is drawn
 */
export function barList(full, count, choose) {
  const list = element("ol", { class: "next-token-bars" });
  const rows = Array.from({ length: count }, (_, rank) => barRow(full, () => choose(rank)));
  const others = full ? barRow(full) : null;
  rows[0].node.tabIndex = 0;
  for (const { node } of full ? [...rows, others] : rows) list.append(element("li", {}, node));
  arrowKeys(list, "button");
  const axis = part("multiple", ...[0, 1, AXIS_END].map((multiple) => element("span", {}, `${multiple}×`)));
  const head = element(
    "div",
    { class: "next-token-row next-token-head", "aria-hidden": "true" },
    axis,
    part("drawn", "drawn (expected)"),
  );
  return { list, head, rows, others };
}
