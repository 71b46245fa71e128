// What the stepper draws of one step, each part from the state alone.
import { arrowKeys, control, element, scrolling, uniqueId } from "../core/dom.js";
import { percent as shareText, whole } from "../core/numbers.js";

const BARS = 10;

/** @param {number} share to 1; what is removed has none, so that 0 is a small one */
const percent = (share) => shareText(share || Number.MIN_VALUE);

const tokenText = (text) => element("bdi", { class: "stepper-token" }, text);
const padding = () => element("span", { class: "stepper-token stepper-padding" }, "pad");

/**
 * Every row's text: its prompt, then a button for each step that was taken.
 * @param {{ go: (step: number) => void, row: (number: number) => void }} on
 */
export function tokenRows(shown, turns, view, on) {
  const name = uniqueId();
  return shown.rows.map((ids, row) => {
    const real = values(shown.steps[0].given[row].mask);
    const prompt = ids.map((id, at) => (real[at] ? tokenText(shown.labels[id]) : padding()));
    const steps = turns.flatMap((turn, at) => {
      const over = turn.shares[row] === null;
      const state = over ? " stepper-padding" : at > view.step ? " stepper-later" : "";
      const token = turn.tokens[row];
      const button = control(
        "button",
        {
          type: "button",
          class: `stepper-token${state}`,
          "aria-current": at === view.step ? "step" : null,
          tabindex: at === view.step ? 0 : -1,
          title: `step ${at}`,
          onclick: () => on.go(at),
        },
        element("bdi", {}, over && token === shown.pad ? "pad" : shown.labels[token]),
      );
      const reason = over ? null : turn.reasons[row];
      return reason
        ? [button, element("span", { class: "stepper-reason" }, `finished: ${reason}`)]
        : [button];
    });
    const text = element(
      "div",
      { class: "stepper-text", role: "group", "aria-label": `Text of row ${row}, one button a step` },
      ...prompt,
      ...steps,
    );
    arrowKeys(text, "button");
    if (shown.rows.length === 1) return text;
    const radio = control("input", {
      type: "radio",
      name,
      checked: row === view.row,
      onchange: () => on.row(row),
    });
    return element("div", { class: "stepper-row" }, element("label", {}, radio, `Row ${row}`), text);
  });
}

/** The runs of a mask, [[0, 3], [1, 1]], as values. */
const values = (runs) => runs.flatMap(([value, length]) => Array(length).fill(value));

/** The first `length` values of a mask in words: "0 ×3, 1 ×4". */
function beginning(runs, length) {
  const words = [];
  for (const [value, times] of runs) {
    const here = Math.min(times, length);
    if (here > 0) words.push(here === 1 ? `${value}` : `${value} ×${here}`);
    length -= here;
  }
  return words.join(", ");
}

/** What the model was given at a step for one row: new ids, positions, mask, and what lies in the cache. */
export function givenTable({ cache, given }, row, { labels }) {
  const { ids, positions, mask } = given[row];
  const own = values(mask).slice(cache);
  const cached = (text) => (cache ? [element("td", { class: "stepper-cached" }, text)] : []);
  const line = (name, first, cells) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      ...cached(first),
      ...cells.map((cell) => element("td", {}, cell)),
    );
  return scrolling(
    "stepper-scroll",
    "The model’s inputs",
    element(
      "table",
      {},
      element(
        "tbody",
        {},
        line(
          "token",
          `${cache} in the cache`,
          ids.map((id, at) => (own[at] ? tokenText(labels[id]) : padding())),
        ),
        line("id", "", ids.map(String)),
        line("position", "", positions ? positions.map(String) : ids.map(() => "none")),
        line("mask", beginning(mask, cache), own.map(String)),
      ),
    ),
  );
}

/** Name of a stage: 0 is the model's own distribution, then the logits processors in their order. */
function stageName(names, stage) {
  if (stage === 0) return "the model’s logits";
  const parts = names[stage - 1].split(/(?=Logits)/).flatMap((part) => [element("wbr"), part]);
  return element("code", {}, ...parts);
}

/** All stages with what is left after each; one of them is chosen to be drawn. */
export function stageList({ names }, { kept, mass, entropy }, selected, select) {
  const name = uniqueId();
  const lines = kept.map((count, stage) =>
    element(
      "li",
      {},
      element(
        "label",
        {},
        control("input", { type: "radio", name, checked: stage === selected, onchange: () => select(stage) }),
        element("span", {}, stageName(names, stage)),
        element(
          "span",
          { class: "stepper-figures" },
          element("span", {}, `${whole.format(count)} tokens`),
          element("span", {}, percent(mass[stage])),
          element("span", {}, `${entropy[stage].toFixed(2)} bits`),
        ),
      ),
    ),
  );
  const legend = element(
    "p",
    { class: "stepper-legend" },
    "Tokens kept, their share of the logits’ distribution, entropy",
  );
  return [legend, element("ol", { class: "stepper-stages" }, ...lines)];
}

/**
 * The most likely tokens at one stage as bars.
 * @param {((token: number) => void)|null} choose called for a token that is chosen; null where none can be
 */
