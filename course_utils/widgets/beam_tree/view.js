import { connect, control, element, uniqueId } from "../core/dom.js";
import { decimals } from "../core/numbers.js";
import { svg } from "../core/svg.js";
import { afterTyping } from "../core/typing.js";
import { arithmetic, candidates, FATES, fateOf, greedySentence } from "./words.js";

const ROW = 2.9; // the height of a candidate, in em, with the gap to the next; as in the style sheet
const NUMBERS = [
  { name: "num_beams", label: "Beams", min: 2, max: 8, step: 1 },
  { name: "max_new_tokens", label: "New tokens", min: 1, max: 10, step: 1 },
  { name: "length_penalty", label: "Length penalty", min: -3, max: 3, step: 0.5 },
];
const STOPPING = [
  [false, "False"],
  [true, "True"],
  ["never", '"never"'],
];

function tokens(texts) {
  return texts.map((text) => element("bdi", { class: "beam-tree-token" }, text));
}

function mark(look, sign) {
  return element("span", { class: `beam-tree-mark ${look}` }, sign);
}

/** The settings: `changed` is called after a pause in typing. Boxes that were edited keep what was typed. */
function settingsPanel(model, changed) {
  const live = model.get("live");
  const boxes = {};
  const labelled = (name, label, box) => {
    boxes[name] = box;
    box.id = uniqueId();
    return element("div", {}, element("label", { for: box.id }, label), box);
  };
  const prompt = labelled(
    "prompt",
    "Prompt",
    control("textarea", { rows: 1, dir: "auto", spellcheck: "false", readonly: !live }),
  );
  const numbers = NUMBERS.map(({ name, label, ...range }) =>
    labelled(name, label, control("input", { type: "number", ...range, disabled: !live })),
  );
  const group = uniqueId();
  const radios = STOPPING.map(([value]) =>
    control("input", { type: "radio", name: group, value: String(value), disabled: !live }),
  );
  const stopping = element(
    "fieldset",
    {},
    element("legend", {}, "Early stopping"),
    ...radios.map((radio, number) => element("label", {}, radio, STOPPING[number][1])),
  );
  const ends = element("p", { class: "beam-tree-ends" });
  const others = element("div", { class: "beam-tree-settings" }, ...numbers, stopping);
  for (const node of [prompt, others]) node.addEventListener("input", changed);
  return {
    nodes: [prompt, others, ends],
    values() {
      const values = { prompt: boxes.prompt.value };
      for (const { name } of NUMBERS)
        values[name] = boxes[name].value === "" ? null : Number(boxes[name].value);
      return { ...values, early_stopping: STOPPING[radios.findIndex((radio) => radio.checked)][0] };
    },
    show(shown) {
      for (const [name, box] of Object.entries(boxes)) box.value = shown[name];
      for (const radio of radios) radio.checked = radio.value === String(shown.early_stopping);
    },
    showEnds: (texts) =>
      ends.replaceChildren("Tokens that end a sequence: ", ...(texts.length > 0 ? tokens(texts) : ["none"])),
    /** @param {string} [name] of the setting that was refused */
    blame(name) {
      for (const [one, box] of Object.entries(boxes)) box.setAttribute("aria-invalid", String(one === name));
    },
  };
}

