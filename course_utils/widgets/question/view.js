// Quiz and Predict. The questions come in one piece of JSON; what the learner answered is kept in the
// trait `given`, so that every view of the widget shows the same and the kernel can keep it.
import { control, element, uniqueId, write } from "../core/dom.js";

const RIGHT = "✔";
const WRONG = "✘";

function render({ model, el }) {
  const { predict, questions } = JSON.parse(new TextDecoder().decode(model.get("content")));
  const note = element("p", { class: "question-note" });
  const show = predict ? prediction : quizQuestion;
  const parts = questions.map((question, index) =>
    show(question, questions.length > 1 ? `${index + 1}. ` : "", answerStore(model, question.id)),
  );
  const score = element("p", { class: "question-score" });
  const root = element("div", { class: "course-widget course-question" }, ...parts.map((part) => part.node));
  if (!predict && questions.length > 1) root.append(score);
  root.append(note);
  el.append(root);

  function refresh() {
    const given = model.get("given");
    const right = parts.filter((part) => part.refresh() === true).length;
    score.textContent = `${right} of ${questions.length} right`;
    const lost = !model.get("live") && Object.keys(given).length > 0;
    note.textContent = lost ? "Run this cell to have your answers counted." : model.get("note");
  }

  model.on("change:given", refresh);
  model.on("change:note", refresh);
  refresh();
  return () => {
    model.off("change:given", refresh);
    model.off("change:note", refresh);
    root.remove();
  };
}

/** The answer to one question, in the trait `given`. */
function answerStore(model, id) {
  return {
    get: () => model.get("given")[id],
    set(answer) {
      const tries = (model.get("given")[id]?.tries ?? 0) + 1;
      write(model, { given: { ...model.get("given"), [id]: { ...answer, tries } } });
    },
  };
}

// ---- one question of a quiz

function quizQuestion(question, number, answer) {
  const choice = optionList(question);
  const status = element("div", { class: "question-result", role: "status" });
  const button = control("button", { class: "course-action", type: "submit" }, "Check");
  const all = explanations(question);
  const actions = element("p", { class: "question-actions" }, button);
  const node = form(number, question, [choice.node, actions, status, all], () => {
    const value = choice.value();
    if (value) answer.set(value);
    else say(status, "", [choice.prompt]);
  });
  // A new choice is a new try: what was said about the old one goes.
  choice.node.addEventListener("change", () => say(status, "", []));

  let shown = 0;
  function refresh() {
    const given = answer.get();
    if (!given) return false;
    const right = sameSet(given.chosen, keyOf(question));
    if (given.tries !== shown) {
      shown = given.tries;
      choice.show(given);
      say(status, right ? "right" : "wrong", verdict(question, given.chosen, right));
      all.hidden = false;
    }
    return right;
  }
  return { node, refresh };
}

function verdict(question, chosen, right) {
  const lines = chosen.map((position) => {
    const [text, why, good] = question.options[position];
    const mark = good ? RIGHT : WRONG;
    return headed(`${mark} ${question.several ? text : good ? "Right." : "Not this one."}`, why);
  });
  if (question.several && !right) {
    const missing = keyOf(question).filter((position) => !chosen.includes(position)).length;
    lines.push(line(missing ? `${missing} more to find.` : "All right ones are among them, and more."));
  }
  return lines;
}

/** Every option with its explanation, folded; it appears with the first check. */
function explanations(question) {
  const items = question.options.map(([text, why, good]) =>
    element("li", {}, headed(`${good ? RIGHT : WRONG} ${text}`, ""), line(why)),
  );
  const node = element(
    "details",
    {},
    control("summary", {}, "All options explained"),
    element("ul", {}, ...items),
  );
  node.hidden = true;
  return node;
}

// ---- a prediction

function prediction(question, number, answer) {
  const guess = question.options ? optionList(question) : numberField(question);
  const status = element("p", { class: "course-status", role: "status" });
  const button = control("button", { class: "course-action", type: "submit" }, "Commit");
  const actions = element("p", { class: "question-actions" }, button);
  const body = element("div", { class: "question-result" });
  const summary = control("summary", {}, "Compare");
  const compare = element("details", {}, summary, body);
  compare.hidden = true;
  const node = form(number, question, [guess.node, actions, status, compare], () => {
    const value = guess.value();
    if (!value) status.textContent = guess.prompt;
    else if (!answer.get()) {
      answer.set(value);
      summary.focus(); // the button that had the focus is gone
    }
  });

  let shown = false;
  function refresh() {
    const given = answer.get();
    if (given && !shown) {
      shown = true;
      guess.show(given);
      guess.lock();
      actions.remove();
      const found = compared(question, given);
      status.replaceChildren(
        ...headed("Committed:", found.guess).childNodes,
        element("br"),
        "Now run the next cell, then open this to compare.",
      );
      say(body, found.right ? "right" : "wrong", comparison(found));
      compare.hidden = false;
    }
  }
  return { node, refresh };
}

