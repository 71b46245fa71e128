import { control, element, typed, uniqueId } from "../core/dom.js";

const GUMBEL = "Gumbel-softmax";
const UNITS = 32767; // what the largest number of a column is kept as
// The chart, in its own units; it is drawn about as large as it says. Two panels share the axis of the weight.
const [LEFT, RIGHT, BOTTOM] = [40, 412, 424];
const PANELS = { loss: [24, 236], gradient: [276, 388] };

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

/** All curves: { [curve]: { loss, [tensor]: number[] } }, over the places; no gradient for a tensor, no entry. */
function readCurves({ scales, columns, places, chains }) {
  const units = typed(Int16Array, columns);
  let at = 0;
  const column = (scale) => Array.from(units.subarray(at, (at += places)), (unit) => (unit * scale) / UNITS);
  const read = (key) => {
    const tensors = chains[key.split(" ")[0]].filter(([name, , , , , reached]) => reached && name !== "loss");
    return Object.fromEntries(scales[key].map((scale, i) => [i === 0 ? "loss" : tensors[i - 1][0], column(scale)]));
  };
  return Object.fromEntries(Object.keys(scales).map((key) => [key, read(key)]));
}

/** Round steps that cover the numbers, three to six of them. */
function ticks(numbers) {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const power = 10 ** Math.floor(Math.log10((high - low) / 3));
  const step = power * [1, 2, 5, 10].find((factor) => 5 * factor * power >= high - low);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
}

/** A group of radio buttons that writes a trait. */
function radios(model, legend, trait, options) {
  const name = uniqueId();
  const write = (value) => {
    model.set(trait, value);
    model.save_changes();
  };
  const inputs = options.map((value) => control("input", { type: "radio", name, value, onchange: () => write(value) }));
  const labels = inputs.map((input) => element("label", {}, input, input.value));
  const node = element("fieldset", {}, element("legend", {}, legend), ...labels);
  const show = () => inputs.forEach((input, at) => (input.checked = options[at] === model.get(trait)));
  return { node, show };
}

