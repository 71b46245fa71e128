import { arrowKeys, connect, control, element, uniqueId } from "../core/dom.js";
import { percent } from "../core/numbers.js";
import { afterTyping } from "../core/typing.js";

const ROLES = ["system", "user", "assistant"];
const WAYS = {
  template: "apply_chat_template",
  text: "its text, then the tokenizer",
  apart: "contents encoded apart",
};

// Of the legend's examples, in its order.
const LOOKS = [
  "chat-tokens-content",
  "chat-tokens-frame",
  "chat-tokens-frame chat-tokens-special",
  "chat-tokens-content chat-tokens-target",
  "chat-tokens-content chat-tokens-special chat-tokens-alarm",
];

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** What is known of one token. */
function describe(token) {
  if (token.role === "tokenizer") return "added by the tokenizer";
  if (token.role === "template") return "written by the template on its own";
  const whose = `the ${token.role}'s turn`;
  if (token.content && token.special) return `a marker that the ${token.role}'s text brought in`;
  if (token.content) return `what the ${token.role} says`;
  return `the frame of ${whose}`;
}

/** One message to edit: its role, its content, a button that removes it. */
function editor(one, number, live, changed, remove) {
  const roles = ROLES.includes(one.role) ? ROLES : [...ROLES, one.role];
  const role = control(
    "select",
    { "aria-label": `Role of message ${number}`, disabled: !live, onchange: changed },
    ...roles.map((name) => element("option", { value: name, selected: name === one.role }, name)),
  );
  const content = control("textarea", {
    "aria-label": `Message ${number}`,
    rows: 1,
    dir: "auto",
    spellcheck: "false",
    readonly: !live,
    oninput: changed,
  });
  content.value = one.content;
  const button = control(
    "button",
    {
      type: "button",
      class: "course-action",
      "aria-label": `Remove message ${number}`,
      disabled: !live,
      onclick: remove,
    },
    "×",
  );
  const node = element("div", { class: "chat-tokens-message" }, role, content, button);
  return { node, button, value: () => ({ role: role.value, content: content.value }) };
}

/** One tokenizer: its counts, a row of chips a turn, what is known of the chip last pointed at. */
function column() {
  const heading = uniqueId();
  const name = element("strong", { id: heading });
  const counts = element("span", {});
  const turns = element("div", { class: "chat-tokens-turns", role: "group", "aria-labelledby": heading });
  const panel = element("p", { class: "chat-tokens-details", "aria-live": "polite" });
  const node = element(
    "section",
    { "aria-labelledby": heading },
    element("p", { class: "chat-tokens-heading" }, name, counts),
    turns,
    panel,
  );
  arrowKeys(turns, "button");

  function point(button, token) {
    for (const other of turns.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    panel.replaceChildren(
      element("code", {}, element("bdi", {}, token.text)),
      ` id ${token.id}: ${describe(token)}; ${token.target ? "a training target" : "no training target"}`,
    );
  }

  function chip(token, first) {
    const kind = token.role === "tokenizer" || (token.content && token.special) ? "alarm" : "plain";
    const role = ROLES.includes(token.role) ? token.role : "other";
    const button = control(
      "button",
      {
        type: "button",
        tabindex: first ? 0 : -1,
        class: [
          "chat-tokens-chip",
          `chat-tokens-${role}`,
          `chat-tokens-${token.content ? "content" : "frame"}`,
          `chat-tokens-${kind}`,
          token.special ? "chat-tokens-special" : "",
          token.target ? "chat-tokens-target" : "",
        ].join(" "),
        onfocus: () => point(button, token),
        onmouseenter: () => point(button, token),
        onclick: () => button.focus(), // Safari does not focus a clicked button
      },
      element("bdi", {}, token.text),
    );
    return button;
  }

  function show(one) {
    name.textContent = one.name;
    counts.textContent = one.wrong
      ? one.wrong
      : ` ${count(one.tokens.length, "token")}, ${count(one.targets, "training target")}`;
    turns.replaceChildren();
    panel.replaceChildren();
    let row = null;
    let last = null;
    one.tokens.forEach((token, at) => {
      if (last === null || token.turn !== last.turn || token.role !== last.role) {
        row = element("div", { class: "chat-tokens-row" });
        turns.append(
          element(
            "div",
            { class: "chat-tokens-turn" },
            element("span", { class: "chat-tokens-role" }, token.role),
            row,
          ),
        );
      }
      row.append(chip(token, at === 0));
      last = token;
    });
    if (one.tokens.length > 0) point(turns.querySelector("button"), one.tokens[0]);
  }
  return { node, show };
}

/** The likeliest next tokens, without the generation prompt and with it, as two bars each. */
function nextTokens(rows) {
  const bar = (share, kind) =>
    element(
      "td",
      {},
      element(
        "span",
        { class: "chat-tokens-bar" },
        element("span", { class: `chat-tokens-${kind}`, style: `width: ${(100 * share).toFixed(2)}%` }),
      ),
      element("span", { class: "chat-tokens-share" }, percent(share)),
    );
  const head = ["Next token", "without generation prompt", "with"].map((text) =>
    element("th", { scope: "col" }, text),
  );
  return [
    element("thead", {}, element("tr", {}, ...head)),
    element(
      "tbody",
      {},
      ...rows.map(([text, without, asked]) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, element("bdi", {}, text)),
          bar(without, "without"),
          bar(asked, "with"),
        ),
      ),
    ),
  ];
}

