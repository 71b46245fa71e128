import { arrowKeys, connect, control, element, uniqueId } from "../core/dom.js";

const MOST_SEED = 2 ** 32 - 1;
const TELLING = 3; // standard errors: noise alone hardly ever puts a mean further away
const COLUMNS = ["Estimator", "By proof", "Along", "Across", "Bias ± error", "More than noise", "Noise"];
const LEGEND =
  "Cross: the exact gradient. Disc: unbiased by proof. Square: biased. Dotted: 1/√estimates, as noise falls. " +
  "Bias: the distance, ± one standard error. Noise: how far one estimate scatters. Choose a name to pick it out.";
// A chart, in its own units; it is drawn about as large as it says.
const [LEFT, RIGHT, TOP, BASE, BOTTOM] = [40, 398, 24, 262, 302];

const whole = new Intl.NumberFormat("en-US");
/** A number as text: two decimals, no minus before 0. */
const two = (number) => (Math.abs(number) < 0.005 ? "0.00" : number.toFixed(2).replace("-", "−"));
/** A number as text, as short as it is. */
const short = (number) => String(Number(number.toFixed(4))).replace("-", "−");

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const text = (x, y, anchor, content, name = "") => svg("text", { x, y, "text-anchor": anchor, class: name }, content);
const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: `estimator-race-${name}` });

/** The mark of an estimator: a disc for an unbiased one, a square for another. */
function mark({ unbiased }, x, y) {
  return unbiased ? svg("circle", { cx: x, cy: y, r: 4.5 }) : svg("rect", { x: x - 4, y: y - 4, width: 8, height: 8 });
}

/** True where noise alone does not explain how far the mean is from the exact gradient. */
function biased({ bias, bias_error }) {
  return bias > TELLING * bias_error + 0.001; // without noise, rounding is left
}

/**
 * A chart with a line and a mark for each estimator.
 * @param {{ at: number, label?: string }[]} across   where the axes have a grid line or a label, in the chart's
 * @param {{ at: number, label: string }[]} up        units
 * @param {[x: number, y: number][][]} paths          of each estimator, in the chart's units; may leave the frame
 */
function chart({ title, name, axes: [below, beside], across, up, racers, paths, picked, extra }) {
  const node = svg("svg", { viewBox: `0 0 ${RIGHT + 24} ${BOTTOM}`, role: "img", "aria-label": name });
  const box = { x: LEFT, y: TOP, width: RIGHT - LEFT, height: BASE - TOP };
  const inner = svg("svg", { ...box, viewBox: Object.values(box).join(" ") }); // cuts off what leaves the frame
  for (const { at, label, grid = true } of across) {
    if (grid) node.append(line(at, TOP, at, BASE, "grid"));
    node.append(text(at, BASE + 20, "middle", label));
  }
  for (const { at, label } of up) node.append(line(LEFT, at, RIGHT, at, "grid"), text(LEFT - 6, at + 4, "end", label));
  node.append(text((LEFT + RIGHT) / 2, BOTTOM - 3, "middle", below), text(4, TOP - 9, "start", beside), inner, ...extra);
  const look = ({ unbiased }, number) =>
    (unbiased ? "estimator-race-unbiased" : "estimator-race-biased") +
    (picked === null || picked === number ? "" : " estimator-race-faded");
  paths.forEach((path, number) => {
    const points = path.map((place) => place.map((part) => part.toFixed(1)).join(","));
    inner.append(svg("polyline", { points: points.join(" "), class: look(racers[number], number) }));
  });
  const ends = paths.map((path, number) => ({ x: path.at(-1)[0], y: path.at(-1)[1], number }));
  for (const { x, y, number } of ends)
    node.append(svg("g", { class: look(racers[number], number) }, mark(racers[number], x, y)));
  // The numbers stand beside the marks, lower where they would cover each other.
  ends.sort((a, b) => a.y - b.y);
  ends.forEach((end, rank) => {
    for (const other of ends.slice(0, rank))
      if (Math.abs(end.x - other.x) < 16 && end.y - other.y < 12) end.y = other.y + 12;
    const faded = picked === null || picked === end.number ? "" : " estimator-race-faded";
    node.append(text(end.x + 8, end.y + 4, "start", String(end.number + 1), `estimator-race-number${faded}`));
  });
  return element("div", {}, element("p", {}, title), node);
}

