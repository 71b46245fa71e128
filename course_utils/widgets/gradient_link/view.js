import { control, element, typed, uniqueId, write } from "../core/dom.js";
import { short, two } from "../core/numbers.js";
import { svg, ticks } from "../core/svg.js";
import { drawChart } from "./chart.js";
import { drawChain, GUMBEL, say } from "./words.js";

const UNITS = 32767; // what the largest number of a column is kept as

/** All curves: { [curve]: { loss, [tensor]: number[] } }, over the places; no gradient for a tensor, no entry. */
function readCurves({ scales, columns, places, chains }) {
  const units = typed(Int16Array, columns);
  let at = 0;
  const column = (scale) => Array.from(units.subarray(at, (at += places)), (unit) => (unit * scale) / UNITS);
  const read = (key) => {
    const tensors = chains[key.split(" ")[0]].filter(([name, , , , , reached]) => reached && name !== "loss");
    return Object.fromEntries(
      scales[key].map((scale, i) => [i === 0 ? "loss" : tensors[i - 1][0], column(scale)]),
    );
  };
  return Object.fromEntries(Object.keys(scales).map((key) => [key, read(key)]));
}

/** A group of radio buttons that writes a trait. */
function radios(model, legend, trait, options) {
  const name = uniqueId();
  const inputs = options.map((value) =>
    control("input", { type: "radio", name, value, onchange: () => write(model, { [trait]: value }) }),
  );
  const labels = inputs.map((input) => element("label", {}, input, input.value));
  const node = element("fieldset", {}, element("legend", {}, legend), ...labels);
  const show = () => inputs.forEach((input, at) => (input.checked = options[at] === model.get(trait)));
  return { node, show };
}

/** What never changes: all curves, the weights at their places, and what the chart is drawn from. */
function readState(model) {
  const shown = model.get("shown");
  const { places, span, choices, target } = shown;
  const step = (2 * span) / (places - 1);
  const weights = Array.from({ length: places }, (_, at) => step * at - span);
  const curves = readCurves(shown);
  const decimal = (number) => (Number.isInteger(number) ? `${number}.0` : String(number)); // as Python writes it
  const curveOf = (link, seed) =>
    curves[link === GUMBEL ? `${link} ${decimal(model.get("temperature"))} ${seed}` : link];
  const losses = ticks(Object.values(curves).flatMap(({ loss }) => loss)); // one scale for all links
  return { ...shown, step, weights, curveOf, fixed: { weights, span, choices, target, losses } };
}

/** The curve's finite difference at each weight: number[] */
function finiteDifferences({ loss }, weights) {
  const last = weights.length - 1;
  const slope = (from, to) => (loss[to] - loss[from]) / (weights[to] - weights[from]);
  return weights.map((_, i) => slope(Math.max(i - 1, 0), Math.min(i + 1, last)));
}

/** The parts that are drawn anew at each weight, and the page that holds them. */
function createView({ links, noise, slider, id }) {
  const value = element("span", { class: "gradient-link-value", "aria-hidden": "true" }); // read with the slider
  const figures = Object.fromEntries(["loss", "autograd", "difference"].map((name) => [name, element("dd")]));
  const verdict = element("p", { class: "gradient-link-verdict", "aria-live": "polite" });
  const chart = element("div", { class: "gradient-link-chart" });
  const chain = element("ol");
  const figure = (name, label) => {
    const look = svg("line", { x2: 26, y1: 6, y2: 6, class: `gradient-link-${name}` });
    const key = svg("svg", { width: 26, height: 12, "aria-hidden": "true" }, look);
    return element("div", {}, element("dt", {}, key, label), figures[name]);
  };
  const head = "From the weight down to the loss. The gradient comes up from the loss.";
  const root = element(
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
  );
  return { root, value, figures, verdict, chart, chain };
}

function render({ model, el }) {
  const { chains, places, seeds, span, step, temperatures, weights, ...state } = readState(model);
  const links = radios(model, "Link", "link", Object.keys(chains));
  const noise = [
    radios(model, "Temperature", "temperature", temperatures),
    radios(model, "Noise of seed", "seed", seeds),
  ];
  const id = uniqueId();
  const slider = control("input", { type: "range", id, min: 0, max: places - 1, step: 1 });
  slider.addEventListener("input", () => draw(Number(slider.value)));
  slider.addEventListener("change", () => {
    write(model, { weight: Number(weights[slider.value].toFixed(6)) });
  });
  const view = createView({ links, noise, slider, id });
  const { value, figures, verdict, chart, chain } = view;
  el.append(view.root);

  function draw(at) {
    const link = model.get("link");
    const curve = state.curveOf(link, model.get("seed"));
    const others = link === GUMBEL ? seeds.map((seed) => state.curveOf(link, seed)) : [];
    const [before, after] = [Math.max(at - 1, 0), Math.min(at + 1, places - 1)];
    const finite = finiteDifferences(curve, weights);
    value.textContent = short(weights[at]);
    slider.setAttribute("aria-valuetext", value.textContent);
    for (const { node } of noise) node.hidden = link !== GUMBEL;
    figures.loss.textContent = two(curve.loss[at]);
    figures.autograd.textContent = curve.weight ? two(curve.weight[at]) : "none";
    figures.difference.textContent = two(finite[at]);
    const noisy = others.map(({ weight }) => weight[at]);
    verdict.textContent = say(link, curve.weight?.[at], finite[at], noisy, [before, at, after], state.fixed);
    chart.replaceChildren(drawChart({ link, curve, finite, others, at }, state.fixed));
    chain.replaceChildren(...drawChain(chains[link], curve, at));
  }

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