function render({ model, el }) {
  const shown = model.get("shown");
  const { places, span, choices, chains, temperatures, seeds } = shown;
  const step = (2 * span) / (places - 1);
  const weights = Array.from({ length: places }, (_, at) => step * at - span);
  const curves = readCurves(shown);
  const decimal = (number) => (Number.isInteger(number) ? `${number}.0` : String(number)); // as Python writes it
  const curveOf = (link, seed) =>
    curves[link === GUMBEL ? `${link} ${decimal(model.get("temperature"))} ${seed}` : link];
  const losses = ticks(Object.values(curves).flatMap(({ loss }) => loss)); // one scale for all links

  const links = radios(model, "Link", "link", Object.keys(chains));
  const noise = [
    radios(model, "Temperature", "temperature", temperatures),
    radios(model, "Noise of seed", "seed", seeds),
  ];
  const id = uniqueId();
  const slider = control("input", { type: "range", id, min: 0, max: places - 1, step: 1 });
  const value = element("span", { class: "gradient-link-value", "aria-hidden": "true" }); // read with the slider
  slider.addEventListener("input", () => draw(Number(slider.value)));
  slider.addEventListener("change", () => {
    model.set("weight", Number(weights[slider.value].toFixed(6)));
    model.save_changes();
  });
  const figures = Object.fromEntries(["loss", "autograd", "difference"].map((name) => [name, element("dd")]));
  const verdict = element("p", { class: "gradient-link-verdict", "aria-live": "polite" });
  const chart = element("div", { class: "gradient-link-chart" });
  const chain = element("ol");

  function draw(at) {
    const link = model.get("link");
    const curve = curveOf(link, model.get("seed"));
    const others = link === GUMBEL ? seeds.map((seed) => curveOf(link, seed)) : [];
    const [before, after] = [Math.max(at - 1, 0), Math.min(at + 1, places - 1)];
    const slope = (from, to) => (curve.loss[to] - curve.loss[from]) / (weights[to] - weights[from]);
    const finite = weights.map((_, i) => slope(Math.max(i - 1, 0), Math.min(i + 1, places - 1)));
    value.textContent = short(weights[at]);
    slider.setAttribute("aria-valuetext", value.textContent);
    for (const { node } of noise) node.hidden = link !== GUMBEL;
    figures.loss.textContent = two(curve.loss[at]);
    figures.autograd.textContent = curve.weight ? two(curve.weight[at]) : "none";
    figures.difference.textContent = two(finite[at]);
    const noisy = others.map(({ weight }) => weight[at]);
    verdict.textContent = say(link, curve.weight?.[at], finite[at], noisy, [before, at, after]);
    chart.replaceChildren(drawChart(link, curve, finite, others, at));
    chain.replaceChildren(...drawChain(chains[link], curve, at));
  }

  /** What is to be seen at this place. @param {number[]} noisy the gradients with each seed's noise */
  function say(link, gradient, finite, noisy, [before, at, after]) {
    const width = short(weights[after] - weights[before]);
    const token =
      choices[before] === choices[after]
        ? `The choice is token ${choices[at]}, here and a step to each side: the loss is flat.`
        : `The choice changes here from token ${choices[before]} to token ${choices[after]}. The finite difference is the ` +
          `jump divided by ${width}, the distance taken; over half the distance it is twice as large.`;
    if (link === "argmax") return `${token} Autograd has nothing to report: weight.grad stays None.`;
    if (link === "straight-through")
      return `${token} Autograd reports what a softmax would pass back, which is the slope of another curve.`;
    const agree = Math.abs(gradient - finite) < 0.02;
    const both = agree
      ? "Autograd and the finite difference agree: this is the slope of the curve"
      : `Autograd has the slope at this point, the finite difference the mean over a distance of ${width}`;
    if (link !== GUMBEL) return `${both}. But what the second step reads is a mixture of all tokens, and not one of them.`;
    return (
      `${both}, with this noise held still. The noise of the ${noisy.length} seeds gives gradients from ` +
      `${two(Math.min(...noisy))} to ${two(Math.max(...noisy))} here, and training draws new noise at each step.`
    );
  }

  function drawChart(link, curve, finite, others, at) {
    const slopes = [curve, ...others].flatMap(({ weight }) => weight ?? []);
    const rows = { loss: losses, gradient: ticks([-0.5, 0.5, ...slopes]) }; // a jump's difference leaves the panel
    const scale = ([top, base], { 0: first, length, [length - 1]: last }) => {
      const height = (number) => base - ((base - top) * (number - first)) / (last - first);
      return (number) => Math.min(Math.max(height(number), top), base);
    };
    const x = (weight) => LEFT + ((RIGHT - LEFT) * (weight + span)) / (2 * span);
    const y = Object.fromEntries(Object.entries(PANELS).map(([name, panel]) => [name, scale(panel, rows[name])]));
    const text = (across, down, anchor, content, name = "") =>
      svg("text", { x: across, y: down, "text-anchor": anchor, class: name }, content);
    const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: `gradient-link-${name}` });
    const path = (numbers, panel, name, from = 0) => {
      const points = numbers.map((number, i) => `${x(weights[from + i]).toFixed(1)},${y[panel](number).toFixed(1)}`);
      return svg("polyline", { points: points.join(" "), class: name.replace(/^| /g, "$&gradient-link-") });
    };
    const title = "gradient-link-title";
    const name = `Loss over the weight with ${link}, below it the gradient; the numbers at this weight stand above`;
    const node = svg("svg", { viewBox: `0 0 ${RIGHT + 8} ${BOTTOM}`, role: "img", "aria-label": name });
    for (const panel of ["loss", "gradient"])
      for (const row of rows[panel])
        node.append(
          line(LEFT, y[panel](row), RIGHT, y[panel](row), panel === "gradient" && short(row) === "0" ? "zero" : "grid"),
          text(LEFT - 6, y[panel](row) + 4, "end", short(row)),
        );
    for (const weight of [-span, -span / 2, 0, span / 2, span])
      node.append(text(x(weight), PANELS.gradient[1] + 17, "middle", short(weight)));
    node.append(
      text(LEFT, PANELS.loss[0] - 11, "start", `Loss, −log p(token ${shown.target}) after the second step`, title),
      text(LEFT, PANELS.gradient[0] - 11, "start", "Its gradient", title),
      text((LEFT + RIGHT) / 2, BOTTOM - 3, "middle", "weight"),
      line(x(weights[at]), PANELS.loss[0], x(weights[at]), PANELS.gradient[1], "here"),
    );
    if (!curve.weight) node.append(text(RIGHT, PANELS.gradient[0] - 11, "end", "by autograd: none"));
    for (const other of others)
      if (other !== curve)
        node.append(path(other.loss, "loss", "loss other"), path(other.weight, "gradient", "autograd other"));
    node.append(path(finite, "gradient", "difference"));
    if (curve.weight) node.append(path(curve.weight, "gradient", "autograd"));

    // Of one token the loss has plateaus, each with the token's name, and cliffs between them.
    const hard = link === "argmax" || link === "straight-through";
    const starts = choices.map((_, i) => i).filter((i) => i === 0 || (hard && choices[i] !== choices[i - 1]));
    starts.forEach((from, i) => {
      const to = (starts[i + 1] ?? places) - 1;
      node.append(path(curve.loss.slice(from, to + 1), "loss", "loss", from));
      if (to + 1 < places) node.append(path(curve.loss.slice(to, to + 2), "loss", "cliff", to));
      if (!hard) return;
      const middle = Math.min(Math.max((x(weights[from]) + x(weights[to])) / 2, LEFT + 24), RIGHT - 24);
      node.append(text(middle, y.loss(curve.loss[from]) + 17, "middle", `token ${choices[from]}`));
    });

    // The tangent as autograd has it, as long on the page at every slope.
    const marked = "gradient-link-mark";
    const spot = [x(weights[at]), y.loss(curve.loss[at])];
    if (curve.weight) {
      const [top, base] = PANELS.loss;
      const rise = (-curve.weight[at] * (base - top)) / (rows.loss.at(-1) - rows.loss[0]);
      const run = (RIGHT - LEFT) / (2 * span);
      const [dx, dy] = [run, rise].map((part) => (46 * part) / Math.hypot(run, rise));
      node.append(
        line(spot[0] - dx, spot[1] - dy, spot[0] + dx, spot[1] + dy, "tangent"),
        svg("circle", { cx: spot[0], cy: y.gradient(curve.weight[at]), r: 4, class: `${marked} gradient-link-by-autograd` }),
      );
    }
    node.append(svg("circle", { cx: spot[0], cy: spot[1], r: 5, class: marked }));
    return node;
  }

  /** The tensors from the weight to the loss, and how far up the gradient comes. */
  function drawChain(tensors, curve, at) {
    return tensors.map(([name, code, dtype, needs, operation, reached], number) => {
      const gradient = name === "loss" ? 1 : reached && curve[name][at];
      const size = name === "weight" || name === "loss" ? "gradient" : "‖gradient‖";
      const cut = !needs && tensors[number - 1][3]; // the first that autograd does not follow
      const facts = [dtype, `requires_grad=${needs ? "True" : "False"}`, operation ?? (needs ? "a leaf" : "grad_fn=None")];
      return element(
        "li",
        { class: reached ? "gradient-link-reached" : null },
        element("strong", {}, name),
        element("span", { class: "gradient-link-arrives" }, reached ? `${size} ${two(gradient)}` : "no gradient"),
        element("code", {}, code),
        element("span", { class: "gradient-link-facts" }, facts.join(", ")),
        cut
          ? element(
              "span",
              { class: "gradient-link-cut" },
              element("span", { "aria-hidden": "true" }, "✂ "),
              "The gradient stops here: ids are whole numbers, and carry none.",
            )
          : "",
      );
    });
  }

  const figure = (name, label) => {
    const look = svg("line", { x2: 26, y1: 6, y2: 6, class: `gradient-link-${name}` });
    const key = svg("svg", { width: 26, height: 12, "aria-hidden": "true" }, look);
    return element("div", {}, element("dt", {}, key, label), figures[name]);
  };
  const head = "From the weight down to the loss. The gradient comes up from the loss.";
  el.append(
    element(
      "div",
      { class: "course-widget gradient-link" },
      element("div", { class: "gradient-link-controls" }, links.node, ...noise.map(({ node }) => node)),
      element("div", { class: "gradient-link-slider" }, element("label", { for: id }, "Weight"), slider, value),
      element(
        "dl",
        {},
        figure("loss", "Loss"),
        figure("autograd", "Gradient by autograd"),
        figure("difference", "Finite difference"),
      ),
      verdict,
      element(
        "div",
        { class: "gradient-link-columns" },
        chart,
        element("div", {}, element("p", { class: "gradient-link-head" }, head), chain),
      ),
    ),
  );
  const take = () => {
    for (const { show } of [links, ...noise]) show();
    slider.value = Math.round((model.get("weight") + span) / step);
    draw(Number(slider.value));
  };
  take();
  const traits = ["link", "weight", "temperature", "seed"];
  for (const trait of traits) model.on(`change:${trait}`, take);
  return () => traits.forEach((trait) => model.off(`change:${trait}`, take));
}

export default { render };