/** Whether the guess is right; the guess and the answer as text, each with its why. */
function compared(question, given) {
  if (!question.options) return comparedNumber(question, given.number);
  const key = keyOf(question);
  const texts = (positions) => positions.map((position) => question.options[position][0]).join(", ");
  const whys = (positions) => positions.map((position) => question.options[position][1]).join(" ");
  return {
    right: sameSet(given.chosen, key),
    guess: texts(given.chosen),
    guessWhy: whys(given.chosen),
    answer: texts(key),
    answerWhy: whys(key),
  };
}

function comparedNumber({ key, tolerance, unit, why, wrong, otherwise }, number) {
  const amount = (value) => `${value.toLocaleString("en-US", { maximumFractionDigits: 6 })} ${unit}`.trim();
  return {
    // The slack is the one of NumberPrediction.is_right.
    right: Math.abs(number - key) <= tolerance + 1e-9 * Math.max(1, Math.abs(key)),
    guess: amount(number),
    guessWhy: wrong.find(([low, high]) => low <= number && number <= high)?.[2] ?? otherwise,
    answer: amount(key),
    answerWhy: why,
  };
}

function comparison({ right, guess, guessWhy, answer, answerWhy }) {
  const exactly = guess === answer ? "" : ` (exactly: ${answer})`;
  if (right) return [headed(`${RIGHT} Right:`, guess + exactly), line(answerWhy)];
  return [
    headed(`${WRONG} Your guess:`, guess),
    line(guessWhy),
    headed(`${RIGHT} The answer:`, answer),
    line(answerWhy),
  ];
}

// ---- pieces

function form(number, question, children, submit) {
  function onsubmit(event) {
    event.preventDefault();
    submit();
  }
  // JupyterLab swallows what a browser does by itself for Enter in a field.
  function onkeydown(event) {
    if (event.key === "Enter" && event.target.localName === "input") onsubmit(event);
  }
  const legend = element("legend", {}, ...rich(number + question.text));
  return element(
    "form",
    { novalidate: true, onsubmit, onkeydown },
    element("fieldset", {}, legend, ...children),
  );
}

// A list of options and a field for a number have the same members: `value()` is the answer or null,
// `prompt` says what is missing, `show(answer)` sets the controls, `lock()` ends their use.

/** The options as native radio buttons or checkboxes. */
function optionList(question) {
  const name = uniqueId();
  const inputs = question.options.map(() =>
    control("input", { type: question.several ? "checkbox" : "radio", name }),
  );
  const rows = question.options.map(([text], position) =>
    element("label", { class: "question-option" }, inputs[position], element("span", {}, ...rich(text))),
  );
  const chosen = () => inputs.flatMap((input, position) => (input.checked ? [position] : []));
  return {
    node: element("div", { class: "question-options" }, ...rows),
    prompt: question.several ? "Choose one or more first." : "Choose one first.",
    value: () => (chosen().length ? { chosen: chosen() } : null),
    show: (answer) => inputs.forEach((input, position) => (input.checked = answer.chosen.includes(position))),
    lock: () => inputs.forEach((input) => (input.disabled = true)),
  };
}

function numberField({ unit }) {
  const input = control("input", {
    type: "number",
    step: "any",
    autocomplete: "off",
    class: "question-number",
  });
  return {
    node: element(
      "label",
      { class: "question-option" },
      "Your guess: ",
      input,
      element("span", {}, ...rich(unit)),
    ),
    prompt: "Type a number first.",
    value: () => (Number.isFinite(input.valueAsNumber) ? { number: input.valueAsNumber } : null),
    show: (answer) => (input.value = answer.number),
    lock: () => (input.readOnly = true),
  };
}

/** Put lines into a result, with the colour of "right" or "wrong". */
function say(place, outcome, lines) {
  place.dataset.outcome = outcome;
  place.replaceChildren(...lines);
}

const headed = (head, text) => element("p", {}, element("strong", {}, ...rich(head)), " ", ...rich(text));

const line = (text) => element("p", {}, ...rich(text));

/** Text with `code` between backticks, as text nodes and code elements. */
function rich(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(/(`+)(.+?)\1(?!`)/gs)) {
    nodes.push(text.slice(end, match.index), element("code", {}, match[2]));
    end = match.index + match[0].length;
  }
  return [...nodes, text.slice(end)];
}

const keyOf = (question) => question.options.flatMap(([, , good], position) => (good ? [position] : []));

const sameSet = (one, other) => one.length === other.length && one.every((item) => other.includes(item));

export default { render };
