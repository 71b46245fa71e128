import { arrowKeys, connect, control, element, scrolling, uniqueId } from "../core/dom.js";
import { percent, roughly, whole } from "../core/numbers.js";
import { afterTyping } from "../core/typing.js";

// The classes of probability, each with the lowest that belongs to it.
const CLASSES = [
  [0.5, "50 % or more"],
  [0.1, "10 to 50 %"],
  [0.01, "1 to 10 %"],
  [0.001, "0.1 to 1 %"],
  [0, "under 0.1 %"],
];

function bitsText(bits) {
  return Number.isFinite(bits) ? bits.toFixed(2) : "∞";
}

/** A perplexity with three digits that count. */
function threeDigits(number) {
  if (number === Infinity) return "∞";
  return number < 1e9 ? roughly.format(number) : number.toExponential(2);
}

/** What the page goes by: for each token its label, its probability and surprise, null for the first. */
function scored({ tokens, labels }) {
  return tokens.map(({ id, rank, bits, top }) => {
    const surprise = rank === null ? null : (bits ?? Infinity);
    const prob = surprise === null ? null : 2 ** -surprise;
    const level = prob === null ? null : CLASSES.findIndex(([lowest]) => prob >= lowest);
    const expected = top.map(([other, share]) => ({ id: other, label: labels[other], share }));
    return { id, label: labels[id], rank, surprise, prob, level, expected };
  });
}

/** The tokens that the model held most likely at a place; the one that stands there is marked. */
function runnersUp({ id, label, rank, prob, expected }) {
  const row = (place, one, own) => {
    const bar = element("span", { class: "scored-text-bar" });
    bar.style.width = `${100 * one.share}%`;
    return element(
      "tr",
      { class: own ? "scored-text-own" : null },
      element("td", {}, whole.format(place)),
      element("td", {}, element("bdi", { title: one.label }, one.label), own ? " (in the text)" : ""),
      element("td", {}, percent(one.share)),
      element("td", { class: "scored-text-track", "aria-hidden": "true" }, bar),
    );
  };
  const rows = expected.map((one, at) => row(at + 1, one, one.id === id));
  if (!expected.some((one) => one.id === id)) rows.push(row(rank, { label, share: prob }, true));
  const head = ["Rank", "Token", "Probability"].map((name) => element("th", { scope: "col" }, name));
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...head, element("td"))),
    element("tbody", {}, ...rows),
  );
}

/** What is known of one place in the text. */
function details(token, at, added) {
  const name = element("strong", {}, element("bdi", {}, token.label));
  if (token.rank === null) {
    const why = added
      ? " was put before the text by the tokenizer. Nothing stands before it, so it has no probability."
      : " is the first token. Nothing stands before it, so it has no probability.";
    return [element("p", {}, name, why)];
  }
  return [
    element(
      "p",
      {},
      name,
      `, token ${at + 1}, id ${token.id}: probability ${percent(token.prob)}, surprise ${bitsText(token.surprise)} bits`,
    ),
    runnersUp(token),
  ];
}