/** A line from each candidate to its parent, in the gap between two columns. */
function links(step) {
  const rows = Math.max(step.length, ...step.map((node) => node.parent + 1));
  const picture = svg("svg", {
    viewBox: `0 0 1 ${rows}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  picture.style.height = `${rows * ROW}em`;
  const line = (node, number, look) => {
    const [from, to] = [node.parent + 0.5, number + 0.5];
    const path = svg("path", { d: `M0 ${from} C.5 ${from} .5 ${to} 1 ${to}`, class: look });
    picture.append(path);
    return path;
  };
  const lines = step.map((node, number) => line(node, number, `beam-tree-${node.fate}`));
  const best = step.findIndex((node) => node.best);
  if (best >= 0) lines[best].classList.add("beam-tree-best");
  const greedy = step.findIndex((node) => node.greedy);
  if (greedy >= 0) line(step[greedy], greedy, "beam-tree-greedy");
  return { picture, lines };
}

/** The tree: a column a step, a button a candidate; `point(step, number)` is called for each one looked at. */
function drawTree(box, shown, point) {
  const columns = [];
  const parts = shown.steps.flatMap((step, at) => {
    const buttons = step.map((node, number) => {
      const [sign, word] = FATES[node.fate];
      const marks = [node.place ? `result ${node.place}` : "", node.greedy ? "greedy" : ""].filter(Boolean);
      return control(
        "button",
        {
          type: "button",
          tabindex: -1,
          class: `beam-tree-node beam-tree-${node.fate}${node.best ? " beam-tree-best" : ""}`,
          "aria-label": [node.text, decimals(node.total), word, ...marks, `step ${at + 1}`].join(", "),
          onfocus: () => point(at, number),
          onmouseenter: () => point(at, number),
          onclick: (event) => event.currentTarget.focus(), // Safari does not focus a clicked button
        },
        element(
          "span",
          {},
          element("bdi", { class: "beam-tree-token", title: node.text }, node.text),
          ...(node.greedy ? [mark("beam-tree-greedy", "G")] : []),
          ...(node.place ? [mark("", `#${node.place}`)] : []),
        ),
        element("span", {}, element("span", {}, sign), element("span", {}, decimals(node.total))),
      );
    });
    const column = element(
      "div",
      { role: "group", "aria-label": `Step ${at + 1}` },
      element("p", {}, `Step ${at + 1}`),
      ...buttons,
    );
    const { picture, lines } = at > 0 ? links(step) : { lines: [] };
    columns.push({ buttons, lines });
    return picture ? [picture, column] : [column];
  });
  box.replaceChildren(...parts);
  return columns;
}

/** The candidates from the first step to this one: a list of [step, number]. */
function lineage(steps, step, number) {
  const found = [];
  for (let at = step, one = number; at >= 0; one = steps[at].at(one).parent, at -= 1)
    found.unshift([at, one]);
  return found;
}

/** Left to the parent, right to the best child, up and down in the step; null where the way ends. */
function arrowTarget(event, columns, { steps }) {
  const step = columns.findIndex(({ buttons }) => buttons.includes(event.target));
  if (step < 0) return undefined;
  const { buttons } = columns[step];
  const number = buttons.indexOf(event.target);
  const child = steps[step + 1]?.findIndex((node) => node.parent === number);
  const to = {
    ArrowUp: buttons[number - 1],
    ArrowDown: buttons[number + 1],
    Home: buttons[0],
    End: buttons.at(-1),
    ArrowLeft: columns[step - 1]?.buttons[steps[step][number].parent],
    ArrowRight: columns[step + 1]?.buttons[child],
  };
  return event.key in to ? (to[event.key] ?? null) : undefined;
}

/** Mark the candidates on the way, and the lines between them; the last one is in the tab order. */
function markWay(columns, way) {
  for (const { buttons, lines } of columns)
    for (const node of [...buttons, ...lines]) node.removeAttribute("data-way");
  for (const { buttons } of columns) for (const button of buttons) button.tabIndex = -1;
  for (const [at, one] of way)
    for (const node of [columns[at].buttons[one], columns[at].lines[one]]) node?.setAttribute("data-way", "");
  const [step, number] = way.at(-1);
  columns[step].buttons[number].tabIndex = 0;
}

/** What the marks in the tree mean: a list of elements. */
function legendOf(shown) {
  const fates = new Set(shown.steps.flat().map((node) => node.fate));
  return [
    ...Object.keys(FATES)
      .filter((name) => fates.has(name))
      .map((name) => element("span", {}, FATES[name].join(" "))),
    element("span", {}, mark("", "#1"), " result"),
    element("span", {}, mark("beam-tree-greedy", "G"), " greedy decoding’s path"),
    element("span", {}, "thick line: path of result 1"),
  ];
}

/** The sum of the log probabilities on the way: a list of nodes and strings. */
function sumOf(nodes) {
  return [
    ...nodes.flatMap((node, at) => [
      at > 0 ? " + " : "",
      ...tokens([node.text]),
      ` ${decimals(node.log_prob)}`,
    ]),
    nodes.length > 1 ? ` = ${decimals(nodes.at(-1).total)}` : "",
  ];
}

