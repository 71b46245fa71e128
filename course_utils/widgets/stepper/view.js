import { connect, control, element, uniqueId } from "../core/dom.js";
import { barList, branchTree, givenTable, percent, stageList, tokenRows } from "./parts.js";

const PLAY_PAUSE = 700; // milliseconds between two steps that are played
const STEPS_AHEAD = 4; // steps that are asked for while the kernel is busy
const SAVED = "A saved view: walk through the steps it holds. To go on, choose tokens or type a prompt, run this cell.";

/** Put `nodes` into `box`; the focus stays at the control of the same number. */
function replace(box, ...nodes) {
  const controls = () => [...box.querySelectorAll("button, input, [tabindex]")];
  const at = controls().indexOf(document.activeElement);
  box.replaceChildren(...nodes);
  if (at >= 0) controls()[at]?.focus();
}

function render({ model, el }) {
  const live = model.get("live");
  let shown; // the trait: every step and branch there is
  const view = { branch: 0, step: 0, row: 0, stage: null }; // a stage of null is the last one
  const left = new Map(); // the step at which a branch was left
  let running = null; // "play" or "run"
  let ahead = 0; // steps still to be taken after the one under way
  let timer = null;

  const status = element("p", { class: "course-status", role: "status" });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const say = (text) => (status.textContent = text);
  const line = connect(model, (text) => say(text || progress()));

  // ---- what is generated from what

  const ids = Object.fromEntries(["prompts", "arguments", "seed"].map((name) => [name, uniqueId()]));
  const prompts = control("textarea", { id: ids.prompts, rows: 1, dir: "auto", spellcheck: "false", readonly: !live });
  const settings = control("textarea", { id: ids.arguments, class: "stepper-code", rows: 1, spellcheck: "false", readonly: !live });
  const seed = control("input", { id: ids.seed, type: "number", min: 0, max: 2 ** 32 - 1, step: 1, readonly: !live });
  const objects = element("code", { class: "stepper-objects" });
  const fit = () => (prompts.rows = prompts.value.split("\n").length);
  const edit = (is) => {
    start.toggleAttribute("data-edited", is);
    say(progress());
  };
  const start = action("Start", () => {
    stop();
    const request = {
      prompts: prompts.value.replace(/\n+$/, "").split("\n").map((text) => text.replaceAll("⏎", "\n")),
      arguments: settings.value,
      seed: Number(seed.value),
    };
    ask({ start: request }, ({ branch }) => {
      edit(false);
      go(branch, 0);
      proceed();
    });
  });
  for (const box of [prompts, settings, seed]) {
    box.addEventListener("input", () => {
      fit();
      edit(true);
    });
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || box === prompts) return;
      event.preventDefault();
      start.click();
    });
  }

  function fillIn() {
    prompts.value = shown.prompts.map((text) => text.replaceAll("\n", "⏎")).join("\n");
    settings.value = shown.arguments;
    objects.textContent = shown.objects && `And from the cell: ${shown.objects}`;
    seed.value = shown.branches[view.branch].seed;
    fit();
  }

  // ---- walking

  const path = (number) => {
    const { parent, start, turns } = shown.branches[number];
    return parent === null ? turns : [...path(parent).slice(0, start), ...turns];
  };
  const over = (turns) => turns.at(-1).reasons.every((reason) => reason !== null);

  function ask(request, done) {
    body.setAttribute("aria-busy", "true");
    line.ask(request, (reply) => {
      body.removeAttribute("aria-busy");
      wrong.textContent = reply.error ?? "";
      if (reply.error) stop();
      take();
      if (!reply.error) done(reply);
    });
  }

  function go(branch, step) {
    left.set(view.branch, view.step);
    Object.assign(view, { branch, step });
    draw();
  }

  /** One step forward: what is known is shown at once, the rest is asked of the kernel. */
  function forward() {
    const turns = path(view.branch);
    if (view.step < turns.length - 1) arrive(running === "run" ? turns.length - 1 : view.step + 1);
    else if (!live || over(turns)) stop();
    else if (line.waiting()) ahead = Math.min(ahead + 1, STEPS_AHEAD);
    else {
      const { branch, step } = view;
      ask({ session: shown.session, forward: { branch, taken: turns.length } }, () => {
        const grown = path(branch).length > step + 1;
        if (grown && view.branch === branch && view.step === step) arrive(step + 1);
      });
    }
  }

  function arrive(step) {
    view.step = step;
    draw();
    proceed();
  }

  /** Take the next of the steps that are played, run or asked for. */
  function proceed() {
    if (running === "play") timer = setTimeout(forward, PLAY_PAUSE);
    else if (running === "run") forward();
    else if (ahead > 0) {
      ahead -= 1;
      forward();
    }
  }

  function stop() {
    clearTimeout(timer);
    running = null;
    ahead = 0;
    drawActions();
  }

  function toggle(mode) {
    const on = running !== mode;
    stop();
    if (!on) return;
    running = mode;
    drawActions();
    forward();
  }

  function choose(token) {
    stop();
    const { branch, step, row } = view;
    ask({ session: shown.session, choose: { branch, step, row, token } }, (reply) => {
      go(reply.branch, step);
      proceed();
    });
  }

  // ---- drawing

  function action(label, act) {
    const click = (event) => event.currentTarget.getAttribute("aria-disabled") !== "true" && act();
    return control("button", { type: "button", class: "course-action", onclick: click }, label);
  }
  const back = action("Step back", () => {
    stop();
    arrive(view.step - 1);
  });
  const step = action("Step", forward);
  const play = action("Play", () => toggle("play"));
  const run = action("Run to the end", () => toggle("run"));
  const place = element("span", { class: "stepper-place" });

  function drawActions() {
    const turns = path(view.branch);
    const atEnd = view.step === turns.length - 1;
    // A button that is off keeps the focus: with `disabled` a keyboard would lose its place.
    const off = (button, is) => button.setAttribute("aria-disabled", String(is));
    off(back, view.step === 0);
    for (const button of [step, play, run]) off(button, atEnd && (!live || over(turns)));
    play.textContent = running === "play" ? "Pause" : "Play";
    run.textContent = running === "run" ? "Stop" : "Run to the end";
    place.textContent = `Step ${view.step}${atEnd ? (over(turns) ? ", the last one" : "") : ` of ${turns.length - 1}`}`;
    say(progress());
  }

  function progress() {
    if (!live) return SAVED;
    const made = path(view.branch).length + (shown.most ? ` of at most ${shown.most}` : "");
    const idle = start.hasAttribute("data-edited") ? "Press Start to generate from what you typed." : "";
    return { play: `Playing: step ${view.step}.`, run: `Running: ${made} steps taken.` }[running] ?? idle;
  }

  function sentence(turns) {
    const turn = turns[view.step];
    const row = shown.rows.length > 1 ? `Row ${view.row}: ` : "";
    if (turn.shares[view.row] === null) {
      const reason = turns[view.step - 1].reasons[view.row];
      return [`${row}finished before this step (${reason}). The model computes this row all the same; what it says is not used.`];
    }
    let owner = shown.branches[view.branch];
    while (owner.start > view.step) owner = shown.branches[owner.parent];
    const yours = owner.row === view.row && owner.start === view.step;
    const how = yours ? "was chosen by you" : shown.sampling ? `was drawn with seed ${owner.seed}` : "is the most likely";
    const share = turn.shares[view.row].at(-1);
    const token = element("bdi", { class: "stepper-token" }, shown.labels[turn.tokens[view.row]]);
    const reason = turn.reasons[view.row];
    return [
      row,
      token,
      ` ${how}, ${share === null ? "though it was removed" : `at ${percent(share)}`}.`,
      reason ? ` This finishes the row: ${reason}.` : "",
    ];
  }

  const rows = element("div", { class: "stepper-rows" });
  const choice = element("p", { class: "stepper-choice", "aria-live": "polite" });
  const given = element("div");
  const stages = element("div");
  const bars = element("div");
  const tree = element("div", { class: "stepper-tree" });
  const part = (title, ...nodes) => element("section", { "aria-label": title }, element("p", { class: "stepper-title" }, title), ...nodes);
  const body = element(
    "div",
    {},
    rows,
    choice,
    element(
      "div",
      { class: "stepper-columns" },
      element("div", {}, part("Given to the model", given), part("From logits to the choice", stages)),
      part("The distribution", bars),
    ),
    part("Branches", tree),
  );

  function draw() {
    const turns = path(view.branch);
    const turn = turns[view.step];
    const record = { ...shown.steps[turn.step], names: shown.chains[shown.steps[turn.step].chain] };
    drawActions();
    replace(rows, ...tokenRows(shown, turns, view, { go: (at) => (stop(), go(view.branch, at)), row: (number) => pick({ row: number }) }));
    choice.replaceChildren(...sentence(turns));
    replace(given, givenTable(record, view.row, shown));
    const own = record.rows[view.row];
    const stage = Math.min(view.stage ?? Infinity, record.names.length);
    const select = (number) => pick({ stage: number === record.names.length ? null : number });
    for (const node of [stages, bars]) node.parentElement.hidden = !own;
    replace(stages, ...(own ? stageList(record, own, stage, select) : []));
    replace(bars, ...(own ? barList(record, own, stage, turn, view.row, shown.labels, live ? choose : null) : []));
    replace(tree, ...branchTree(shown, path, view, (number) => (stop(), go(number, landing(number))), live));
  }

  function pick(what) {
    Object.assign(view, what);
    draw();
  }

  /** Where a branch was left; at first, where it begins. */
  const landing = (number) => left.get(number) ?? shown.branches[number].start;

  /** A cell may take steps faster than they can be drawn. */
  let frame = null;
  function follow() {
    if (line.waiting()) take();
    else frame ??= requestAnimationFrame(() => ((frame = null), take()));
  }

  /** Draw what the kernel found. A view that did not ask for it follows. */
  function take() {
    const before = shown;
    shown = model.get("shown");
    if (shown === before) return;
    const fresh = before?.session !== shown.session;
    if (fresh) {
      left.clear();
      Object.assign(view, { branch: shown.branch, step: 0, row: Math.min(view.row, shown.rows.length - 1) });
    }
    if (before && !line.waiting()) Object.assign(view, { branch: shown.branch, step: path(shown.branch).length - 1 });
    if (fresh) fillIn();
    draw();
  }

  const labelled = (name, text, ...nodes) => element("div", { class: `stepper-${name}` }, element("label", { for: ids[name] }, text), ...nodes);
  if (!live) start.setAttribute("aria-disabled", "true");
  take();
  el.append(
    element(
      "div",
      { class: "course-widget stepper" },
      labelled("prompts", "Prompts, one a line (⏎ is a line break in one)", prompts),
      element(
        "div",
        { class: "stepper-line" },
        labelled("arguments", "Arguments of generate()", settings, objects),
        labelled("seed", "Seed", seed),
        start,
      ),
      wrong,
      element("div", { class: "stepper-actions", role: "group", "aria-label": "Steps" }, back, step, play, run, place),
      body,
      status,
    ),
  );
  model.on("change:shown", follow);
  return () => {
    clearTimeout(timer);
    cancelAnimationFrame(frame);
    model.off("change:shown", follow);
    line.close();
  };
}

export default { render };
