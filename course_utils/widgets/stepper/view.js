import { connect, element } from "../core/dom.js";
import { barList, branchTree, givenTable, sentence, stageList, tokenRows } from "./parts.js";
import { action, settingsForm } from "./settings.js";
import { timeline } from "./timeline.js";
import { Walk } from "./walk.js";

const SAVED =
  "A saved view: walk through the steps it holds. To go on, choose tokens or type a prompt, run this cell.";

/** Put `nodes` into `box`; the focus stays at the control of the same number. */
function replace(box, ...nodes) {
  const controls = () => [...box.querySelectorAll("button, input, [tabindex]")];
  const at = controls().indexOf(document.activeElement);
  box.replaceChildren(...nodes);
  if (at >= 0) controls()[at]?.focus();
}

/** The places of the parts, and the node `body` that holds them. */
function createBody() {
  const rows = element("div", { class: "stepper-rows" });
  const choice = element("p", { class: "stepper-choice", "aria-live": "polite" });
  const given = element("div");
  const stages = element("div");
  const bars = element("div");
  const times = element("div");
  const tree = element("div", { class: "stepper-tree" });
  const part = (title, ...nodes) =>
    element("section", { "aria-label": title }, element("p", { class: "stepper-title" }, title), ...nodes);
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
    part("Timeline: a column for each step", times),
    part("Branches", tree),
  );
  return { body, rows, choice, given, stages, bars, times, tree };
}

/** Draw the step that is looked at. */
function drawBody({ rows, choice, given, stages, bars, times, tree }, walk, live) {
  const { shown, view, path } = walk;
  const turns = path();
  const turn = turns[view.step];
  const record = { ...shown.steps[turn.step], names: shown.chains[shown.steps[turn.step].chain] };
  const on = { go: (step) => walk.leave(view.branch, step), row: (row) => walk.pick({ row }) };
  replace(rows, ...tokenRows(shown, turns, view, on));
  choice.replaceChildren(...sentence(shown, view, turns));
  replace(given, givenTable(record, view.row, shown));
  const own = record.rows[view.row];
  const stage = Math.min(view.stage ?? Infinity, record.names.length);
  const select = (number) => walk.pick({ stage: number === record.names.length ? null : number });
  const choose = live ? (token) => walk.choose(token) : null;
  for (const node of [stages, bars]) node.parentElement.hidden = !own;
  replace(stages, ...(own ? stageList(record, own, stage, select) : []));
  replace(bars, ...(own ? barList(record, own, stage, turn, view.row, shown.labels, choose) : []));
  replace(times, ...timeline(shown, turns, view, on));
  replace(tree, ...branchTree(shown, path, view, (number) => walk.leave(number), live));
}

/** The buttons that walk, and the number of the step; `draw()` shows which can be pressed. */
function actionBar(walk, live) {
  const back = action("Step back", () => walk.back());
  const step = action("Step", () => walk.forward());
  const play = action("Play", () => walk.toggle("play"));
  const run = action("Run to the end", () => walk.toggle("run"));
  const place = element("span", { class: "stepper-place" });
  const group = { class: "stepper-actions", role: "group", "aria-label": "Steps" };
  return {
    node: element("div", group, back, step, play, run, place),
    draw() {
      const [atEnd, over, { running, view }] = [walk.atEnd(), walk.isOver(), walk];
      const off = (button, is) => button.setAttribute("aria-disabled", String(is));
      off(back, view.step === 0);
      for (const button of [step, play, run]) off(button, atEnd && (!live || over));
      play.textContent = running === "play" ? "Pause" : "Play";
      run.textContent = running === "run" ? "Stop" : "Run to the end";
      const where = atEnd ? (over ? ", the last one" : "") : ` of ${walk.path().length - 1}`;
      place.textContent = `Step ${view.step}${where}`;
    },
  };
}

/** How far the steps are that are played or run: a sentence, or "". */
function progressOf({ running, view, shown, path }) {
  const made = path().length + (shown.most ? ` of at most ${shown.most}` : "");
  return { play: `Playing: step ${view.step}.`, run: `Running: ${made} steps taken.` }[running] ?? "";
}

function render({ model, el }) {
  const live = model.get("live");
  const status = element("p", { class: "course-status", role: "status" });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const say = (text) => (status.textContent = text);
  const line = connect(model, (text) => say(text || progress()));
  const parts = createBody();
  const walk = new Walk({ ask: live ? ask : null, waiting: line.waiting, draw, drawActions });
  const form = settingsForm(live, {
    edited: () => say(progress()),
    begin: (request) => walk.begin(request, () => form.edit(false)),
  });
  const bar = actionBar(walk, live);
  let frame = null;

  function ask(request, done) {
    parts.body.setAttribute("aria-busy", "true");
    line.ask(request, (reply) => {
      parts.body.removeAttribute("aria-busy");
      wrong.textContent = reply.error ?? "";
      if (reply.error) walk.stop();
      take();
      if (!reply.error) done(reply);
    });
  }

  function progress() {
    if (!live) return SAVED;
    const idle = form.isEdited() ? "Press Start to generate from what you typed." : "";
    return progressOf(walk) || idle;
  }

  function drawActions() {
    bar.draw();
    say(progress());
  }

  function draw() {
    drawActions();
    drawBody(parts, walk, live);
  }

  /** A cell may take steps faster than they can be drawn. */
  function follow() {
    if (line.waiting()) take();
    else
      frame ??= requestAnimationFrame(() => {
        frame = null;
        take();
      });
  }

  function take() {
    const shown = model.get("shown");
    if (shown === walk.shown) return;
    if (walk.take(shown)) form.fill(shown, shown.branches[walk.view.branch].seed);
    draw();
  }

  take();
  const root = { class: "course-widget stepper" };
  el.append(element("div", root, ...form.nodes, wrong, bar.node, parts.body, status));
  model.on("change:shown", follow);
  return () => {
    walk.close();
    cancelAnimationFrame(frame);
    model.off("change:shown", follow);
    line.close();
  };
}

export default { render };
