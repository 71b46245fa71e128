import { arrowKeys, connect, control, element, typed, uniqueId } from "./shared.js";
import { distribution, draw, uniforms } from "./distribution.js";

// In the order in which generate() applies them.
const SLIDERS = [
  { name: "temperature", label: "Temperature", min: 0.05, max: 3, step: 0.05, digits: 2 },
  { name: "top_k", label: "Top-k", min: 0, max: 200, step: 1, digits: 0, off: 0 },
  { name: "top_p", label: "Top-p", min: 0, max: 1, step: 0.01, digits: 2, off: 1 },
  { name: "min_p", label: "Min-p", min: 0, max: 1, step: 0.01, digits: 2, off: 0 },
];
const TYPING_PAUSE = 400; // milliseconds after the last key before the model is asked
const ACTIONS_AHEAD = 4; // clicks kept while the kernel is busy
const MOST_SEED = 2 ** 32 - 1;

/** @param {number} share 0 to 1 */
function percent(share) {
  if (share > 0 && share < 0.0001) return "<0.01 %";
  return `${(100 * share).toFixed(2)} %`;
}

const whole = new Intl.NumberFormat("en-US");
const roughly = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });

/** The four sliders. `changed` is called on every move; the traits are written when a slider is released. */
function sliderPanel(model, changed) {
  const values = {};
  const panel = element("div", {
    class: "next-token-sliders",
    role: "group",
    "aria-label": "Sampling settings, in the order they are applied",
  });
  const listeners = SLIDERS.map(({ name, label, min, max, step, digits, off }) => {
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
      model.set(name, values[name]);
      model.save_changes();
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
    panel.append(element("div", {}, element("label", { for: id }, label), value, input));
    return () => model.off(`change:${name}`, fromPython);
  });
  return { panel, values, close: () => listeners.forEach((off) => off()) };
}

/** The bars: one button a token. Buttons stay, their contents change, so the focus stays where it is. */
function barList(count, choose) {
  const list = element("ol", { class: "next-token-bars" });
  const rows = Array.from({ length: count }, (_, rank) => {
    const text = element("bdi", { class: "next-token-text" });
    const bar = element("span", { class: "next-token-bar" });
    const own = element("span", { class: "next-token-own" });
    const share = element("span", { class: "next-token-share" });
    const button = control(
      "button",
      { type: "button", tabindex: rank === 0 ? 0 : -1, onclick: () => choose(rank) },
      text,
      share,
      element("span", { class: "next-token-track", "aria-hidden": "true" }, bar, own),
    );
    list.append(element("li", {}, button));
    return { text, bar, own, share, button };
  });
  arrowKeys(list, "button");
  return { list, rows };
}

