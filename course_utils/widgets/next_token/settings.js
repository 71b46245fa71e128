// The settings of the next-token widget: its sliders, and in the full set its draws.

import { control, element, uniqueId, write } from "../core/dom.js";
import { percent, roughly, whole } from "../core/numbers.js";

// In the order in which generate() applies them; the full set has those marked `all` too.
const SLIDERS = [
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    min: 0.5,
    max: 2,
    step: 0.05,
    digits: 2,
    off: 1,
    all: true,
  },
  { name: "temperature", label: "Temperature", min: 0.05, max: 3, step: 0.05, digits: 2 },
  { name: "top_k", label: "Top-k", min: 0, max: 200, step: 1, digits: 0, off: 0, filter: "top-k" },
  { name: "top_p", label: "Top-p", min: 0, max: 1, step: 0.01, digits: 2, off: 1, filter: "top-p" },
  { name: "min_p", label: "Min-p", min: 0, max: 1, step: 0.01, digits: 2, off: 0, filter: "min-p" },
  {
    name: "typical_p",
    label: "Typical",
    min: 0.01,
    max: 1,
    step: 0.01,
    digits: 2,
    off: 1,
    filter: "typical",
    all: true,
  },
];
const DRAWS = [0, 1, 100, 1000, 10000];
const MOST_SEED = 2 ** 32 - 1;

/** A number of tokens, said to be approximate where it is. */
export function tokenCount({ tokens, approximate }) {
  return approximate ? `≈ ${roughly.format(tokens)}` : whole.format(tokens);
}

/** "1 token", "≈ 3,290 tokens" */
function tokensOf(step) {
  return `${tokenCount(step)} ${step.tokens === 1 ? "token" : "tokens"}`;
}

/**
 * The sliders. `changed` is called on every move; the traits are written when a slider is released.
 * @returns {{ panel: HTMLElement, values: Object<string, number>, close: () => void,
 *   writeNotes: (steps: Object<string, Step>, seen: number, vocabulary: number) => void }}   the full set shows
 *   below each slider what it does: `steps` of a distribution, `seen` tokens that the text holds
 */
export function sliderPanel(model, changed) {
  const full = model.get("controls") === "all";
  const values = {};
  const notes = {};
  const panel = element("div", {
    class: "next-token-sliders",
    role: "group",
    "aria-label": "Sampling settings, in the order they are applied",
  });
  const shown = SLIDERS.filter(({ all }) => full || !all);
  const listeners = shown.map(({ name, label, min, max, step, digits, off }, number) => {
    const id = uniqueId();
    const value = element("span", { class: "next-token-value", "aria-hidden": "true" }); // read with the slider
    const input = control("input", { type: "range", id, min, max, step, class: `next-token-${name}` });
    const show = (number) => {
      values[name] = number;
      value.textContent = number === off ? "off" : number.toFixed(digits);
      input.setAttribute("aria-valuetext", value.textContent);
    };
    input.addEventListener("input", () => {
      show(Number(input.value));
      changed();
    });
    input.addEventListener("change", () => {
      write(model, { [name]: values[name] });
    });
    const fromPython = () => {
      if (model.get(name) === values[name]) return;
      input.value = model.get(name);
      show(model.get(name));
      changed();
    };
    input.value = model.get(name);
    show(model.get(name));
    model.on(`change:${name}`, fromPython);
    notes[name] = element("span", { class: "next-token-note" });
    panel.append(
      element(
        "div",
        {},
        element("label", { for: id }, full ? `${number + 1}. ${label}` : label),
        ...(full ? [notes[name]] : []),
        value,
        input,
      ),
    );
    return () => model.off(`change:${name}`, fromPython);
  });

  function writeNotes(steps, seen, vocabulary) {
    let before = { from: 0, tokens: vocabulary };
    for (const { name, filter, off } of shown) {
      const step = steps[filter];
      let note = "";
      if (values[name] === off) note = "";
      else if (name === "repetition_penalty") note = `changes ${tokensOf({ tokens: seen })}`;
      else if (filter && step.tokens === before.tokens && step.from === before.from) note = "removes nothing";
      else if (filter) note = `leaves ${tokensOf(step)}, ${percent(step.mass)}`;
      notes[name].textContent = note;
      before = step ?? before;
    }
  }
  return { panel, values, writeNotes, close: () => listeners.forEach((off) => off()) };
}

/** The box of the seed, and a button that goes on to the next one. */
export function seedBox(model, changed, disabled) {
  const id = uniqueId();
  const input = control("input", { type: "number", id, step: 1, min: 0, max: MOST_SEED, disabled });
  const take = () => {
    input.value = model.get("seed");
    changed();
  };
  const choose = (seed) => {
    write(model, { seed: Math.min(Math.max(Math.trunc(seed) || 0, 0), MOST_SEED) });
    take(); // also where the seed is the old one, to start again from it
  };
  input.addEventListener("change", () => choose(Number(input.value)));
  input.value = model.get("seed");
  model.on("change:seed", take);
  const next = control("button", { type: "button", class: "course-action" }, "Next seed");
  next.addEventListener("click", () => choose((model.get("seed") + 1) % (MOST_SEED + 1)));
  return {
    nodes: [element("label", { for: id }, "Seed"), input],
    next,
    close: () => model.off("change:seed", take),
  };
}

/** How many tokens the page draws, as radio buttons. */
export function drawsChoice(model, changed) {
  const name = uniqueId();
  const inputs = DRAWS.map((draws) => control("input", { type: "radio", name, value: draws }));
  const labels = inputs.map((input) =>
    element("label", {}, input, input.value === "0" ? "none" : whole.format(input.value)),
  );
  const node = element("fieldset", { class: "next-token-draws" }, element("legend", {}, "Draws"), ...labels);
  node.addEventListener("change", (event) => {
    write(model, { draws: Number(event.target.value) });
  });
  const show = () => {
    for (const input of inputs) input.checked = Number(input.value) === model.get("draws");
  };
  const take = () => {
    show();
    changed();
  };
  show();
  model.on("change:draws", take);
  return { node, close: () => model.off("change:draws", take) };
}
