import { choice, placed, sentenceBox, tokenName, twoDecimals } from "../core/batch.js";
import { control, element, typed, uniqueId, write } from "../core/dom.js";
import { attend, FORMATS, fillValue, outcome, spacing } from "./attention.js";

// The name in attend(), its label, and how it reads as a step.
const STAGES = [
  ["scores", "scores", "score"],
  ["mask", "mask", "+ mask"],
  ["sums", "scores + mask", "= sum"],
  ["weights", "weights", "softmax"],
];
const FIRST_STAGE = "weights";
// The switches of a mask: the trait, its legend, its values with their labels.
const SWITCHES = [
  ["masks", "Mask", ["causal", "padding", "both"].map((name) => [name, name])],
  [
    "fill",
    "A forbidden cell gets",
    [
      ["-inf", "−∞"],
      ["finfo.min", "finfo.min"],
      ["-1e4", "−10000"],
    ],
  ],
  ["dtype", "Type of number", Object.keys(FORMATS).map((name) => [name, name])],
];

/** A number in few characters: two decimals, or a power of ten. */
function short(number) {
  if (Number.isNaN(number)) return "NaN";
  const size = Math.abs(number);
  const text = !Number.isFinite(size)
    ? "∞"
    : size >= 1e5
      ? size.toExponential(1).replace("+", "")
      : Number.isInteger(size)
        ? String(size)
        : twoDecimals(size);
  return number < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** What happened to one query, in words. */
function words({ may, sums, weights, unmasked }, fill, dtype) {
  const keys = weights.length;
  const open = may.filter(Boolean).length;
  if (open === keys) return "Nothing is forbidden to this query: its weights are those of its scores.";
  if (open > 0) {
    const leaked = weights.reduce((sum, weight, key) => sum + (may[key] ? 0 : weight), 0);
    const rest =
      open === 1 ? "The one that is left gets all the weight" : `The other ${open} share all the weight`;
    return `${keys - open} of ${keys} keys are forbidden and get ${short(leaked)}. ${rest}.`;
  }
  const value = fillValue(fill, FORMATS[dtype]);
  const step = `Near ${short(value)}, ${dtype} has a number only every ${short(spacing(value, FORMATS[dtype]))}`;
  const lost = sums.filter((sum) => sum === -Infinity).length;
  const all = `All ${keys} keys are forbidden to this query.`;
  switch (outcome({ weights, unmasked })) {
    case "NaN":
      return `${all} Every sum is −∞, so softmax divides 0 by 0. The result is NaN, “not a number”: this is not a distribution, and whatever is calculated with it becomes NaN too.`;
    case "as if unmasked":
      return `${all} Yet the weights are as if nothing were: the same number was added to every score, and softmax sees only differences. The query looks at padding and at the future.`;
    case "uniform":
      return `${all} Yet each gets ${short(weights[0])}, 1/${keys}, the future included. ${step}: beside it the scores round away, and all sums are equal.`;
    default:
      return `${all} The weights are what rounding left of the scores. ${lost > 0 ? `${lost} of the sums fell below the smallest number of ${dtype}, to −∞.` : `${step}.`}`;
  }
}

function list(numbers) {
  return numbers.length > 1 ? `${numbers.slice(0, -1).join(", ")} and ${numbers.at(-1)}` : String(numbers[0]);
}

/** A box for the number of a layer or a head. `show` leaves alone what is typed. */
function numberBox(name, live, changed) {
  const id = uniqueId();
  const label = element("span");
  let shown;
  const input = control("input", { type: "number", id, name, min: 0, step: 1, readonly: !live });
  input.addEventListener("change", () => (input.value === "" ? (input.value = shown) : changed()));
  const node = element("label", { for: id, class: "mask-view-number-box" }, label, input);
  const show = (value, count, typed) => {
    shown = value;
    if (!typed) input.value = value;
    input.max = count - 1;
    label.textContent = `${name === "layer" ? "Layer" : "Head"}, 0 to ${count - 1}`;
  };
  return { node, input, show };
}

/** Mark the boxes whose numbers do not exist: true where there is one. */
function blamed(boxes) {
  for (const { input } of boxes) input.setAttribute("aria-invalid", String(!input.validity.valid));
  return !boxes.every(({ input }) => input.validity.valid);
}

/** Which sentence the table is of. */
function sentenceChoice(model, changed) {
  const options = model.get("shown").sentences.map((text, number) => [number, text]);
  return choice(model, "row", "Sentence", options, changed);
}

/** Which stage the cells show: radio buttons of this view alone. */
function stageChoice(changed) {
  const name = uniqueId();
  const node = element("fieldset", { class: "batch-switch" }, element("legend", {}, "Show"));
  for (const [value, label] of STAGES) {
    const checked = value === FIRST_STAGE;
    node.append(
      element(
        "label",
        {},
        control("input", { type: "radio", name, value, checked, onchange: () => changed(value) }),
        label,
      ),
    );
  }
  return node;
}

/** One number in its place: a button or a cell. */
function fillIn(node, value, stage, may) {
  const nan = Number.isNaN(value);
  node.textContent = short(value);
  node.classList.toggle("batch-hatched", !may);
  node.classList.toggle("mask-view-nan", nan);
  node.style.setProperty("--weight", stage === "weights" && !nan ? value : 0);
}

/** The buttons of a table, [query][key]; `pick(query, key)` is called for the one that is looked at. */
function cellButtons(length, pick) {
  const places = Array.from({ length }, (_, at) => at);
  return places.map((query) =>
    places.map((key) =>
      // Safari does not focus a clicked button.
      control("button", {
        type: "button",
        onfocus: () => pick(query, key),
        onclick: (event) => event.currentTarget.focus(),
      }),
    ),
  );
}

/** A new table: a row a query, and below them one query step by step. */
function fillTable(table, names, cells) {
  const header = (scope, at) =>
    element(
      "th",
      { scope },
      element("span", { class: "mask-view-number" }, String(at)),
      tokenName(names[at]),
    );
  const line = (head, content) => element("tr", {}, head, ...content.map((one) => element("td", {}, one)));
  table.replaceChildren(
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        element("th", { scope: "col" }, "query ↓ key →"),
        ...names.map((_, key) => header("col", key)),
      ),
    ),
    element("tbody", {}, ...cells.map((buttons, query) => line(header("row", query), buttons))),
    element(
      "tbody",
      { class: "mask-view-steps" },
      element("tr", {}, element("th", { colspan: names.length + 1, scope: "rowgroup" })),
      ...STAGES.map(([, , step]) =>
        line(
          element("th", { scope: "row" }, step),
          names.map(() => ""),
        ),
      ),
    ),
  );
}