function allTokens(tokens) {
  const row = (tag, cells) =>
    element("tr", {}, ...cells.map((cell) => element(tag, tag === "th" ? { scope: "col" } : {}, cell)));
  const body = tokens.map((token, at) => {
    const numbers =
      token.rank === null
        ? ["none", "none", "none"]
        : [percent(token.prob), bitsText(token.surprise), whole.format(token.rank)];
    return row("td", [String(at + 1), element("bdi", {}, token.label), ...numbers]);
  });
  const head = row("th", ["Place", "Token", "Probability", "Surprise, bits", "Rank"]);
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

/** All parts of the page. */
function createView(live) {
  const id = uniqueId();
  const view = {
    box: control("textarea", { id, rows: 1, dir: "auto", spellcheck: "false", readonly: !live }),
    wrong: element("p", { class: "course-wrong", role: "alert" }),
    chips: element("div", {
      class: "scored-text-tokens",
      role: "group",
      "aria-label": "The tokens of the text",
    }),
    panel: element("div", { class: "scored-text-details", "aria-live": "polite" }),
    note: element("p", { class: "scored-text-note" }),
    numbers: scrolling("scored-text-scroll", "All tokens"),
    status: element("p", { class: "course-status", role: "status" }),
    figures: Object.fromEntries(
      ["scored", "total", "mean", "perplexity"].map((name) => [
        name,
        element("dd", { class: `scored-text-${name}` }),
      ]),
    ),
  };
  const { box, wrong, chips, panel, note, numbers, status, figures } = view;
  arrowKeys(chips, "button");
  const figure = (name, label) => element("div", {}, element("dt", {}, label), figures[name]);
  view.root = element(
    "div",
    { class: "course-widget scored-text" },
    element("label", { for: id }, "Text"),
    box,
    wrong,
    chips,
    legend(),
    panel,
    element(
      "dl",
      { class: "scored-text-figures" },
      figure("scored", "Tokens scored"),
      figure("total", "Surprise in all"),
      figure("mean", "Surprise a token"),
      figure("perplexity", "Perplexity"),
    ),
    note,
    element("details", {}, control("summary", {}, "All tokens as a table"), numbers),
    status,
  );
  return view;
}

/** The classes of probability. */
function legend() {
  const swatch = (name, label) =>
    element(
      "span",
      {},
      element("span", { class: `scored-text-token scored-text-${name}`, "aria-hidden": "true" }, "ab"),
      label,
    );
  return element(
    "p",
    { class: "scored-text-legend" },
    "Probability: ",
    ...CLASSES.map(([, label], level) => swatch(level, label)),
    swatch("first", "none"),
  );
}

/** The text as chips, a button a token; the one that had the focus keeps it. */
function drawChips({ chips, panel }, tokens, added) {
  const point = (button, place) => {
    for (const other of chips.querySelectorAll("button")) other.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    panel.replaceChildren(...details(tokens[place], place, added));
  };
  const rest = tokens.slice(1);
  const most = tokens.indexOf(rest.reduce((one, other) => (other.surprise > one.surprise ? other : one)));
  const focused = [...chips.querySelectorAll("button")].indexOf(document.activeElement);
  const at = focused >= 0 ? Math.min(focused, tokens.length - 1) : most;
  const buttons = tokens.map((token, place) => {
    const show = () => point(button, place);
    const button = control(
      "button",
      {
        type: "button",
        tabindex: place === at ? 0 : -1,
        class: `scored-text-token scored-text-${token.level ?? "first"}`,
        onfocus: show,
        onmouseenter: show,
        onclick: () => button.focus(), // Safari does not focus a clicked button
      },
      element("bdi", {}, token.label),
    );
    return button;
  });
  chips.replaceChildren(
    ...buttons.flatMap((button, place) =>
      tokens[place].label.endsWith("⏎")
        ? [button, element("span", { class: "scored-text-break" })]
        : [button],
    ),
  );
  if (focused >= 0) buttons[at].focus();
  else point(buttons[at], at);
}

/** The figures of the whole text. */
function drawFigures({ figures, note }, tokens, added) {
  const rest = tokens.slice(1);
  const total = rest.reduce((sum, { surprise }) => sum + surprise, 0);
  const mean = total / rest.length;
  const about = threeDigits(2 ** mean);
  figures.scored.textContent = `${rest.length} of ${tokens.length}`;
  figures.total.textContent = `${bitsText(total)} bits`;
  figures.mean.textContent = `${bitsText(mean)} bits`;
  figures.perplexity.textContent = about;
  note.textContent =
    `The first token has no probability${added ? ": the tokenizer puts it before every text" : ""}. ` +
    (total === Infinity
      ? "The model holds a token of this text impossible."
      : `Perplexity ${about}: 2 to the power of ${bitsText(mean)}. On average the model was as unsure as ` +
        `among ${about} equally likely tokens.`);
}

function render({ model, el }) {
  const live = model.get("live");
  const view = createView(live);
  const { box, wrong } = view;
  const say = (sentence) => (view.status.textContent = sentence);
  const line = connect(model, say);
  const typing = afterTyping(ask);
  let edited = false; // the box holds a text that has not been answered, or was refused
  let drawn = null;

  function ask() {
    line.ask({ text: box.value }, ({ error }) => {
      box.setAttribute("aria-invalid", String(Boolean(error)));
      wrong.textContent = error ?? "";
      if (!error) edited = typing.waiting();
      take(true); // the answer to a request that this one overtook may have come before
    });
  }
  box.addEventListener("input", () => {
    edited = true;
    typing.restart();
  });

  /** @param {boolean} typed whether the page asked for what came, and not Python */
  function take(typed) {
    const shown = model.get("shown");
    if (line.overtaken() || shown === drawn) return;
    drawn = shown;
    if (!typed || !edited) {
      edited = false;
      box.value = shown.text;
      box.setAttribute("aria-invalid", "false");
      wrong.textContent = "";
    }
    const tokens = scored(shown);
    drawChips(view, tokens, shown.added);
    drawFigures(view, tokens, shown.added);
    view.numbers.replaceChildren(allTokens(tokens));
  }

  take(false);
  if (!live)
    say("A saved view: point at a token, or move with the arrow keys. To type another text, run this cell.");
  el.append(view.root);
  const changed = () => take(line.waiting() || typing.waiting());
  model.on("change:shown", changed);
  return () => {
    typing.stop();
    model.off("change:shown", changed);
    line.close();
  };
}

export default { render };