/** Where the means are, along the exact gradient and across it. Both axes have one scale. */
function plane({ racers, estimates }, picked) {
  const some = estimates > 0 ? racers : [];
  const low = Math.min(-0.25, ...some.map(({ along }) => along - 0.15));
  const high = Math.max(1.5, ...some.map(({ along }) => along + 0.25));
  const tall = Math.max(0.8, ...some.map(({ across }) => across + 0.15));
  const unit = Math.min((RIGHT - LEFT) / (high - low), (BASE - TOP) / tall);
  const zero = (LEFT + RIGHT) / 2 - ((low + high) / 2) * unit;
  const place = ([along, across]) => [zero + along * unit, BASE - across * unit];
  const step = [0.5, 1, 2, 5, 10, 20, 50, 100].find((one) => one * unit >= 40) ?? 1000;
  const steps = (from, to) => {
    const first = Math.ceil(from / step - 1e-9);
    return Array.from({ length: Math.floor(to / step + 1e-9) - first + 1 }, (_, at) => (first + at) * step);
  };
  const [one] = place([1, 0]);
  return chart({
    title: "Where the means are",
    name: "The part of each mean along the exact gradient, and across it; the table has the numbers",
    axes: ["along the exact gradient, in its lengths", "across it"],
    across: steps((LEFT - zero) / unit, (RIGHT - zero) / unit).map((at) => ({ at: zero + at * unit, label: short(at) })),
    up: steps(0, (BASE - TOP) / unit).map((at) => ({ at: BASE - at * unit, label: short(at) })),
    racers,
    paths: some.map(({ trail, along, across }) => [...trail, [along, across]].map(place)),
    picked,
    extra: [
      line(zero, BASE, one, BASE, "exact"),
      svg("path", { d: `M${one - 7},${BASE - 7}l14,14m0,-14l-14,14`, class: "estimator-race-exact" }),
    ],
  });
}

/** How far the means are from the exact gradient as estimates come in; both axes are logarithmic. */
function distances({ racers, estimates, trail }, picked, goal) {
  const most = Math.max(estimates, goal);
  const paths = (estimates > 0 ? racers : []).map((racer) => [
    ...racer.trail.map(([along, across], at) => [trail[at], Math.hypot(along - 1, across)]),
    [estimates, racer.bias],
  ]);
  const all = paths.flatMap((path) => path.map(([, distance]) => distance));
  const [low, high] = [Math.max(0.004, Math.min(0.1, ...all) * 0.8), Math.max(2, ...all) * 1.1];
  const x = (n) => LEFT + ((RIGHT - LEFT) * Math.log(n)) / Math.log(most);
  const share = (distance) => Math.log(Math.max(distance, low / 2) / low) / Math.log(high / low);
  const y = (distance) => BASE - (BASE - TOP) * share(distance);
  const decades = [0.001, 0.01, 0.1, 1, 10, 100];
  const rows = decades.flatMap((decade) => (high / low > 300 ? [decade] : [decade, 2 * decade, 5 * decade]));
  const counts = [1, 10, 100, 1000, 10000, 100000].filter((n) => n === 1 || x(n) < RIGHT - 30);
  return chart({
    title: "How far they are from it",
    name: "The distance of each mean from the exact gradient, over the estimates; the table has the last ones",
    axes: ["estimates", "distance"],
    across: [...counts, most].map((n) => ({ at: x(n), label: whole.format(n), grid: false })),
    up: rows.filter((row) => row >= low && row <= high).map((row) => ({ at: y(row), label: short(row) })),
    racers,
    paths: paths.map((path) => path.map(([n, distance]) => [x(n), y(distance)])),
    picked,
    extra: [line(x(1), y(1), x(Math.min(most, low ** -2)), y(Math.max(most ** -0.5, low)), "guide")],
  });
}

