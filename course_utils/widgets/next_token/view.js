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

/** All parts of the page but the controls that work on its state. */
function createView(live, full) {
  const paragraph = (name, live) => element("p", { class: `next-token-${name}`, "aria-live": live });
  const id = uniqueId();
  return {
    promptLabel: element("label", { for: id, class: "next-token-label" }, "Prompt"),
    prompt: control("textarea", { id, rows: 1, dir: "auto", spellcheck: "false", readonly: !live }),
    wrong: element("p", { class: "course-wrong", role: "alert" }),
    status: element("p", { class: "course-status", role: "status" }),
    continuation: element("span", { class: "next-token-continuation" }),
    positions: element("span", { class: "next-token-positions" }),
    legend: paragraph("legend"),
    outcome: paragraph("outcome", "polite"),
    remark: paragraph("remark", "polite"),
    figures: Object.fromEntries(
      ["kept", "mass", "entropy"].map((name) => [name, element("dd", { class: `next-token-${name}` })]),
    ),
    live,
    full,
  };
}

/** The page. @param {{ sliders: object, bars: object, seed: object, draws: ?object, buttons: Node[] }} controls */
function layout(view, { sliders, bars, seed, draws, buttons }) {
  const { full, figures, legend, outcome, remark, continuation, positions } = view;
  const [mostLikely, sample, back] = buttons;
  const figure = (name, label) => element("div", {}, element("dt", {}, label), figures[name]);
  const actions = (...children) => element("div", { class: "next-token-actions" }, ...children);
  return element(
    "div",
    { class: `course-widget next-token${full ? " next-token-full" : ""}` },
    view.promptLabel,
    view.prompt,
    view.wrong,
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
    view.status,
  );
}

/** The text so far, and how many positions it takes. */
function drawText({ continuation, positions, live }, { chosen, positions: [used, limit], trained }) {
  const chips = chosen.map((token) => element("bdi", { class: "next-token-chosen" }, token.text));
  continuation.replaceChildren(...(chips.length > 0 ? chips : [live ? "choose a token below" : "nothing"]));
  positions.textContent = limit
    ? `${whole.format(used)} of ${whole.format(limit)} positions`
    : `${whole.format(used)} positions` +
      (trained ? `; the model was trained on ${whole.format(trained)}` : "");
}

/** The place of a rank among the model's own. */
const placeOf = ({ places }, rank) => (places ? places[rank] : rank);

