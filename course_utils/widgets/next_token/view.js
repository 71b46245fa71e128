import { connect, control, element, typed, uniqueId } from "../core/dom.js";
import { percent, whole } from "../core/numbers.js";
import { afterTyping } from "../core/typing.js";
import { barList, sayDraws } from "./bars.js";
import { distribution, draw, roomFor, tally, unfold, uniforms } from "./distribution.js";
import { drawsChoice, seedBox, sliderPanel, tokenCount } from "./settings.js";

const ROWS = 15; // tokens that are drawn as bars
const ACTIONS_AHEAD = 4; // clicks kept while the kernel is busy

/** The trait `shown`, from the kernel or from a saved page: logits, tokens in the text, labels by place. */
function readShown(shown) {
  const column = (name, type = Float32Array) => typed(type, shown[name]);
  let sorted = { logits: column("logits"), seen: column("seen", Uint32Array) };
  let placeOf = (place) => place;
  if (shown.means) {
    const bins = { means: column("means"), counts: column("counts"), deviations: column("deviations") };
    ({ sorted, placeOf } = unfold(sorted, bins));
  }
  return {
    sorted,
    room: roomFor(sorted.logits.length),
    own: distribution(sorted, { temperature: 1, top_k: 0, top_p: 1, min_p: 0 }).probs, // before any setting
    seen: new Set(sorted.seen),
    labels: new Map(shown.top.map(({ place, text }) => [placeOf(place), text])),
  };
}

/** What the settings together lead to, where it may surprise: a sentence, or "". */
function remarkOn({ steps, surprise, unsure }) {
  const left = steps.typical;
  if (left.tokens === 1) return "One token is left, so every draw gives it: no filter removes the last one.";
  if (left.from === 0 || unsure(0)) return "";
  const [first, mean] = [surprise.first, surprise.mean].map((bits) => bits.toFixed(2));
  return `Typical removes the most likely token: its surprise, ${first} bits, is too far from the mean, ${mean} bits.`;
}