export function barList({ names }, { top, shares }, stage, turn, row, labels, choose) {
  const chosen = turn.tokens[row];
  const tokens = top.map((id, at) => ({ id, shares: shares.map((stage) => stage[at]) }));
  if (!top.includes(chosen)) tokens.push({ id: chosen, shares: turn.shares[row] });
  const weight = ({ shares }) => shares[stage] ?? shares[0] - 1; // what was removed comes last
  tokens.sort((a, b) => weight(b) - weight(a));
  const drawn = tokens.slice(0, BARS);
  if (!drawn.some(({ id }) => id === chosen)) drawn[BARS - 1] = tokens.find(({ id }) => id === chosen);
  const list = element("ol", { class: "stepper-bars" });
  drawn.forEach(({ id, shares }, rank) => {
    const gone = shares.slice(0, stage + 1).indexOf(null);
    const by = gone > 0 ? `by ${names[gone - 1].replace(/Logits(Processor|Warper)$/, "")}` : null;
    const bar = element("span", { class: "stepper-bar" });
    const own = element("span", { class: "stepper-own" });
    bar.style.width = `${100 * (by ? shares[gone - 1] : shares[stage])}%`;
    own.style.left = `${100 * shares[0]}%`;
    const button = control(
      "button",
      {
        type: "button",
        class: by ? "stepper-removed" : null,
        tabindex: rank === 0 ? 0 : -1,
        "aria-current": id === chosen ? "true" : null,
        disabled: !choose,
        onclick: () => choose(id),
      },
      element("bdi", { class: "stepper-token", title: labels[id] }, labels[id]),
      element("span", { class: "stepper-share" }, by ? "removed" : percent(shares[stage])),
      element("span", { class: "stepper-track", "aria-hidden": "true" }, bar, stage > 0 ? own : ""),
      element("span", { class: "stepper-mark", title: by }, id === chosen ? "chosen" : (by ?? "")),
    );
    list.append(element("li", {}, button));
  });
  arrowKeys(list, "button");
  const legend = element(
    "p",
    { class: "stepper-legend" },
    ...(stage === 0
      ? ["From the model’s logits alone"]
      : ["After ", stageName(names, stage), ". Line: from the logits alone"]),
  );
  return [legend, list];
}

/**
 * All branches, each below the one that it leaves.
 * @param {(number: number) => object[]} path the turns of a branch
 */
export function branchTree(shown, path, view, go, live) {
  const text = (number, row, from) =>
    path(number)
      .slice(from)
      .filter((turn) => turn.shares[row] !== null)
      .map((turn) => shown.labels[turn.tokens[row]])
      .join("");
  const one = (branch, number) => {
    const { parent, start, row, seed } = branch;
    const at = row ?? view.row;
    const chip = (turns) =>
      element("bdi", { class: "stepper-token" }, shown.labels[turns[start].tokens[row]]);
    const head =
      parent === null
        ? [shown.sampling ? `Seed ${seed}:` : "Most likely:"]
        : [
            `Step ${start}${shown.rows.length > 1 ? `, row ${row}` : ""}:`,
            chip(path(number)),
            "for",
            chip(path(parent)),
          ];
    const button = control(
      "button",
      { type: "button", "aria-current": number === view.branch ? "true" : null, onclick: () => go(number) },
      ...head.flatMap((part) => [part, " "]),
      element("bdi", { class: "stepper-run" }, text(number, at, parent === null ? 0 : start + 1)),
    );
    const inner = below(number);
    return element("li", {}, button, ...(inner ? [inner] : []));
  };
  const below = (parent) => {
    const items = shown.branches.flatMap((branch, number) =>
      branch.parent === parent ? [one(branch, number)] : [],
    );
    return items.length ? element("ul", {}, ...items) : null;
  };
  const hint = element(
    "p",
    { class: "stepper-legend" },
    "Choose another token above, at any step, to begin a branch.",
  );
  return live && shown.branches.length === 1 ? [below(null), hint] : [below(null)];
}

/** How the token of a step came to be chosen: a list of nodes and strings. */
export function sentence(shown, view, turns) {
  const turn = turns[view.step];
  const row = shown.rows.length > 1 ? `Row ${view.row}: ` : "";
  if (turn.shares[view.row] === null) {
    const reason = turns[view.step - 1].reasons[view.row];
    return [
      `${row}finished before this step (${reason}). The model computes this row all the same; what it says is not used.`,
    ];
  }
  let owner = shown.branches[view.branch];
  while (owner.start > view.step) owner = shown.branches[owner.parent];
  const yours = owner.row === view.row && owner.start === view.step;
  const how = yours
    ? "was chosen by you"
    : shown.sampling
      ? `was drawn with seed ${owner.seed}`
      : "is the most likely";
  const share = turn.shares[view.row].at(-1);
  const token = element("bdi", { class: "stepper-token" }, shown.labels[turn.tokens[view.row]]);
  const reason = turn.reasons[view.row];
  return [
    row,
    token,
    ` ${how}, ${share === null ? "though it was removed" : `at ${percent(share)}`}.`,
    reason ? ` This finishes the row: ${reason}.` : "",
  ];
}