/** The bars. Returns what all tokens without a row have together: `prob`, `before` any setting, `tokens`. */
function drawBars(bars, { own, seen, labels }, result) {
  const { probs, steps, unsure } = result;
  const left = steps.typical;
  const filters = Object.entries(steps);
  const others = { prob: 1, before: 1, tokens: left.tokens };
  bars.rows.forEach((row, rank) => {
    const [place, prob] = [placeOf(result, rank), probs[rank]];
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
  return others;
}

function drawFigures({ figures }, { steps: { typical: left }, entropy }, vocabulary) {
  const about = left.approximate ? "≈ " : "";
  figures.kept.textContent = `${tokenCount(left)} of ${whole.format(vocabulary)}`;
  figures.mass.textContent = about + percent(left.mass);
  figures.entropy.textContent = `${about}${entropy.toFixed(2)} bits`;
}

function drawLegend({ legend, live }, rows, { places }, draws) {
  const choose = live ? "; click one to append it" : "";
  writeText(
    legend,
    `The ${rows} most likely tokens${choose}. Bar: with the settings. Line: the model's own probability.` +
      (places ? " Underlined: in the text already." : "") +
      (draws > 0
        ? " Dot: drawn, as a multiple of what is expected. Frame: where 95 dots of 100 should be."
        : ""),
  );
}

/** What only the full set shows: all other tokens in one row, and the draws. @param {number[]} us of the draws */
function drawFull({ outcome, remark }, bars, { labels }, result, others, { us, seed }) {
  const { typical } = result.steps;
  const prob = others.tokens > 0 ? Math.max(0, others.prob) : 0;
  bars.others.show({
    label: `${tokenCount({ ...typical, tokens: others.tokens })} ${others.tokens === 1 ? "other" : "others"}`,
    prob,
    before: Math.max(0, others.before),
    removed: null,
    unsure: typical.approximate,
  });
  const shares = [...result.probs.subarray(0, bars.rows.length), prob];
  const counts = tally(shares, us);
  [...bars.rows, bars.others].forEach((row, number) =>
    row.showDraws(shares[number], counts[number], us.length),
  );
  const labelOf = (row) =>
    row < bars.rows.length ? `“${labels.get(placeOf(result, row))}”` : "a token that has no row of its own";
  writeText(outcome, sayDraws(shares, counts, us.length, seed, labelOf));
  bars.head.hidden = us.length === 0;
  writeText(remark, remarkOn(result));
}

/** The random numbers of the trait `seed`: one by one for the button, all at once for the draws in the page. */
function randomNumbers(model) {
  let uniform;
  return {
    drawn: 0, // by the button
    us: [], // of the draws in the page
    restart() {
      uniform = uniforms(model.get("seed"));
      this.drawn = 0;
    },
    next() {
      this.drawn += 1;
      return uniform();
    },
    drawAll() {
      this.us = Array.from({ length: model.get("draws") }, uniforms(model.get("seed")));
    },
  };
}

/**
 * What the learner asks of the kernel: `ask` for what follows a text; `act` does something once the answer under
 * way is there. The answers come as the trait `shown`.
 * @param {{ prompt: HTMLElement, wrong: HTMLElement, status: HTMLElement }} view
 * @param {HTMLElement} list marked as busy meanwhile
 * @param {() => void} take called after each answer
 */
function questions(model, { prompt, wrong, status }, list, take) {
  const say = (text) => (status.textContent = text);
  const line = connect(model, say);
  const queue = []; // actions waiting for the answer under way
  let edited = false; // the box holds a prompt that has not been answered, or was refused
  const askPrompt = () => ask({ prompt: prompt.value, chosen: [] });
  const typing = afterTyping(askPrompt);
  prompt.addEventListener("input", () => {
    edited = true;
    typing.restart();
  });

  function ask(request, done = () => "") {
    typing.stop();
    list.setAttribute("aria-busy", "true");
    line.ask(request, (reply) => {
      take();
      list.removeAttribute("aria-busy");
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

  return {
    ask,
    askPrompt,
    say,
    edited: () => edited,
    overtaken: line.overtaken,
    waiting: line.waiting,
    act(action) {
      if (edited) askPrompt();
      if (!line.waiting()) action();
      else if (queue.length < ACTIONS_AHEAD) queue.push(action);
    },
    close() {
      typing.stop();
      line.close();
    },
  };
}

/** The buttons that continue the text. @param {Object<string, () => void>} actions by what the button says */
function actionButtons(actions, live, act) {
  return Object.entries(actions).map(([label, action]) =>
    control(
      "button",
      { type: "button", class: "course-action", disabled: !live, onclick: () => act(action) },
      label,
    ),
  );
}

function render({ model, el }) {
  const live = model.get("live");
  const full = model.get("controls") === "all";
  let shown; // the trait: what the kernel found
  let read; // see readShown
  let result; // what the settings make of it
  const view = createView(live, full);
  const random = randomNumbers(model);
  const sliders = sliderPanel(model, redraw);
  const bars = barList(full, Math.min(ROWS, model.get("shown").vocabulary), (rank) => {
    if (kernel.edited())
      kernel.askPrompt(); // these tokens follow an older prompt
    else if (!kernel.waiting()) append(rank, (text) => `Appended “${text}”.`);
  });
  // An answer that was overtaken may have been the same, so that this one changed no trait.
  const kernel = questions(model, view, bars.list, () => shown !== model.get("shown") && take());
  const seed = seedBox(model, takeSeed, !live && !full);
  const draws = full ? drawsChoice(model, takeDraws) : null;

  function takeSeed() {
    random.restart();
    if (full) takeDraws();
  }
  function takeDraws() {
    random.drawAll();
    if (read) redraw();
  }

  function append(rank, sentence) {
    const id = typed(Uint32Array, shown.ids)[placeOf(result, rank)];
    const chosen = [...shown.chosen.map((token) => token.id), id];
    kernel.ask({ prompt: shown.prompt, chosen }, () => sentence(shown.chosen.at(-1).text));
  }
  const actions = {
    "Most likely": () => append(0, (text) => `Appended the most likely token, “${text}”.`),
    Sample() {
      const rank = draw(result.probs, random.next());
      append(rank, (text) => `Sampled “${text}”: draw ${random.drawn} of seed ${model.get("seed")}.`);
    },
    "Step back"() {
      const chosen = shown.chosen.map((token) => token.id);
      if (chosen.length > 0) kernel.ask({ prompt: shown.prompt, chosen: chosen.slice(0, -1) });
    },
  };

  function take() {
    if (kernel.overtaken()) return;
    const before = shown;
    shown = model.get("shown");
    read = readShown(shown);
    if (before?.prompt !== shown.prompt) {
      random.restart();
      if (!kernel.edited()) view.prompt.value = shown.prompt;
    }
    drawText(view, shown);
    redraw();
  }

  function redraw() {
    result = distribution(read.sorted, sliders.values, read.room);
    const others = drawBars(bars, read, result);
    drawFigures(view, result, shown.vocabulary);
    drawLegend(view, bars.rows.length, result, random.us.length);
    if (!full) return;
    drawFull(view, bars, read, result, others, { us: random.us, seed: model.get("seed") });
    sliders.writeNotes(result.steps, read.seen.size, shown.vocabulary);
  }

  if (!live) {
    for (const { node } of bars.rows) node.disabled = true;
    const work = full ? "the sliders and the draws work" : "the sliders work";
    kernel.say(`A saved view: ${work}. To type a prompt or continue the text, run this cell.`);
  }
  takeSeed();
  take();
  el.append(layout(view, { sliders, bars, seed, draws, buttons: actionButtons(actions, live, kernel.act) }));
  model.on("change:shown", take);
  return () => {
    model.off("change:shown", take);
    for (const one of [sliders, seed, draws, kernel]) one?.close();
  };
}

export default { render };
