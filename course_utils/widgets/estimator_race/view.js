import { arrowKeys, connect, control, element, uniqueId } from "../core/dom.js";
import { two, whole } from "../core/numbers.js";
import { svg } from "../core/svg.js";
import { distances, mark, plane } from "./chart.js";

const MOST_SEED = 2 ** 32 - 1;
const TELLING = 3; // standard errors: noise alone hardly ever puts a mean further away
const COLUMNS = ["Estimator", "By proof", "Along", "Across", "Bias ± error", "More than noise", "Noise"];
const LEGEND =
  "Cross: the exact gradient. Disc: unbiased by proof. Square: biased. Dotted: 1/√estimates, as noise falls. " +
  "Bias: the distance, ± one standard error. Noise: how far one estimate scatters. Choose a name to pick it out.";

/** True where noise alone does not explain how far the mean is from the exact gradient. */
function biased({ bias, bias_error }) {
  return bias > TELLING * bias_error + 0.001; // without noise, rounding is left
}

/** What has come of it, in words. */
function judge({ racers, estimates }, { live, running }) {
  if (estimates === 0 && running) return "The first estimates are on their way.";
  if (estimates === 0)
    return live
      ? "Nothing is estimated yet. Press Start: the means move as the estimates come in."
      : "Nothing was estimated when this page was saved. Run the cell and press Start.";
  if (estimates === 1) return "One estimate each. How much they scatter shows from the second on.";
  const far = racers.filter(biased).length;
  if (far === 0) return "No mean is further from the exact gradient than its noise explains.";
  return (
    `${far} of ${racers.length} ${far === 1 ? "means is" : "means are"} further from the exact gradient than three ` +
    "standard errors, which noise hardly explains." +
    (far < racers.length ? " Of the others, so few estimates cannot tell whether they are biased." : "")
  );
}

/** A row of the table; `pick` is called when the estimator's name is chosen. */
function row(racer, number, pick) {
  const tabindex = number === 0 ? 0 : -1;
  const toggle = control("button", { type: "button", tabindex, onclick: () => pick(number) });
  const look = svg(
    "g",
    { class: `estimator-race-${racer.unbiased ? "unbiased" : "biased"}` },
    mark(racer, 0, 0),
  );
  const picture = svg("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" }, look);
  toggle.append(picture, `${number + 1} ${racer.name}`);
  const cells = COLUMNS.slice(1).map(() => element("td"));
  const node = element("tr", {}, element("th", { scope: "row" }, toggle), ...cells);
  return node;
}

function fill(node, racer, number, picked) {
  const [toggle, ...cells] = node.querySelectorAll("button, td");
  toggle.setAttribute("aria-pressed", String(picked === number));
  const values = [racer.unbiased ? "unbiased" : "biased"];
  if (racer.bias !== undefined) {
    const { along, across, bias, bias_error, noise } = racer;
    values.push(two(along), two(across), two(bias));
    if (noise !== null) {
      values[3] += ` ± ${two(bias_error)}`;
      values.push(biased(racer) ? "yes" : "no", two(noise));
    }
  }
  cells.forEach((cell, at) => (cell.textContent = values[at] ?? ""));
}

/** How many estimates: radio buttons; `chosen()` gives the number. */
function goalChoice({ goals, goal: asked }, live) {
  const name = uniqueId();
  const first = goals.find((goal) => goal >= asked) ?? goals.at(-1); // `run` takes any number
  const inputs = goals.map((goal) =>
    control("input", { type: "radio", name, value: goal, checked: goal === first, disabled: !live }),
  );
  const labels = inputs.map((input) => element("label", {}, input, whole.format(input.value)));
  const node = element("fieldset", {}, element("legend", {}, "Up to"), ...labels, "estimates each");
  return { node, inputs, chosen: () => Number(inputs.find((input) => input.checked).value) };
}