function render({ model, el }) {
  const live = model.get("live");
  let running = false;
  let picked = null; // the number of the estimator that stands out
  const status = element("p", { class: "course-status", role: "status" });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const say = (sentence) => (status.textContent = sentence);
  // A slice may take a second, and its progress is shown: only a long silence is worth a word.
  const kernel = connect(model, (sentence) => {
    const usual = sentence === "" || sentence.startsWith("Kernel busy");
    say(running && usual ? "Estimating." : sentence);
  });

  const name = uniqueId();
  const { goals, goal: asked } = model.get("shown");
  const first = goals.find((goal) => goal >= asked) ?? goals.at(-1); // `run` takes any number
  const inputs = goals.map((goal) =>
    control("input", { type: "radio", name, value: goal, checked: goal === first, disabled: !live }),
  );
  const goalChoice = element(
    "fieldset",
    {},
    element("legend", {}, "Up to"),
    ...inputs.map((input) => element("label", {}, input, whole.format(input.value))),
    "estimates each",
  );
  const action = (onclick, label) =>
    control("button", { type: "button", class: "course-action", disabled: !live, onclick }, label);
  const button = action(() => (running ? pause() : start()), "Start");
  const again = action(() => reset(model.get("shown").seed), "Reset");
  const id = uniqueId();
  const seed = control("input", { type: "number", id, min: 0, max: MOST_SEED, step: 1, disabled: !live });
  seed.addEventListener("change", () => reset(Math.min(Math.max(Math.trunc(seed.value) || 0, 0), MOST_SEED)));
  const progress = element("progress", { "aria-label": "Estimates made" });
  const count = element("span", { class: "estimator-race-count" });
  const verdict = element("p", { class: "estimator-race-verdict" });
  const charts = element("div", { class: "estimator-race-charts" });
  const body = element("tbody");
  const head = element("tr", {}, ...COLUMNS.map((column) => element("th", { scope: "col" }, column)));
  const numbers = element("div", { class: "estimator-race-scroll" }, element("table", {}, element("thead", {}, head), body));
  arrowKeys(body, "button");

  const chosen = () => Number(inputs.find((input) => input.checked).value);

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

  function draw() {
    const { racers, estimates, samples, seed: own } = model.get("shown");
    const goal = chosen();
    button.textContent = running ? "Pause" : estimates > 0 ? "Continue" : "Start";
    for (const input of inputs) input.disabled = !live || running;
    again.disabled = !live || (estimates === 0 && !running);
    if (!seed.matches(":focus")) seed.value = own; // what is being typed stays
    progress.max = goal;
    progress.value = Math.min(estimates, goal);
    progress.hidden = !running;
    count.textContent =
      `${whole.format(estimates)} ${estimates === 1 ? "estimate" : "estimates"} each, ` +
      `from ${samples} ${samples === 1 ? "sample" : "samples"} an estimate`;
    verdict.textContent = judge(racers, estimates);
    charts.replaceChildren(plane(model.get("shown"), picked), distances(model.get("shown"), picked, goal));
    // Rows are kept, so that the focus stays on a button.
    racers.forEach((racer, number) => fill(body.children[number] ?? row(racer, number), racer, number));
  }

  function judge(racers, estimates) {
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

  function row(racer, number) {
    const tabindex = number === 0 ? 0 : -1;
    const toggle = control("button", { type: "button", tabindex, onclick: () => pick(number) });
    const look = svg("g", { class: `estimator-race-${racer.unbiased ? "unbiased" : "biased"}` }, mark(racer, 0, 0));
    const picture = svg("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" }, look);
    toggle.append(picture, `${number + 1} ${racer.name}`);
    const cells = COLUMNS.slice(1).map(() => element("td"));
    const node = element("tr", {}, element("th", { scope: "row" }, toggle), ...cells);
    body.append(node);
    return node;
  }

  function fill(node, racer, number) {
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

  draw();
  if (!live) say("A saved view. To estimate on, run this cell.");
  el.append(
    element(
      "div",
      { class: "course-widget estimator-race" },
      element(
        "div",
        { class: "estimator-race-controls" },
        goalChoice,
        button,
        again,
        element("span", { class: "estimator-race-seed" }, element("label", { for: id }, "Seed"), seed),
        progress,
        count,
      ),
      wrong,
      verdict,
      charts,
      element("p", { class: "estimator-race-legend" }, LEGEND),
      numbers,
      status,
    ),
  );
  model.on("change:shown", draw);
  return () => {
    model.off("change:shown", draw);
    kernel.close();
  };
}

export default { render };