/** The controls under the messages: how ids are made, and the generation prompt. */
function switches(live, changed) {
  const group = uniqueId();
  const radios = Object.entries(WAYS).map(([value, label]) => ({
    label,
    input: control("input", { type: "radio", name: group, value, disabled: !live, onchange: changed }),
  }));
  const asked = control("input", { type: "checkbox", disabled: !live, onchange: changed });
  const node = element(
    "div",
    { class: "chat-tokens-switches" },
    element("label", {}, asked, "Generation prompt"),
    element(
      "fieldset",
      {},
      element("legend", {}, "Ids by"),
      ...radios.map(({ input, label }) => element("label", {}, input, label)),
    ),
  );
  return {
    node,
    values: () => ({
      generation_prompt: asked.checked,
      way: radios.find(({ input }) => input.checked).input.value,
    }),
    show(shown) {
      asked.checked = shown.generation_prompt;
      for (const { input } of radios) input.checked = input.value === shown.way;
    },
  };
}

function render({ model, el }) {
  const live = model.get("live");
  const status = element("p", { class: "course-status", role: "status" });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const say = (sentence) => (status.textContent = sentence);
  const line = connect(model, say);
  const typing = afterTyping(ask);
  const messages = element("div", { class: "chat-tokens-messages", role: "group", "aria-label": "Messages" });
  const controls = switches(live, ask);
  const table = element("table", { class: "chat-tokens-next" });
  const columns = model.get("shown").columns.map(column);
  let editors = [];
  let shown = null; // what is drawn
  let edited = false; // the messages hold what has not been answered, or was refused

  function ask() {
    typing.stop();
    line.ask({ messages: editors.map((one) => one.value()), ...controls.values() }, ({ error }) => {
      wrong.textContent = error ?? "";
      edited = Boolean(error) || typing.waiting();
      if (shown !== model.get("shown")) take();
    });
  }
  function changed() {
    edited = true;
    typing.restart();
  }

  function edit(list) {
    editors = list.map((one, at) =>
      editor(one, at + 1, live, changed, () => {
        edit(editors.filter((_, other) => other !== at).map((other) => other.value()));
        (editors[Math.min(at, editors.length - 1)]?.button ?? add).focus();
        edited = true;
        ask();
      }),
    );
    messages.replaceChildren(...editors.map((one) => one.node));
  }
  const add = control(
    "button",
    {
      type: "button",
      class: "course-action",
      disabled: !live,
      onclick() {
        const list = editors.map((one) => one.value());
        const role = list.at(-1)?.role === "user" ? "assistant" : "user";
        edit([...list, { role, content: "" }]);
        messages.lastElementChild.querySelector("textarea").focus();
        edited = true;
        ask();
      },
    },
    "Add a message",
  );

  function take() {
    if (line.overtaken()) return;
    shown = model.get("shown");
    if (!edited && JSON.stringify(shown.messages) !== JSON.stringify(editors.map((one) => one.value())))
      edit(shown.messages);
    controls.show(shown);
    columns.forEach((one, index) => one.show(shown.columns[index]));
    table.replaceChildren(...nextTokens(shown.next));
  }

  take();
  if (!live) say("A saved view: point at a token. To type another conversation, run this cell.");
  const legend = [
    "what a role says",
    "the frame",
    "special token",
    "training target",
    "marker in a text",
  ].map((text, at) =>
    element(
      "span",
      {},
      element(
        "span",
        {
          class: `chat-tokens-chip chat-tokens-assistant ${LOOKS[at]}`,
          "aria-hidden": "true",
        },
        "ab",
      ),
      text,
    ),
  );
  el.append(
    element(
      "div",
      { class: "course-widget chat-tokens" },
      messages,
      add,
      controls.node,
      wrong,
      element("div", { class: "chat-tokens-columns" }, ...columns.map((one) => one.node)),
      element("p", { class: "chat-tokens-legend" }, ...legend),
      element("div", { class: "chat-tokens-scroll" }, table),
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
