// All steps as columns, and the line of the loop that made each cell: the installed one, or the learner's.
import { control, element, scrolling } from "../core/dom.js";
import { whole } from "../core/numbers.js";

const COLUMNS = 8; // steps that are drawn at a time

const percent = (share) => (share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`);

/** What a line of the timeline says of a step, and which line of the loop said it. */
const LINES = [
  {
    key: "read",
    title: "read",
    source: ({ at }) => (at === 0 ? "first" : "forward"),
    text: ({ given, labels }) => (given.ids.length === 1 ? labels[given.ids[0]] : `${given.ids.length} ids`),
  },
  {
    key: "cached",
    title: "from the cache",
    source: ({ at }) => (at === 0 ? "first" : "forward"),
    text: ({ cache }) => (cache ? `${cache}` : "nothing"),
  },
  {
    key: "logits",
    title: "likeliest",
    source: () => "logits",
    text: ({ own, labels }) => {
      if (!own) return "ignored";
      const raw = own.shares[0];
      const best = raw.indexOf(Math.max(...raw));
      return `${labels[own.top[best]]} ${percent(raw[best])}`;
    },
  },
  {
    key: "processors",
    title: "tokens left",
    source: () => "processors",
    text: ({ own }) => (own ? whole.format(own.kept.at(-1)) : "ignored"),
  },
  {
    key: "choice",
    title: "choice",
    source: ({ sampling }) => (sampling ? "drawn" : "likeliest"),
    text: ({ own, token, labels }) => (own ? labels[token] : "ignored"),
  },
  {
    key: "fill",
    title: "pad instead",
    source: () => "fill",
    text: ({ own }) => (own ? "no" : "yes"),
  },
  { key: "append", title: "ids then", source: () => "append", text: ({ length }) => `${length}` },
  { key: "criteria", title: "finished", source: () => "criteria", text: ({ reason }) => reason ?? "no" },
];

/** What the timeline says of one step: the record of `LINES`. */
function cell(shown, turns, at, row) {
  const { step, tokens, reasons } = turns[at];
  const { cache, given, rows } = shown.steps[step];
  return {
    at,
    cache,
    given: given[row],
    own: rows[row],
    token: tokens[row],
    reason: reasons[row],
    length: shown.rows[row].length + at + 1,
    labels: shown.labels,
    sampling: shown.sampling,
  };
}

/**
 * The steps around the one that is looked at as a table, and the loop's lines below it. Pointing at a cell, or moving
 * to it with the arrow keys, lights up its line; a click goes to its step.
 * @param {{ go: (step: number) => void }} on
 */
export function timeline(shown, turns, view, on) {
  const first = view.step - (view.step % COLUMNS);
  const steps = turns.slice(first, first + COLUMNS).map((_, column) => first + column);
  const cells = steps.map((at) => cell(shown, turns, at, view.row));
  const { nodes, light } = sourceLines(shown.source);
  const lit = (line, record) => {
    view.line = line.key;
    light(line.source(record));
  };
  const button = (line, record) =>
    control(
      "button",
      {
        type: "button",
        tabindex: line.key === view.line && record.at === view.step ? 0 : -1,
        onclick: () => {
          lit(line, record);
          on.go(record.at);
        },
        onfocus: () => lit(line, record),
        // Not "pointerenter": what is drawn anew under a pointer at rest is not pointed at.
        onpointermove: () => lit(line, record),
      },
      element("bdi", {}, line.text(record)),
    );
  const here = (at) => (at === view.step ? "stepper-here" : null);
  const head = element(
    "tr",
    {},
    element("th", { scope: "row" }, "step"),
    ...steps.map((at) => element("th", { scope: "col", class: here(at) }, `${at}`)),
  );
  const body = LINES.map((line) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, line.title),
      ...cells.map((record) => element("td", { class: here(record.at) }, button(line, record))),
    ),
  );
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  moveInTable(table, steps.length);
  const current = LINES.find(({ key }) => key === view.line);
  light(current.source(cells[view.step - first]));
  const more =
    turns.length > steps.length ? ` Steps ${first} to ${steps.at(-1)} of ${turns.length} are drawn.` : "";
  const hint = `Point at a cell: the line of the loop that made it is marked.${more}`;
  return [
    element("p", { class: "stepper-legend" }, hint),
    scrolling("stepper-scroll stepper-times", "Timeline", table),
    ...nodes,
  ];
}

/** The loop's lines in their order, and a function that marks one of them. */
function sourceLines({ title, lines }) {
  const entries = Object.entries(lines).sort(([, [one]], [, [other]]) => one - other);
  const byNumber = new Map(); // one line may do several things
  const items = new Map();
  for (const [name, [number, text]] of entries) {
    if (!byNumber.has(number)) byNumber.set(number, sourceLine(number, text));
    items.set(name, byNumber.get(number));
  }
  if (!entries.length) return { nodes: [element("p", { class: "stepper-legend" }, title)], light() {} };
  const list = element("ol", { class: "stepper-source" }, ...byNumber.values());
  const box = scrolling("stepper-scroll", "Lines of the loop", list);
  return {
    nodes: [element("p", { class: "stepper-legend" }, title), box],
    light(name) {
      for (const item of byNumber.values()) {
        if (item === items.get(name)) item.setAttribute("aria-current", "true");
        else item.removeAttribute("aria-current");
      }
    },
  };
}

const sourceLine = (number, text) =>
  element(
    "li",
    {},
    element("span", { class: "stepper-number" }, `${number}`),
    element("code", { dir: "ltr" }, text),
  );

/** Arrow keys, Home and End move between the buttons of a table of `columns` steps. */
function moveInTable(table, columns) {
  table.addEventListener("keydown", (event) => {
    const buttons = [...table.querySelectorAll("button")];
    const at = buttons.indexOf(event.target);
    const start = at - (at % columns);
    const to = {
      ArrowLeft: Math.max(at - 1, start),
      ArrowRight: Math.min(at + 1, start + columns - 1),
      ArrowUp: at - columns,
      ArrowDown: at + columns,
      Home: start,
      End: start + columns - 1,
    }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    buttons[to]?.focus();
  });
  table.addEventListener("focusin", (event) => {
    for (const button of table.querySelectorAll("button")) button.tabIndex = button === event.target ? 0 : -1;
  });
}
