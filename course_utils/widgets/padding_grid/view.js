import { choice, placed, sentenceBox, tick, tokenName, twoDecimals } from "../core/batch.js";
import { element, scrolling } from "../core/dom.js";

/** @param {number} share 0 to 1 */
function percent(share) {
  return share < 0.0001 ? "<0.01" : (100 * share).toFixed(2);
}

/** The batch: for each row its tokens with their ids, the mask and the positions that the model goes by. */
function gridTable({ tokens, pad, counts }, { side, give_mask, give_positions }) {
  const length = Math.max(...tokens.map((own) => own.length));
  const line = (name, given, values) =>
    element(
      "tr",
      {},
      element(
        "th",
        { scope: "row" },
        name,
        given ? "" : element("span", { class: "padding-grid-note" }, "not given"),
      ),
      ...values.map((value) =>
        element("td", { class: given ? null : "padding-grid-assumed" }, String(value)),
      ),
    );
  const rows = tokens.map((own, number) => {
    const row = placed(own, length, side);
    const first = row.findIndex((token) => token !== null);
    const last = first + own.length - 1;
    const place = (token, at) => {
      const [id, text] = token ?? [pad[0], null];
      const look = `padding-grid-place${text === null ? " batch-hatched" : ""}${at === last ? " padding-grid-read" : ""}`;
      return element(
        "td",
        { class: look },
        tokenName(text),
        element("span", { class: "padding-grid-id" }, String(id)),
      );
    };
    const mask = row.map((token) => (give_mask && token === null ? 0 : 1));
    const byTokens = give_positions || (counts === "tokens" && give_mask);
    const positions = row.map((token, at) => (byTokens ? (token === null ? 0 : at - first) : at));
    return element(
      "tbody",
      {},
      element("tr", {}, element("th", { scope: "row" }, `Row ${number}`), ...row.map(place)),
      line("mask", give_mask, mask),
      line("positions", give_positions, positions),
    );
  });
  const places = Array.from({ length }, (_, at) => element("th", { scope: "col" }, String(at)));
  const head = element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "index"), ...places));
  return element("table", { class: "batch-table" }, head, ...rows);
}

/** What one row's answer is, beside the answer to the sentence alone. */
function comparison(number, own, { distance, top }) {
  const bar = element("span", { class: "padding-grid-bar" });
  bar.style.width = `${100 * distance}%`;
  const likely = ([text, share]) =>
    element(
      "td",
      {},
      element("span", { class: "padding-grid-pair" }, element("bdi", { title: text }, text), percent(share)),
    );
  return element(
    "section",
    { "aria-label": `Row ${number}` },
    element(
      "p",
      {},
      element("span", {}, `Row ${number}: total variation`),
      element("strong", {}, twoDecimals(distance)),
    ),
    element("div", { class: "padding-grid-track", "aria-hidden": "true" }, bar),
    element(
      "table",
      {},
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("th", { scope: "col" }, "Alone, %"),
          element("th", { scope: "col" }, "In this batch, %"),
        ),
      ),
      element("tbody", {}, ...own.map((pair, rank) => element("tr", {}, likely(pair), likely(top[rank])))),
    ),
  );
}

/** What the answers come to, in words. */
function verdict(answers) {
  const distances = answers.map((answer) => answer.distance);
  const off = distances.filter((distance) => distance >= 0.005).length;
  const count =
    distances.length === 1
      ? "The answer"
      : off === 0
        ? `All ${distances.length} answers`
        : `${off} of ${distances.length} answers`;
  if (off === 0) return `${count} ${distances.length === 1 ? "is that" : "are those"} of the sentence alone.`;
  return `${count} ${off === 1 ? "differs" : "differ"} from the answer to the sentence alone, by a total variation of up to ${twoDecimals(Math.max(...distances))}.`;
}

/** What the looks of the batch mean: a list of nodes and strings. */
function legendOf({ tokens, pad }, { give_mask, give_positions }) {
  const padded = new Set(tokens.map((row) => row.length)).size > 1;
  return [
    "Framed: a row’s last token, where its answer is read.",
    ...(padded
      ? [" Hatched: padding, ", element("code", {}, element("bdi", {}, pad[1])), `, id ${pad[0]}.`]
      : []),
    give_mask && give_positions ? "" : " Italics: not given, so this is what the model goes by.",
  ];
}

const SAVED = "A saved view: the switches work. To type other sentences, run this cell.";
const SIDES = ["left", "right"].map((side) => [side, side]);
const NOT_SAVED = "This page holds no answer for these switches: run this cell to ask the model.";

function render({ model, el }) {
  const live = model.get("live");
  const settings = () =>
    Object.fromEntries(["side", "give_mask", "give_positions"].map((name) => [name, model.get(name)]));
  const box = sentenceBox(
    model,
    () => ({ model_name: model.get("model_name"), case: Object.values(settings()) }),
    draw,
  );
  const names = model.get("shown").models.map(({ name }) => [name, name]);
  const switches = [
    choice(model, "model_name", "Model", names, draw),
    choice(model, "side", "Padding", SIDES, draw),
  ];
  const ticks = [
    tick(model, "give_mask", "attention mask", draw),
    tick(model, "give_positions", "position ids", draw),
  ];
  const given = element(
    "fieldset",
    { class: "batch-switch" },
    element("legend", {}, "Given to the model"),
    ...ticks.map(({ node }) => node),
  );
  const grid = element("div");
  const legend = element("p", { class: "padding-grid-legend" });
  const said = element("p", { class: "padding-grid-verdict", "aria-live": "polite" });
  const rows = element("div", { class: "padding-grid-rows" });

  const current = () => model.get("shown").models.find(({ name }) => name === model.get("model_name"));
  const answers = () => {
    const { side, give_mask, give_positions } = settings();
    return current().answers[`${side} ${Number(give_mask)}${Number(give_positions)}`];
  };

  /** What is known is drawn at once; the rest is asked. */
  function draw() {
    const one = current();
    const found = answers();
    grid.replaceChildren(scrolling("batch-scroll", "The batch", gridTable(one, settings())));
    legend.replaceChildren(...legendOf(one, settings()));
    rows.toggleAttribute("data-old", !found);
    said.textContent = found ? verdict(found) : live ? "The model is asked…" : "";
    if (found)
      rows.replaceChildren(...found.map((answer, number) => comparison(number, one.alone[number], answer)));
    if (!live) box.say(found ? SAVED : NOT_SAVED);
    else if (!found) box.ask();
    if (!live && !found) rows.replaceChildren();
  }

  box.start();
  el.append(
    element(
      "div",
      { class: "course-widget padding-grid" },
      ...box.nodes,
      element("div", { class: "batch-switches" }, ...switches.map(({ node }) => node), given),
      grid,
      legend,
      said,
      rows,
      box.status,
    ),
  );
  return () => {
    for (const one of [...switches, ...ticks, box]) one.close();
  };
}

export default { render };