/** A screen reader speaks what is written here, so it is written only where it changes. */
function writeText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function render({ model, el }) {
  const live = model.get("live");
  const full = model.get("controls") === "all";
  let shown; // the trait: what the kernel found
  let read; // see readShown
  let result; // what the settings make of it
  let uniform;
  let drawn; // by the button
  let us = []; // the random numbers of the draws in the page
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
  const typing = afterTyping(askPrompt);
  let edited = false; // the box holds a prompt that has not been answered, or was refused
  prompt.addEventListener("input", () => {
    edited = true;
    typing.restart();
  });

  const sliders = sliderPanel(model, redraw);
  const bars = barList(full, Math.min(ROWS, model.get("shown").vocabulary), (rank) => {
    if (edited)
      askPrompt(); // these tokens follow an older prompt
    else if (!line.waiting()) append(rank, (text) => `Appended “${text}”.`);
  });
  const paragraph = (name, live) => element("p", { class: `next-token-${name}`, "aria-live": live });
  const [legend, outcome, remark] = [
    paragraph("legend"),
    paragraph("outcome", "polite"),
    paragraph("remark", "polite"),
  ];
  const figures = Object.fromEntries(
    ["kept", "mass", "entropy"].map((name) => [name, element("dd", { class: `next-token-${name}` })]),
  );

  // What is drawn, in the page and to continue the text.
  function takeSeed() {
    uniform = uniforms(model.get("seed"));
    drawn = 0;
    if (full) takeDraws();
  }
  function takeDraws() {
    us = Array.from({ length: model.get("draws") }, uniforms(model.get("seed")));
    if (read) redraw();
  }
  const seed = seedBox(model, takeSeed, !live && !full);
  const draws = full ? drawsChoice(model, takeDraws) : null;
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
    append(rank, (text) => `Sampled “${text}”: draw ${drawn} of seed ${model.get("seed")}.`);
  });
  const back = action("Step back", () => {
    const chosen = shown.chosen.map((token) => token.id);
    if (chosen.length > 0) ask({ prompt: shown.prompt, chosen: chosen.slice(0, -1) });
  });

  function askPrompt() {
    ask({ prompt: prompt.value, chosen: [] });
  }

  /** Ask the model what follows; the answer comes as the trait `shown`. */
  function ask(request, done = () => "") {
    typing.stop();
    bars.list.setAttribute("aria-busy", "true");
    line.ask(request, (reply) => {
      // An answer that was overtaken may have been the same, so that this one changed no trait.
      if (shown !== model.get("shown")) take();
      bars.list.removeAttribute("aria-busy");
      prompt.setAttribute("aria-invalid", String(Boolean(reply.error)));
      wrong.textContent = reply.error ?? "";
      if (reply.error) {
        queue.length = 0;
        return;
      }
      edited = typing.waiting();
      say(done());
      queue.shift()?.();
    });
  }

  function append(rank, sentence) {
    const id = typed(Uint32Array, shown.ids)[placeOf(rank)];
    const chosen = [...shown.chosen.map((token) => token.id), id];
    ask({ prompt: shown.prompt, chosen }, () => sentence(shown.chosen.at(-1).text));
  }

  const placeOf = (rank) => (result.places ? result.places[rank] : rank);

  function take() {
    if (line.overtaken()) return;
    const before = shown;
    shown = model.get("shown");
    read = readShown(shown);
    if (before?.prompt !== shown.prompt) {
      uniform = uniforms(model.get("seed"));
      drawn = 0;
      if (!edited) prompt.value = shown.prompt;
    }
    const chips = shown.chosen.map((token) => element("bdi", { class: "next-token-chosen" }, token.text));
    continuation.replaceChildren(...(chips.length > 0 ? chips : [live ? "choose a token below" : "nothing"]));
    const [used, limit] = shown.positions;
    positions.textContent = limit
      ? `${whole.format(used)} of ${whole.format(limit)} positions`
      : `${whole.format(used)} positions` +
        (shown.trained ? `; the model was trained on ${whole.format(shown.trained)}` : "");
    redraw();
  }

  function redraw() {
    const { sorted, room, own, seen, labels } = read;
    result = distribution(sorted, sliders.values, room);
    const { probs, steps, entropy, unsure } = result;
    const left = steps.typical;
    const filters = Object.entries(steps);
    const others = { prob: 1, before: 1, tokens: left.tokens };
    bars.rows.forEach((row, rank) => {
      const [place, prob] = [placeOf(rank), probs[rank]];
      const before = own[place];
      const removed = before > 0 ? filters.find(([, { from, to }]) => rank < from || rank >= to)?.[0] : null;
      row.show({
        label: labels.get(place),
        prob,
        before,
        removed,
        unsure: unsure(rank) || (left.approximate && !removed),
      });
      row.mark(result.places !== null && seen.has(place));
      others.prob -= prob;
      others.before -= before;
      if (rank >= left.from && rank < left.to) others.tokens -= 1;
    });
    figures.kept.textContent = `${tokenCount(left)} of ${whole.format(shown.vocabulary)}`;
    const about = left.approximate ? "≈ " : "";
    figures.mass.textContent = about + percent(left.mass);
    figures.entropy.textContent = `${about}${entropy.toFixed(2)} bits`;
    const choose = live ? "; click one to append it" : "";
    writeText(
      legend,
      `The ${bars.rows.length} most likely tokens${choose}. Bar: with the settings. Line: the model's own probability.` +
        (result.places ? " Underlined: in the text already." : "") +
        (us.length > 0
          ? " Dot: drawn, as a multiple of what is expected. Frame: where 95 dots of 100 should be."
          : ""),
    );
    if (full) redrawFull(others);
  }

  function redrawFull(others) {
    const prob = others.tokens > 0 ? Math.max(0, others.prob) : 0;
    const label = `${tokenCount({ ...result.steps.typical, tokens: others.tokens })} ${others.tokens === 1 ? "other" : "others"}`;
    bars.others.show({
      label,
      prob,
      before: Math.max(0, others.before),
      removed: null,
      unsure: result.steps.typical.approximate,
    });
    const shares = [...result.probs.subarray(0, bars.rows.length), prob];
    const counts = tally(shares, us);
    [...bars.rows, bars.others].forEach((row, number) =>
      row.showDraws(shares[number], counts[number], us.length),
    );
    sliders.writeNotes(result.steps, read.seen.size, shown.vocabulary);
    const labelOf = (row) =>
      row < bars.rows.length ? `“${read.labels.get(placeOf(row))}”` : "a token that has no row of its own";
    writeText(outcome, sayDraws(shares, counts, us.length, model.get("seed"), labelOf));
    bars.head.hidden = us.length === 0;
    writeText(remark, remarkOn(result));
  }

  const figure = (name, label) => element("div", {}, element("dt", {}, label), figures[name]);
  const actions = (...children) => element("div", { class: "next-token-actions" }, ...children);
  const root = element(
    "div",
    { class: `course-widget next-token${full ? " next-token-full" : ""}` },
    element("label", { for: promptId, class: "next-token-label" }, "Prompt"),
    prompt,
    wrong,
    element("p", { class: "next-token-line" }, element("span", {}, "Continued: "), continuation, positions),
    sliders.panel,
    ...(full ? [actions(draws.node, ...seed.nodes, seed.next)] : []),
    legend,
    ...(full ? [bars.head, bars.list, outcome] : [bars.list]),
    element(
      "dl",
      { class: "next-token-figures" },
      figure("kept", "Tokens kept"),
      figure("mass", "Probability kept"),
      figure("entropy", "Entropy"),
    ),
    ...(full ? [remark] : []),
    actions(mostLikely, sample, ...(full ? [] : seed.nodes), back),
    status,
  );
  if (!live) {
    for (const { node } of bars.rows) node.disabled = true;
    const work = full ? "the sliders and the draws work" : "the sliders work";
    say(`A saved view: ${work}. To type a prompt or continue the text, run this cell.`);
  }
  takeSeed();
  take();
  el.append(root);
  model.on("change:shown", take);
  return () => {
    typing.stop();
    model.off("change:shown", take);
    for (const one of [sliders, seed, draws]) one?.close();
    line.close();
  };
}

export default { render };
