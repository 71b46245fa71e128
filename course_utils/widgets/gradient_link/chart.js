// The loss over the weight, and below it the gradient.
import { short } from "../core/numbers.js";
import { svg, ticks } from "../core/svg.js";

// In the chart's own units; it is drawn about as large as it says. The two panels share the axis of the weight.
const [LEFT, RIGHT, BOTTOM] = [40, 412, 424];
const PANELS = { loss: [24, 236], gradient: [276, 388] };
const TITLE = "gradient-link-title";
const MARK = "gradient-link-mark";

const text = (x, y, anchor, content, name = "") =>
  svg("text", { x, y, "text-anchor": anchor, class: name }, content);
const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: `gradient-link-${name}` });

/**
 * @param {object} now
 * @param {string} now.link
 * @param {object} now.curve see readCurves
 * @param {number[]} now.finite the finite difference at each weight
 * @param {object[]} now.others the curves with each seed's noise
 * @param {number} now.at the place that is looked at
 * @param {{ weights: number[], span: number, choices: number[], losses: number[], target: number }} fixed
 *   `losses` are the ticks of the loss, one scale for all links
 */
export function drawChart(now, fixed) {
  const { link, curve, finite, others } = now;
  const slopes = [curve, ...others].flatMap(({ weight }) => weight ?? []);
  // A jump's difference leaves the panel.
  const scales = scalesOf(fixed, { loss: fixed.losses, gradient: ticks([-0.5, 0.5, ...slopes]) });
  const name = `Loss over the weight with ${link}, below it the gradient; the numbers at this weight stand above`;
  const node = svg("svg", { viewBox: `0 0 ${RIGHT + 8} ${BOTTOM}`, role: "img", "aria-label": name });
  node.append(...frame(scales, now, fixed));
  for (const other of others)
    if (other !== curve)
      node.append(
        scales.path(other.loss, "loss", "loss other"),
        scales.path(other.weight, "gradient", "autograd other"),
      );
  node.append(scales.path(finite, "gradient", "difference"));
  if (curve.weight) node.append(scales.path(curve.weight, "gradient", "autograd"));
  node.append(...lossCurve(scales, now, fixed), ...marks(scales, now, fixed));
  return node;
}

/** How weights and numbers become places: `x(weight)`, `y[panel](number)`, and `path` for a whole curve. */
function scalesOf({ weights, span }, rows) {
  const scale = ([top, base], { 0: first, length, [length - 1]: last }) => {
    const height = (number) => base - ((base - top) * (number - first)) / (last - first);
    return (number) => Math.min(Math.max(height(number), top), base);
  };
  const x = (weight) => LEFT + ((RIGHT - LEFT) * (weight + span)) / (2 * span);
  const y = Object.fromEntries(
    Object.entries(PANELS).map(([name, panel]) => [name, scale(panel, rows[name])]),
  );
  const path = (numbers, panel, name, from = 0) => {
    const points = numbers.map(
      (number, i) => `${x(weights[from + i]).toFixed(1)},${y[panel](number).toFixed(1)}`,
    );
    return svg("polyline", { points: points.join(" "), class: name.replace(/^| /g, "$&gradient-link-") });
  };
  return { rows, x, y, path };
}

/** Grid, labels, titles, and the line at the weight that is looked at. */
function frame({ rows, x, y }, { curve, at }, { weights, span, target }) {
  const nodes = [];
  for (const panel of ["loss", "gradient"])
    for (const row of rows[panel]) {
      const look = panel === "gradient" && short(row) === "0" ? "zero" : "grid";
      nodes.push(line(LEFT, y[panel](row), RIGHT, y[panel](row), look));
      nodes.push(text(LEFT - 6, y[panel](row) + 4, "end", short(row)));
    }
  for (const weight of [-span, -span / 2, 0, span / 2, span])
    nodes.push(text(x(weight), PANELS.gradient[1] + 17, "middle", short(weight)));
  nodes.push(
    text(LEFT, PANELS.loss[0] - 11, "start", `Loss, −log p(token ${target}) after the second step`, TITLE),
    text(LEFT, PANELS.gradient[0] - 11, "start", "Its gradient", TITLE),
    text((LEFT + RIGHT) / 2, BOTTOM - 3, "middle", "weight"),
    line(x(weights[at]), PANELS.loss[0], x(weights[at]), PANELS.gradient[1], "here"),
  );
  if (!curve.weight) nodes.push(text(RIGHT, PANELS.gradient[0] - 11, "end", "by autograd: none"));
  return nodes;
}

/** Of one token the loss has plateaus, each with the token's name, and cliffs between them. */
function lossCurve({ x, y, path }, { link, curve }, { weights, choices }) {
  const hard = link === "argmax" || link === "straight-through";
  const starts = choices.map((_, i) => i).filter((i) => i === 0 || (hard && choices[i] !== choices[i - 1]));
  return starts.flatMap((from, i) => {
    const to = (starts[i + 1] ?? choices.length) - 1;
    const nodes = [path(curve.loss.slice(from, to + 1), "loss", "loss", from)];
    if (to + 1 < choices.length) nodes.push(path(curve.loss.slice(to, to + 2), "loss", "cliff", to));
    if (!hard) return nodes;
    const middle = Math.min(Math.max((x(weights[from]) + x(weights[to])) / 2, LEFT + 24), RIGHT - 24);
    return [...nodes, text(middle, y.loss(curve.loss[from]) + 17, "middle", `token ${choices[from]}`)];
  });
}

/** The marks at the weight, and the tangent as autograd has it, as long on the page at every slope. */
function marks({ rows, x, y }, { curve, at }, { weights, span }) {
  const spot = [x(weights[at]), y.loss(curve.loss[at])];
  const point = svg("circle", { cx: spot[0], cy: spot[1], r: 5, class: MARK });
  if (!curve.weight) return [point];
  const [top, base] = PANELS.loss;
  const rise = (-curve.weight[at] * (base - top)) / (rows.loss.at(-1) - rows.loss[0]);
  const run = (RIGHT - LEFT) / (2 * span);
  const [dx, dy] = [run, rise].map((part) => (46 * part) / Math.hypot(run, rise));
  const look = `${MARK} gradient-link-by-autograd`;
  return [
    line(spot[0] - dx, spot[1] - dy, spot[0] + dx, spot[1] + dy, "tangent"),
    svg("circle", { cx: spot[0], cy: y.gradient(curve.weight[at]), r: 4, class: look }),
    point,
  ];
}
