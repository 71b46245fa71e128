import { arrowKeys, connect, control, element, uniqueId } from "../core/dom.js";
import { whole } from "../core/numbers.js";
import { afterTyping } from "../core/typing.js";

const TYPING_PAUSE = 150; // milliseconds after the last key before the kernel is asked
const COLORS = 4;

function count(number, noun) {
  return `${whole.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** What is known of one token: id, spelling, bytes, merges. */
function details(token) {
  const fact = (name, ...value) => element("div", {}, element("dt", {}, name), element("dd", {}, ...value));
  const code = (text) => element("code", {}, element("bdi", {}, text));
  const how = token.special
    ? [element("p", {}, "Special token: cut out of the text as a whole, before any merge.")]
    : token.merges.length === 0
      ? [
          element(
            "p",
            {},
            token.bytes.includes(" ")
              ? "In the vocabulary as it stands: no merge was needed."
              : "One byte, no merge.",
          ),
        ]
      : [
          element(
            "p",
            {},
            token.merges.length === 1
              ? "1 merge:"
              : `${token.merges.length} merges, in the order they were made:`,
          ),
          mergeTable(token.merges, code),
        ];
  return [
    element(
      "dl",
      {},
      fact("Token", code(token.text)),
      fact("Id", String(token.id)),
      fact("Spelled", code(token.symbol)),
      fact("Bytes (hex)", code(token.bytes)),
    ),
    ...how,
  ];
}

function mergeTable(merges, code) {
  const cells = (tag, ...values) => element("tr", {}, ...values.map((value) => element(tag, {}, value)));
  return element(
    "table",
    {},
    element("thead", {}, cells("th", "Left", "Right", "Merged", "Rank")),
    element(
      "tbody",
      {},
      ...merges.map(([left, right, result, rank]) =>
        cells("td", code(left), code(right), code(result), whole.format(rank)),
      ),
    ),
  );
}

/** One tokenizer: its name and counts, its chips, the details of the chip that was last pointed at. */
function column(live) {
  const heading = uniqueId();
  const name = element("span", { class: "token-chips-name", id: heading });
  const counts = element("span", { class: "token-chips-counts" });
  const chips = element("div", { class: "token-chips-row", role: "group", "aria-labelledby": heading });
  const more = element("p");
  const panel = element("div", { class: "token-chips-details", "aria-live": "polite" });
  const node = element(
    "section",
    { "aria-labelledby": heading },
    element("p", {}, name, counts),
    chips,
    more,
    panel,
  );
  arrowKeys(chips, "button");

  function point(button, token) {
    for (const other of chips.children) other.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    panel.replaceChildren(...details(token));
  }

  function show(tokenizer, shown) {
    const focused = [...chips.children].indexOf(document.activeElement);
    name.textContent = tokenizer.name;
    const parts = `the first ${tokenizer.tokens.length} of ${count(tokenizer.count, "token")}.`;
    more.hidden = tokenizer.tokens.length === tokenizer.count;
    more.textContent = live ? `Shown: ${parts}` : `Saved: ${parts} To see more, run this cell.`;
    counts.textContent = [
      count(tokenizer.count, "token"),
      count(shown.bytes, "byte"),
      count(shown.characters, "character"),
    ].join(" · ");
    chips.replaceChildren(
      ...tokenizer.tokens.map((token, index) => {
        const button = control(
          "button",
          {
            type: "button",
            tabindex: index === 0 ? 0 : -1,
            class: [
              "token-chip",
              `token-chip-${index % COLORS}`,
              token.special ? "token-chip-special" : "",
              index > 0 && tokenizer.tokens[index - 1].piece !== token.piece ? "token-chip-piece" : "",
            ].join(" "),
            onfocus: () => point(button, token),
            onmouseenter: () => point(button, token),
            onclick: () => button.focus(), // Safari does not focus a clicked button
          },
          element("bdi", {}, token.text),
        );
        return button;
      }),
    );
    panel.replaceChildren();
    if (tokenizer.tokens.length === 0)
      chips.append(element("p", {}, "No text, no tokens. Type something above."));
    else if (focused >= 0) chips.children[Math.min(focused, tokenizer.tokens.length - 1)].focus();
    else point(chips.firstElementChild, tokenizer.tokens[0]);
  }
  return { node, show };
}

function render({ model, el }) {
  const live = model.get("live");
  const status = element("p", { class: "course-status", role: "status" });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const say = (sentence) => (status.textContent = sentence);
  const line = connect(model, say);
  const textId = uniqueId();
  const text = control("textarea", {
    id: textId,
    rows: 1,
    dir: "auto",
    spellcheck: "false",
    readonly: !live,
  });
  const typing = afterTyping(ask, TYPING_PAUSE);
  let shown = null; // what is drawn
  let edited = false; // the box holds a text that has not been answered, or was refused
  function ask() {
    line.ask({ text: text.value }, ({ error }) => {
      text.setAttribute("aria-invalid", String(Boolean(error)));
      wrong.textContent = error ?? "";
      // An answer that was overtaken may have been the same, so that this one changed no trait.
      if (shown !== model.get("shown")) take();
      if (!error) edited = typing.waiting();
    });
  }
  text.addEventListener("input", () => {
    edited = true;
    typing.restart();
  });

  const columns = model.get("shown").tokenizers.map(() => column(live));
  function take() {
    if (line.overtaken()) return;
    shown = model.get("shown");
    if (!edited) text.value = shown.text;
    columns.forEach((one, index) => one.show(shown.tokenizers[index], shown));
  }

  take();
  if (!live)
    say("A saved view: point at a chip, or move with the arrow keys. To type another text, run this cell.");
  el.append(
    element(
      "div",
      { class: "course-widget token-chips" },
      element("label", { for: textId }, "Text"),
      text,
      wrong,
      element("div", { class: "token-chips-columns" }, ...columns.map((one) => one.node)),
      status,
    ),
  );
  model.on("change:shown", take);
  return () => {
    typing.stop();
    model.off("change:shown", take);
    line.close();
  };
}

export default { render };
