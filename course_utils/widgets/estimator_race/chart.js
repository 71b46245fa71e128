// Where the means are, and how far from the exact gradient.
import { element } from "../core/dom.js";
import { short, whole } from "../core/numbers.js";
import { svg } from "../core/svg.js";

// A chart, in its own units; it is drawn about as large as it says.
const [LEFT, RIGHT, TOP, BASE, BOTTOM] = [40, 398, 24, 262, 302];

const text = (x, y, anchor, content, name = "") =>
  svg("text", { x, y, "text-anchor": anchor, class: name }, content);
const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: `estimator-race-${name}` });

/** The mark of an estimator: a disc for an unbiased one, a square for another. */
export function mark({ unbiased }, x, y) {
  return unbiased
    ? svg("circle", { cx: x, cy: y, r: 4.5 })
    : svg("rect", { x: x - 4, y: y - 4, width: 8, height: 8 });
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
  for (const { at, label } of up)
    node.append(line(LEFT, at, RIGHT, at, "grid"), text(LEFT - 6, at + 4, "end", label));
  node.append(
    text((LEFT + RIGHT) / 2, BOTTOM - 3, "middle", below),
    text(4, TOP - 9, "start", beside),
    inner,
    ...extra,
  );
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
export function plane({ racers, estimates }, picked) {
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
    across: steps((LEFT - zero) / unit, (RIGHT - zero) / unit).map((at) => ({
      at: zero + at * unit,
      label: short(at),
    })),
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
export function distances({ racers, estimates, trail }, picked, goal) {
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