function drawResults({ results, greedy }, shown) {
  const row = (name, one) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, ...tokens(one.tokens)),
      element("td", {}, arithmetic(one.total, one.tokens.length, shown.length_penalty, one.score)),
    );
  const power = element("sup", {}, "penalty");
  const head = [["Result"], ["Sequence"], ["Sum / tokens", power, " = score"]];
  results.replaceChildren(
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, ...name)))),
    element(
      "tbody",
      {},
      ...shown.results.map((one, at) => row(`#${at + 1}`, one)),
      row(mark("beam-tree-greedy", "G"), shown.greedy),
    ),
  );
  greedy.textContent = greedySentence(shown);
}

/** All parts of the page below the settings. */
function createView(settings) {
  const view = {
    wrong: element("p", { class: "course-wrong", role: "alert" }),
    caption: element("p", { class: "beam-tree-caption" }),
    tree: element("div", { class: "beam-tree-columns", role: "group", "aria-label": "Candidates" }),
    legend: element("p", { class: "beam-tree-legend" }),
    path: element("p", { class: "beam-tree-path" }),
    fate: element("p"),
    results: element("table", { class: "beam-tree-results" }),
    greedy: element("p"),
    status: element("p", { class: "course-status", role: "status" }),
  };
  const { wrong, caption, tree, legend, path, fate, results, greedy, status } = view;
  view.root = element(
    "div",
    { class: "course-widget beam-tree" },
    ...settings.nodes,
    wrong,
    caption,
    tree,
    legend,
    element("div", { class: "beam-tree-details", "aria-live": "polite" }, path, fate),
    results,
    greedy,
    status,
  );
  return view;
}

function render({ model, el }) {
  const live = model.get("live");
  let shown;
  let columns; // for each step its buttons and the lines that lead to them
  const typing = afterTyping(ask);
  let edited = false; // the settings hold what has not been answered, or was refused

  const settings = settingsPanel(model, () => {
    edited = true;
    typing.restart();
  });
  const view = createView(settings);
  const { wrong, caption, tree, legend, path, fate } = view;
  const say = (sentence) => (view.status.textContent = sentence);
  const line = connect(model, say);

  function ask() {
    tree.setAttribute("aria-busy", "true");
    line.ask(settings.values(), ({ error, about }) => {
      tree.removeAttribute("aria-busy");
      wrong.textContent = error ?? "";
      settings.blame(error ? about : null);
      if (!error) edited = typing.waiting();
      take(); // the answer to a request that this one overtook may have come before
    });
  }

  function point(step, number) {
    const way = lineage(shown.steps, step, number);
    markWay(columns, way);
    const nodes = way.map(([at, one]) => shown.steps[at][one]);
    path.replaceChildren(...sumOf(nodes));
    fate.replaceChildren(...fateOf(nodes.at(-1), step, shown));
  }

  tree.addEventListener("keydown", (event) => {
    const to = arrowTarget(event, columns, shown);
    if (to === undefined) return;
    event.preventDefault();
    to?.focus();
  });

  function take() {
    if (line.overtaken()) return;
    if (!edited) settings.show(model.get("shown"));
    if (shown === model.get("shown")) return;
    shown = model.get("shown");
    settings.showEnds(shown.ends);
    const step = shown.results[0].tokens.length - 1;
    const number = shown.steps[step].findIndex((node) => node.place === 1);
    for (const [at, one] of lineage(shown.steps, step, number)) shown.steps[at][one].best = true;
    caption.textContent = `Each step weighs ${candidates(shown)} candidates, the highest sum of log probabilities first. ${shown.num_beams} go on.`;
    legend.replaceChildren(...legendOf(shown));
    const focused = tree.contains(document.activeElement);
    columns = drawTree(tree, shown, point);
    point(step, number);
    if (focused) columns[step].buttons[number].focus();
    drawResults(view, shown);
  }

  take();
  if (!live)
    say("A saved view: point at a candidate, or move with the arrow keys. To search again, run this cell.");
  el.append(view.root);
  model.on("change:shown", take);
  return () => {
    typing.stop();
    model.off("change:shown", take);
    line.close();
  };
}

export default { render };