/** All stages of all queries, and which keys each may look at. */
function attended(model, names, row) {
  const size = names.length;
  const first = row * size * size;
  const scores = typed(Float32Array, model.get("shown").scores).subarray(first, first + size * size);
  const [masks, fill, format] = [model.get("masks"), model.get("fill"), FORMATS[model.get("dtype")]];
  return names.map((_, query) => {
    const may = names.map(
      (name, key) => (masks === "padding" || key <= query) && (masks === "causal" || name !== null),
    );
    return { ...attend(scores.subarray(query * size, (query + 1) * size), may, fill, format), may };
  });
}

/** Which queries may look nowhere, in words. */
function maskedEverywhere(queries) {
  const nowhere = queries.flatMap(({ may }, query) => (may.some(Boolean) ? [] : [query]));
  return nowhere.length > 0
    ? `Masked everywhere: ${nowhere.length > 1 ? "queries" : "query"} ${list(nowhere)}. To the left there is only padding, to the right only the future.`
    : "Every query may look at some key.";
}

/** Mark the cell that is looked at, and put it into the tab order. */
function markCell(table, cells, query, key) {
  cells.forEach((line, q) => {
    table.tBodies[0].rows[q].classList.toggle("mask-view-query", q === query);
    line.forEach((button, k) => {
      const here = q === query && k === key;
      button.tabIndex = here ? 0 : -1;
      if (here) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  });
}

/** The query that is looked at, step by step. */
function fillSteps(table, names, found, query, key) {
  const [title, ...steps] = table.tBodies[1].rows;
  title.cells[0].replaceChildren(`Query ${query} `, tokenName(names[query]), ", step by step");
  steps.forEach((line, index) => {
    const [name] = STAGES[index];
    [...line.cells].slice(1).forEach((cell, k) => {
      fillIn(cell, found[name][k], name, found.may[k]);
      cell.classList.toggle("mask-view-key", k === key);
    });
  });
}

/** The numbers of the cell that is looked at: a list of nodes and strings. */
function factsOf(names, found, query, key) {
  const fact = (name, stage) =>
    element("span", {}, `${name} `, element("strong", {}, short(found[stage][key])));
  return [
    `Query ${query} `,
    tokenName(names[query]),
    `, key ${key} `,
    tokenName(names[key]),
    ": ",
    fact("score", "scores"),
    " ",
    fact("+ mask", "mask"),
    " ",
    fact("= sum", "sums"),
    ", ",
    fact("weight", "weights"),
  ];
}

/** The numbers of one stage. */
function fillNumbers(cells, queries, stage) {
  cells.forEach((line, query) => {
    const { may, [stage]: values } = queries[query];
    line.forEach((button, key) => {
      fillIn(button, values[key], stage, may[key]);
      button.setAttribute(
        "aria-label",
        `${button.textContent}, query ${query}, key ${key}${may[key] ? "" : ", forbidden"}`,
      );
    });
  });
}

/** Where a key leads from a cell: [query, key], which may lie outside; arrows, Home and End. */
function arrowTarget(name, query, key, last) {
  return {
    ArrowLeft: [query, key - 1],
    ArrowRight: [query, key + 1],
    ArrowUp: [query - 1, key],
    ArrowDown: [query + 1, key],
    Home: [query, 0],
    End: [query, last],
  }[name];
}

/** All parts of the page. */
function createView({ boxes, box, switches, stages }) {
  const sentences = element("div");
  const everywhere = element("p", { class: "mask-view-everywhere" });
  const table = element("table", { class: "batch-table" });
  const picked = element("p", { class: "mask-view-picked", "aria-live": "polite" });
  const said = element("p", { class: "mask-view-words", "aria-live": "polite" });
  const root = element(
    "div",
    { class: "course-widget mask-view" },
    ...box.nodes,
    element(
      "div",
      { class: "batch-switches" },
      sentences,
      element("div", { class: "mask-view-boxes" }, ...boxes.map(({ node }) => node)),
    ),
    element("div", { class: "batch-switches" }, ...switches.map(({ node }) => node)),
    element("div", { class: "batch-switches" }, stages),
    everywhere,
    element("div", { class: "batch-scroll" }, table),
    picked,
    said,
    box.status,
  );
  return { root, sentences, everywhere, table, picked, said };
}

function render({ model, el }) {
  const live = model.get("live");
  let stage = FIRST_STAGE;
  let names; // the tokens of the shown sentence, null at padding
  let queries; // for each query its stages, see attend(), and which keys it may look at
  let cells; // [query][key] -> button
  let rowChoice = null;

  const boxes = [numberBox("layer", live, () => box.ask()), numberBox("head", live, () => box.ask())];
  const box = sentenceBox(
    model,
    () => Object.fromEntries(boxes.map(({ input }) => [input.name, Number(input.value)])),
    take,
    () => blamed(boxes),
  );
  const switches = SWITCHES.map((one) => choice(model, ...one, calculate));
  const stages = stageChoice((chosen) => {
    stage = chosen;
    fillCells();
  });
  const view = createView({ boxes, box, switches, stages });
  const { table, said } = view;

  // A trait may be ahead of `shown` or behind it, while both change.
  const chosen = (trait, count = names.length) => Math.min(model.get(trait), count - 1);

  function pick(query, key) {
    if (query !== model.get("query") || key !== model.get("key")) write(model, { query, key });
  }

  table.addEventListener("keydown", (event) => {
    const to = arrowTarget(event.key, chosen("query"), chosen("key"), names.length - 1);
    if (!to) return;
    event.preventDefault();
    cells[to[0]]?.[to[1]]?.focus();
  });

  /** Another sentence or another batch: a new table. */
  function build() {
    const { tokens } = model.get("shown");
    const length = Math.max(...tokens.map((own) => own.length));
    names = placed(tokens[chosen("row", tokens.length)], length, "left");
    const focused = table.contains(document.activeElement);
    cells = cellButtons(length, pick);
    fillTable(table, names, cells);
    calculate();
    if (focused) cells[chosen("query")][chosen("key")].focus();
  }

  /** Another setting: all stages of all queries. */
  function calculate() {
    queries = attended(model, names, chosen("row", model.get("shown").tokens.length));
    view.everywhere.textContent = `Hatched: forbidden. ${maskedEverywhere(queries)}`;
    fillCells();
  }

  function fillCells() {
    fillNumbers(cells, queries, stage);
    point();
  }

  /** The cell that is looked at, and its query step by step. */
  function point() {
    const [query, key] = [chosen("query"), chosen("key")];
    const found = queries[query];
    markCell(table, cells, query, key);
    fillSteps(table, names, found, query, key);
    view.picked.replaceChildren(...factsOf(names, found, query, key));
    const sentence = words(found, model.get("fill"), model.get("dtype"));
    if (said.textContent !== sentence) said.textContent = sentence; // the same again is not read aloud
  }

  /** What the kernel found: another batch, layer or head. */
  function take(typed) {
    const shown = model.get("shown");
    for (const { input, show } of boxes) show(shown[input.name], shown[`${input.name}s`], typed);
    rowChoice?.close();
    rowChoice = sentenceChoice(model, build);
    view.sentences.replaceChildren(rowChoice.node);
    build();
  }

  box.start();
  if (!live)
    box.say("A saved view: all switches work. To type other sentences or take another head, run this cell.");
  el.append(view.root);
  const pointed = ["change:query", "change:key"];
  for (const event of pointed) model.on(event, point);
  return () => {
    for (const event of pointed) model.off(event, point);
    for (const one of [...switches, rowChoice, box]) one.close();
  };
}

export default { render };
