// What the views of a padded batch share: the sentences' box with its line to the kernel, and switches.
import { connect, control, element, uniqueId, write } from "./dom.js";
import { afterTyping } from "./typing.js";

/**
 * The learner's sentences, one a line, and the line to the kernel. The kernel answers with the trait `shown`.
 * @param {object} model anywidget's model
 * @param {() => object} request what the kernel is told besides the sentences
 * @param {(typed: boolean) => void} draw called when `shown` is to be drawn; `typed` if the page asked for it
 * @param {() => boolean} blamed called after each answer; true if a refusal is about another control
 */
export function sentenceBox(model, request, draw, blamed = () => false) {
  const live = model.get("live");
  const id = uniqueId();
  const box = control("textarea", { id, rows: 1, dir: "auto", spellcheck: "false", readonly: !live });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const status = element("p", { class: "course-status", role: "status" });
  const say = (text) => (status.textContent = text);
  const line = connect(model, say);
  const typing = afterTyping(ask);
  let refusal = ""; // why the kernel refused what the box holds; other sentences are shown then
  let drawn = null;

  /** A line that has only been begun, at the end, is not a sentence yet. */
  const lines = () => {
    const text = box.value.replace(/\n+$/, "");
    return text === "" ? [] : text.split("\n");
  };

  function refuse(sentence) {
    refusal = sentence;
    wrong.textContent = sentence;
    box.setAttribute("aria-invalid", String(sentence !== ""));
  }

  function ask() {
    typing.stop();
    const typed = refusal === "";
    line.ask({ sentences: typed ? lines() : model.get("shown").sentences, ...request() }, ({ error }) => {
      if (!blamed() && typed && !typing.waiting()) refuse(error ?? "");
      else wrong.textContent = error ?? refusal;
      // An answer that was overtaken may have been the same, so that this one changed no trait.
      drawNew(true);
    });
  }

  const fit = () => (box.rows = box.value.split("\n").length);
  box.addEventListener("input", () => {
    fit();
    refusal = "";
    typing.restart();
  });

  function drawNew(typed) {
    if (line.overtaken() || drawn === model.get("shown")) return;
    drawn = model.get("shown");
    if (!typed) {
      box.value = drawn.sentences.join("\n");
      fit();
      refuse("");
    }
    draw(typed);
  }

  const changed = () => drawNew(line.waiting());
  model.on("change:shown", changed);
  return {
    nodes: [element("label", { for: id }, "Sentences, one a line"), box, wrong],
    status,
    say,
    ask,
    /** Draw for the first time. */
    start: () => drawNew(false),
    close() {
      typing.stop();
      model.off("change:shown", changed);
      line.close();
    },
  };
}

/**
 * Radio buttons for a trait.
 * @param {[value: any, label: string|Node][]} options
 * @param {() => void} changed called when the trait has changed, by a click or from Python
 */
export function choice(model, trait, legend, options, changed) {
  const name = uniqueId();
  const inputs = [];
  const node = element("fieldset", { class: "batch-switch" }, element("legend", {}, legend));
  for (const [value, label] of options) {
    const input = control("input", {
      type: "radio",
      name,
      value,
      onchange: () => write(model, { [trait]: value }),
    });
    inputs.push(input);
    node.append(element("label", {}, input, element("bdi", {}, label)));
  }
  const show = () => {
    for (const input of inputs) input.checked = input.value === String(model.get(trait));
  };
  return follow(model, trait, node, show, changed);
}

/** A check box for a trait. */
export function tick(model, trait, label, changed) {
  const input = control("input", {
    type: "checkbox",
    onchange: () => write(model, { [trait]: input.checked }),
  });
  const show = () => (input.checked = model.get(trait));
  return follow(model, trait, element("label", {}, input, label), show, changed);
}

function follow(model, trait, node, show, changed) {
  const listener = () => {
    show();
    changed();
  };
  model.on(`change:${trait}`, listener);
  show();
  return { node, close: () => model.off(`change:${trait}`, listener) };
}

/** One row of the batch: the values of its tokens at their places, null at padding. */
export function placed(values, length, side) {
  const padding = Array(length - values.length).fill(null);
  return side === "left" ? [...padding, ...values] : [...values, ...padding];
}

/** The name of a place. @param {string|null} text of its token, null for padding */
export function tokenName(text) {
  return element("bdi", { class: "batch-token", title: text }, text ?? "pad");
}

/** Two decimals, a tie to the even one, as Python prints it: 0.125 is "0.12". */
export function twoDecimals(number) {
  const tie = Number.isInteger(8 * number) && (100 * number) % 1 === 0.5; // only eighths can be exact ties
  return tie ? ((2 * Math.round(50 * number)) / 100).toFixed(2) : number.toFixed(2);
}