/** All parts of the page. @param {{ press: () => void, reset: (seed?: number) => void }} actions */
function createView(shown, live, { press, reset }) {
  const goal = goalChoice(shown, live);
  const action = (onclick, label) =>
    control("button", { type: "button", class: "course-action", disabled: !live, onclick }, label);
  const id = uniqueId();
  const seed = control("input", { type: "number", id, min: 0, max: MOST_SEED, step: 1, disabled: !live });
  seed.addEventListener("change", () => reset(Math.min(Math.max(Math.trunc(seed.value) || 0, 0), MOST_SEED)));
  const view = {
    goal,
    seed,
    button: action(press, "Start"),
    again: action(() => reset(), "Reset"),
    progress: element("progress", { "aria-label": "Estimates made" }),
    count: element("span", { class: "estimator-race-count" }),
    wrong: element("p", { class: "course-wrong", role: "alert" }),
    verdict: element("p", { class: "estimator-race-verdict" }),
    charts: element("div", { class: "estimator-race-charts" }),
    body: element("tbody"),
    status: element("p", { class: "course-status", role: "status" }),
  };
  const { button, again, progress, count, wrong, verdict, charts, body, status } = view;
  arrowKeys(body, "button");
  const head = element("tr", {}, ...COLUMNS.map((column) => element("th", { scope: "col" }, column)));
  const table = element("table", {}, element("thead", {}, head), body);
  const seedLabel = element("label", { for: id }, "Seed");
  const seedBox = element("span", { class: "estimator-race-seed" }, seedLabel, seed);
  view.root = element(
    "div",
    { class: "course-widget estimator-race" },
    element("div", { class: "estimator-race-controls" }, goal.node, button, again, seedBox, progress, count),
    wrong,
    verdict,
    charts,
    element("p", { class: "estimator-race-legend" }, LEGEND),
    element("div", { class: "estimator-race-scroll" }, table),
    status,
  );
  return view;
}

/** Draw all that is known. `picked` is the number of the estimator that stands out, or null. */
function update(view, shown, { live, running, picked }, pick) {
  const { racers, estimates, samples } = shown;
  const goal = view.goal.chosen();
  view.button.textContent = running ? "Pause" : estimates > 0 ? "Continue" : "Start";
  for (const input of view.goal.inputs) input.disabled = !live || running;
  view.again.disabled = !live || (estimates === 0 && !running);
  if (!view.seed.matches(":focus")) view.seed.value = shown.seed; // what is being typed stays
  view.progress.max = goal;
  view.progress.value = Math.min(estimates, goal);
  view.progress.hidden = !running;
  view.count.textContent =
    `${whole.format(estimates)} ${estimates === 1 ? "estimate" : "estimates"} each, ` +
    `from ${samples} ${samples === 1 ? "sample" : "samples"} an estimate`;
  view.verdict.textContent = judge(shown, { live, running });
  view.charts.replaceChildren(plane(shown, picked), distances(shown, picked, goal));
  racers.forEach((racer, number) => {
    // Rows are kept, so that the focus stays on a button.
    if (!view.body.children[number]) view.body.append(row(racer, number, pick));
    fill(view.body.children[number], racer, number, picked);
  });
}

function render({ model, el }) {
  const live = model.get("live");
  let running = false;
  let picked = null; // the number of the estimator that stands out
  const view = createView(model.get("shown"), live, {
    press: () => (running ? pause() : start()),
    reset: (seed = model.get("shown").seed) => reset(seed),
  });
  const { wrong } = view;
  const { chosen } = view.goal;
  const say = (sentence) => (view.status.textContent = sentence);
  // A slice may take a second, and its progress is shown: only a long silence is worth a word.
  const kernel = connect(model, (sentence) => {
    const usual = sentence === "" || sentence.startsWith("Kernel busy");
    say(running && usual ? "Estimating." : sentence);
  });
  const draw = () => update(view, model.get("shown"), { live, running, picked }, pick);

  function start() {
    wrong.textContent = "";
    const { estimates } = model.get("shown");
    if (estimates >= chosen()) {
      say(`Each has made ${whole.format(estimates)} estimates. Choose a larger number, or press Reset.`);
      return;
    }
    running = true;
    say("Estimating.");
    slice();
    draw();
  }

  /** One slice of estimates a request: that is what lets the race be paused, and be watched. */
  function slice() {
    kernel.ask({ go: chosen() }, ({ error, left }) => {
      wrong.textContent = error ?? "";
      if (!error && left > 0 && running) return slice();
      const paused = !running;
      running = false;
      say(error ? "" : paused ? "Paused." : "Done.");
      draw();
    });
  }

  function pause() {
    running = false;
    say("Paused.");
    draw();
  }

  function reset(to) {
    running = false;
    wrong.textContent = "";
    kernel.ask({ reset: to }, ({ error }) => {
      wrong.textContent = error ?? "";
      say(error ? "" : `All estimates are dropped. Seed ${to}.`);
      draw();
    });
  }

  function pick(number) {
    picked = picked === number ? null : number;
    draw();
  }

  draw();
  if (!live) say("A saved view. To estimate on, run this cell.");
  el.append(view.root);
  model.on("change:shown", draw);
  return () => {
    model.off("change:shown", draw);
    kernel.close();
  };
}

export default { render };
