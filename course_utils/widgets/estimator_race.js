import { arrowKeys, connect, control, element, uniqueId } from "./shared.js";

const MOST_SEED = 2 ** 32 - 1;
const MOST_DISTANCE = 10; // the top of the second chart; a first estimate may be further off
// A chart, in its own units; it is drawn about as large as it says.
const CHART = { left: 40, right: 400, top: 22, base: 262, bottom: 298 };
const TELLING = 3; // standard errors; hardly any noise puts a mean further away

const whole = new Intl.NumberFormat("en-US");
const two = (number) => (Math.abs(number) < 0.005 ? "0.00" : number.toFixed(2).replace("-", "−"));
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
function mark(x, y, unbiased) {
  return unbiased ? svg("circle", { cx: x, cy: y, r: 4.5 }) : svg("rect", { x: x - 4, y: y - 4, width: 8, height: 8 });
}

/** Labels at [x, y] moved up or down until none covers another. */
function apart(labels) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, at) => {
    for (const other of labels.slice(0, at))
      if (Math.abs(label.x - other.x) < 16 && label.y - other.y < 12) label.y = other.y + 12;
  });
}

/** The frame of a chart: an svg that can be drawn into, and one within it that cuts off what leaves the frame. */
function frame(title, name) {
  const { left, right, top, base, bottom } = CHART;
  const node = svg("svg", { viewBox: `0 0 ${right + 22} ${bottom}`, role: "img", "aria-label": name });
  const inner = svg("svg", { x: left, y: top, width: right - left, height: base - top, viewBox: `${left} ${top} ${right - left} ${base - top}` });
  return { node, inner, head: element("p", {}, title) };
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
  const button = control("button", { type: "button", class: "course-action estimator-race-go", disabled: !live, onclick: () => (running ? pause() : start()) });
  const again = control("button", { type: "button", class: "course-action", disabled: !live, onclick: () => reset(model.get("shown").seed) }, "Reset");
  const id = uniqueId();
  const seed = control("input", { type: "number", id, min: 0, max: MOST_SEED, step: 1, disabled: !live });
  seed.addEventListener("change", () => reset(Math.min(Math.max(Math.trunc(seed.value) || 0, 0), MOST_SEED)));
  const progress = element("progress", { "aria-label": "Estimates made" });
  const count = element("span", { class: "estimator-race-count" });
  const verdict = element("p", { class: "estimator-race-verdict" });
  const charts = element("div", { class: "estimator-race-charts" });
  const body = element("tbody");
  const columns = ["Estimator", "By proof", "Along", "Across", "Bias ± standard error", "More than noise", "Noise"];
  const head = element("thead", {}, element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column))));
  const numbers = element("div", { class: "estimator-race-scroll" }, element("table", {}, head, body));
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
    seed.value = own;
    progress.max = goal;
    progress.value = Math.min(estimates, goal);
    progress.hidden = !running;
    count.textContent = `${whole.format(estimates)} estimates each, of ${samples} ${samples === 1 ? "sample" : "samples"}`;
    verdict.textContent = judge(racers, estimates);
    charts.replaceChildren(...[plane(), distances()].map(({ node, head }) => element("div", {}, head, node)));
    // Rows are kept, so that the focus stays on a button.
    racers.forEach((racer, number) => fill(body.children[number] ?? row(number), racer, number));
  }

  function judge(racers, estimates) {
    if (estimates === 0)
      return live
        ? "Nothing is estimated yet. Press Start: the means move as the estimates come in."
        : "Nothing was estimated when this page was saved. Run the cell and press Start.";
    if (estimates === 1) return "One estimate each: how much they scatter can be told from two on.";
    const far = racers.filter(beyond).length;
    const them = far === 1 ? "One mean is" : `${far} of ${racers.length} means are`;
    if (far === 0) return "No mean is further from the exact gradient than its noise explains. More estimates tell more.";
    return (
      `${them} further from the exact gradient than three standard errors: that is bias. ` +
      (far < racers.length ? "Of the others so few estimates cannot tell." : "")
    );
  }

  function row(number) {
    const toggle = control("button", { type: "button", tabindex: number === 0 ? 0 : -1, onclick: () => pick(number) });
    const node = element("tr", {}, element("th", { scope: "row" }, toggle), ...columns.slice(1).map(() => element("td")));
    body.append(node);
    return node;
  }

  function fill(node, racer, number) {
    const [toggle, proof, ...cells] = [node.querySelector("button"), ...node.querySelectorAll("td")];
    toggle.setAttribute("aria-pressed", String(picked === number));
    const look = svg("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true", class: kind(racer) }, mark(0, 0, racer.unbiased));
    toggle.replaceChildren(look, `${number + 1} ${racer.name}`);
    proof.textContent = racer.unbiased ? "unbiased" : "biased";
    const { along, across, bias, bias_error, noise } = racer;
    const known = bias_error !== null && bias_error !== undefined;
    const values = bias === undefined ? ["", "", "", "", ""] : [two(along), two(across), two(bias) + (known ? ` ± ${two(bias_error)}` : ""), !known ? "" : beyond(racer) ? "yes" : "not so far", known ? two(noise) : ""];
    values.forEach((value, at) => (cells[at].textContent = value));
  }

  const beyond = ({ bias, bias_error }) => bias > TELLING * bias_error + 0.001;
  const kind = ({ unbiased }) => (unbiased ? "estimator-race-unbiased" : "estimator-race-biased");
  const faded = (number) => (picked === null || picked === number ? "" : " estimator-race-faded");

  /** Where the means are: along the exact gradient, and across. Both axes have one scale. */
  function plane() {
    const { racers, estimates } = model.get("shown");
    const { left, right, top, base } = CHART;
    const chart = frame(
      "Where the means are",
      "Each mean's part along the exact gradient and across it; the table has the numbers",
    );
    const some = estimates > 0 ? racers : [];
    const low = Math.min(-0.25, ...some.map(({ along }) => along - 0.15));
    const high = Math.max(1.5, ...some.map(({ along }) => along + 0.25));
    const tall = Math.max(0.8, ...some.map(({ across }) => across + 0.15));
    const unit = Math.min((right - left) / (high - low), (base - top) / tall);
    const middle = (left + right) / 2 - ((low + high) / 2) * unit;
    const [x, y] = [(along) => middle + along * unit, (across) => base - across * unit];
    const step = [0.5, 1, 2, 5, 10, 20, 50].find((one) => one * unit >= 40) ?? 100;
    const { node, inner } = chart;
    for (let at = Math.ceil((left - middle) / unit / step) * step; x(at) <= right; at += step) {
      inner.append(line(x(at), top, x(at), base, "grid"));
      node.append(text(x(at), base + 16, "middle", short(at)));
    }
    for (let at = 0; y(at) >= top; at += step) {
      inner.append(line(left, y(at), right, y(at), "grid"));
      node.append(text(left - 6, y(at) + 4, "end", short(at)));
    }
    node.append(text((left + right) / 2, CHART.bottom - 3, "middle", "along the exact gradient, in its lengths"), text(left - 34, top - 8, "start", "across it"));
    node.append(inner, line(x(0), base, x(1), base, "exact"));
    const labels = [];
    racers.forEach((racer, number) => {
      if (estimates === 0) return;
      const group = svg("g", { class: kind(racer) + faded(number) });
      const path = [...racer.trail, [racer.along, racer.across]].map(([along, across]) => `${x(along).toFixed(1)},${y(across).toFixed(1)}`);
      group.append(svg("polyline", { points: path.join(" ") }));
      inner.append(group);
      const [across, up] = [x(racer.along), y(racer.across)];
      node.append(svg("g", { class: kind(racer) + faded(number) }, mark(across, up, racer.unbiased)));
      labels.push({ x: across, y: up + 4, number });
    });
    apart(labels);
    for (const label of labels) node.append(text(label.x + 8, label.y, "start", String(label.number + 1), `estimator-race-number${faded(label.number)}`));
    node.append(svg("path", { d: `M${x(1) - 7},${base - 7}l14,14m0,-14l-14,14`, class: "estimator-race-target" }));
    return chart;
  }

  /** How far the means are from the exact gradient as estimates come in, both axes logarithmic. */
  function distances() {
    const { racers, estimates, trail } = model.get("shown");
    const { left, right, top, base } = CHART;
    const chart = frame("How far they are from it", "Distance of each mean from the exact gradient over the estimates; the table has the last ones");
    const { node, inner } = chart;
    const most = Math.max(estimates, chosen());
    const far = racers.flatMap(({ trail: path, bias }) => [...(path ?? []).map(([a, b]) => Math.hypot(a - 1, b)), bias ?? 1]);
    const least = Math.max(0.005, Math.min(0.1, ...far)) * 0.8;
    const top10 = Math.min(MOST_DISTANCE, Math.max(2, ...far) * 1.1);
    const x = (n) => left + ((right - left) * Math.log(n)) / Math.log(most);
    const y = (distance) => base - ((base - top) * Math.log(Math.max(distance, 1e-4) / least)) / Math.log(top10 / least);
    for (const decade of [0.01, 0.1, 1, 10])
      for (const at of [decade, 2 * decade, 5 * decade])
        if (at >= least && at <= top10) {
          inner.append(line(left, y(at), right, y(at), "grid"));
          node.append(text(left - 6, y(at) + 4, "end", short(at)));
        }
    for (let n = 1; n <= most; n *= 10) node.append(text(x(n), base + 16, "middle", whole.format(n)));
    if (x(10 ** Math.floor(Math.log10(most))) < right - 40) node.append(text(right, base + 16, "middle", whole.format(most)));
    node.append(text((left + right) / 2, CHART.bottom - 3, "middle", "estimates"), text(left - 34, top - 8, "start", "distance"));
    inner.append(line(x(1), y(1), x(most), y(1 / Math.sqrt(most)), "guide"));
    node.append(inner);
    if (estimates === 0) return chart;
    const labels = racers.map((racer, number) => {
      const points = [...racer.trail.map(([a, b], at) => [trail[at], Math.hypot(a - 1, b)]), [estimates, racer.bias]];
      const path = points.map(([n, distance]) => `${x(n).toFixed(1)},${y(distance).toFixed(1)}`);
      inner.append(svg("g", { class: kind(racer) + faded(number) }, svg("polyline", { points: path.join(" ") })));
      node.append(svg("g", { class: kind(racer) + faded(number) }, mark(x(estimates), y(racer.bias), racer.unbiased)));
      return { x: x(estimates), y: y(racer.bias) + 4, number };
    });
    apart(labels);
    for (const label of labels) node.append(text(label.x + 8, label.y, "start", String(label.number + 1), `estimator-race-number${faded(label.number)}`));
    return chart;
  }

  draw();
  if (!live) say("A saved view. To estimate on, run this cell.");
  el.append(
    element(
      "div",
      { class: "course-widget estimator-race" },
      element("div", { class: "estimator-race-controls" }, goalChoice, button, again, element("span", { class: "estimator-race-seed" }, element("label", { for: id }, "Seed"), seed), progress, count),
      wrong,
      verdict,
      charts,
      element("p", { class: "estimator-race-legend" }, "Cross: the exact gradient. Disc: unbiased by proof. Square: biased. Dotted: a distance that falls with the root of the number of estimates, as noise does."),
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