function render({ model, el }) {
  const live = model.get("live");
  let shown; // the trait: what the kernel found
  let sorted; // its logits, see distribution.js
  let own; // the model's own probabilities, before any setting
  let result; // what the settings make of them
  let uniform;
  let drawn;
  const queue = []; // actions waiting for the answer under way

  const status = element("p", { class: "course-status", role: "status" });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const say = (text) => (status.textContent = text);
  const line = connect(model, say);

  // The prompt and what was appended to it.
  const promptId = uniqueId();
  const prompt = control("textarea", {
    id: promptId,
    rows: 1,
    dir: "auto",
    spellcheck: "false",
    readonly: !live,
  });
  const continuation = element("span", { class: "next-token-continuation" });
  const positions = element("span", { class: "next-token-positions" });
  let pause = null;
  let edited = false; // the box holds a prompt that has not been answered, or was refused
  const askPrompt = () => ask({ prompt: prompt.value, chosen: [] });
  prompt.addEventListener("input", () => {
    edited = true;
    clearTimeout(pause);
    pause = setTimeout(askPrompt, TYPING_PAUSE);
  });

  const { panel, values: settings, close: closeSliders } = sliderPanel(model, redraw);
  const { list, rows } = barList(model.get("shown").top.length, (rank) => {
    if (edited)
      askPrompt(); // these tokens follow an older prompt
    else if (!line.waiting()) append(rank, (text) => `Appended “${text}”.`);
  });
  const figures = Object.fromEntries(
    ["kept", "mass", "entropy"].map((name) => [name, element("dd", { class: `next-token-${name}` })]),
  );

  // What continues the text.
  const seedId = uniqueId();
  const seed = control("input", {
    type: "number",
    id: seedId,
    step: 1,
    min: 0,
    max: MOST_SEED,
    value: model.get("seed"),
    disabled: !live,
  });
  const restart = () => {
    uniform = uniforms(model.get("seed"));
    drawn = 0;
  };
  seed.addEventListener("change", () => {
    model.set("seed", Math.min(Math.max(Math.trunc(Number(seed.value)) || 0, 0), MOST_SEED));
    model.save_changes();
    takeSeed();
  });
  const takeSeed = () => {
    seed.value = model.get("seed");
    restart();
  };
  const action = (label, act) =>
    control(
      "button",
      {
        type: "button",
        class: "course-action",
        disabled: !live,
        onclick: () => {
          if (edited) askPrompt();
          if (!line.waiting()) act();
          else if (queue.length < ACTIONS_AHEAD) queue.push(act);
        },
      },
      label,
    );
  const mostLikely = action("Most likely", () =>
    append(0, (text) => `Appended the most likely token, “${text}”.`),
  );
  const sample = action("Sample", () => {
    const rank = draw(result.probs, uniform());
    drawn += 1;
    append(rank, (text) => `Sampled “${text}”: draw ${drawn} of seed ${seed.value}.`);
  });
  const back = action("Step back", () => {
    const chosen = shown.chosen.map((token) => token.id);
    if (chosen.length > 0) ask({ prompt: shown.prompt, chosen: chosen.slice(0, -1) });
  });

  /** Ask the model what follows; the answer comes as the trait `shown`. */
  function ask(request, done = () => "") {
    clearTimeout(pause);
    pause = null;
    list.setAttribute("aria-busy", "true");
    line.ask(request, (reply) => {
      list.removeAttribute("aria-busy");
      prompt.setAttribute("aria-invalid", String(Boolean(reply.error)));
      wrong.textContent = reply.error ?? "";
      if (reply.error) {
        queue.length = 0;
        take(); // the answer to a request that this one overtook may have come before
        return;
      }
      edited = pause !== null;
      say(done());
      queue.shift()?.();
    });
  }

  function append(rank, sentence) {
    const ids = typed(Uint32Array, shown.ids);
    const chosen = [...shown.chosen.map((token) => token.id), ids[rank]];
    ask({ prompt: shown.prompt, chosen }, () => sentence(shown.chosen.at(-1).text));
  }

  function take() {
    if (line.overtaken()) return;
    const before = shown;
    shown = model.get("shown");
    sorted = Object.fromEntries(
      ["logits", "counts", "variances"]
        .filter((name) => shown[name])
        .map((name) => [name, typed(Float32Array, shown[name])]),
    );
    own = distribution(sorted, { temperature: 1, top_k: 0, top_p: 1, min_p: 0 }).probs;
    if (before?.prompt !== shown.prompt) {
      restart();
      if (!edited) prompt.value = shown.prompt;
    }
    const chips = shown.chosen.map((token) => element("bdi", { class: "next-token-chosen" }, token.text));
    continuation.replaceChildren(...(chips.length > 0 ? chips : [live ? "choose a token below" : "nothing"]));
    const [used, limit] = shown.positions;
    positions.textContent = limit
      ? `${whole.format(used)} of ${whole.format(limit)} positions`
      : `${whole.format(used)} positions`;
    rows.forEach(({ text, own: mark }, rank) => {
      text.textContent = shown.top[rank].text;
      mark.style.left = `${100 * own[rank]}%`;
    });
    redraw();
  }

  function redraw() {
    result = distribution(sorted, settings);
    const { probs, cuts, kept, approximate, mass, entropy } = result;
    rows.forEach(({ bar, share, button }, rank) => {
      const by = own[rank] > 0 && Object.keys(cuts).find((name) => rank >= cuts[name]);
      bar.style.width = `${100 * (by ? own[rank] : probs[rank])}%`;
      button.classList.toggle("next-token-removed", Boolean(by));
      share.textContent = by ? `removed by ${by}` : percent(probs[rank]);
    });
    const count = approximate ? `≈ ${roughly.format(kept)}` : whole.format(kept);
    figures.kept.textContent = `${count} of ${whole.format(shown.vocabulary)}`;
    figures.mass.textContent = percent(mass);
    figures.entropy.textContent = `${entropy.toFixed(2)} bits`;
  }

  const choose = live ? "; click one to append it" : "";
  const legend = `The ${rows.length} most likely tokens${choose}. Bar: with the settings. Line: the model's own probability.`;
  const figure = (name, label) => element("div", {}, element("dt", {}, label), figures[name]);
  const root = element(
    "div",
    { class: "course-widget next-token" },
    element("label", { for: promptId, class: "next-token-label" }, "Prompt"),
    prompt,
    wrong,
    element("p", { class: "next-token-line" }, element("span", {}, "Continued: "), continuation, positions),
    panel,
    element("p", { class: "next-token-legend" }, legend),
    list,
    element(
      "dl",
      { class: "next-token-figures" },
      figure("kept", "Tokens kept"),
      figure("mass", "Probability kept"),
      figure("entropy", "Entropy"),
    ),
    element(
      "div",
      { class: "next-token-actions" },
      mostLikely,
      sample,
      element("label", { for: seedId }, "Seed"),
      seed,
      back,
    ),
    status,
  );
  if (!live) {
    for (const { button } of rows) button.disabled = true;
    say("A saved view: the sliders work. To type a prompt or continue the text, run this cell.");
  }
  take();
  el.append(root);
  model.on("change:shown", take);
  model.on("change:seed", takeSeed);
  return () => {
    clearTimeout(pause);
    model.off("change:shown", take);
    model.off("change:seed", takeSeed);
    closeSliders();
    line.close();
  };
}

export default { render };
