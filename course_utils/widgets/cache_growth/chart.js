// Curves over the number of positions in the text.
import { element } from "../core/dom.js";
import { svg, ticks } from "../core/svg.js";

// A chart, in its own units; it is drawn about as large as it says.
const CHART = { width: 400, height: 210, left: 46, right: 14, top: 24, bottom: 34 };

/**
 * Curves over the number of positions, all axes from 0.
 * @param {{ name: string, points: [x: number, y: number][], end?: string, dots?: [number, number][] }[]} curves
 *   `name` is also the class; `end` is written at the last point, `dots` are drawn as they are
 */
export function chart({ title, most, largest, lengths, curves }) {
  const { width, height, left, right, top, bottom } = CHART;
  const rows = ticks([0, largest]);
  const x = (positions) => left + ((width - left - right) * positions) / most;
  const y = (value) => height - bottom - ((height - top - bottom) * value) / rows.at(-1);
  const text = (at, up, anchor, content, name = "") =>
    svg("text", { x: at, y: up, "text-anchor": anchor, class: name }, content);
  const decimals = Math.max(0, -Math.floor(Math.log10(rows[1])));
  const tick = new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals });
  const empty = curves.every(({ points }) => points.length === 0); // then any scale would be made up
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  for (const value of rows) {
    node.append(
      svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "cache-growth-grid" }),
      text(left - 6, y(value) + 4, "end", empty ? "" : tick.format(value)),
    );
  }
  for (const length of lengths) node.append(text(x(length), height - bottom + 16, "middle", String(length)));
  node.append(text((left + width - right) / 2, height - 3, "middle", "positions in the text"));
  const ends = [];
  for (const { name, points, end, dots = [] } of curves) {
    const shape = name === "without" ? [-3.5, -3.5, 7, 7] : null;
    const group = svg("g", { class: `cache-growth-${name}` });
    group.append(
      ...dots.map(([n, value]) =>
        svg("circle", { cx: x(n), cy: y(value), r: 1.6, class: "cache-growth-dot" }),
      ),
    );
    group.append(svg("polyline", { points: points.map(([n, value]) => `${x(n)},${y(value)}`).join(" ") }));
    if (name !== "predicted")
      for (const [n, value] of points) {
        group.append(
          shape
            ? svg("rect", { x: x(n) + shape[0], y: y(value) + shape[1], width: shape[2], height: shape[3] })
            : svg("circle", { cx: x(n), cy: y(value), r: 4 }),
        );
      }
    node.append(group);
    if (end && points.length > 0) ends.push({ at: x(points.at(-1)[0]), up: y(points.at(-1)[1]) - 9, end });
  }
  ends.sort((a, b) => b.up - a.up);
  ends.forEach((one, rank) => {
    if (rank > 0) one.up = Math.min(one.up, ends[rank - 1].up - 14);
    const beyond = one.at > width - right - 40;
    node.append(
      text(
        beyond ? width - right + 6 : one.at,
        one.up,
        beyond ? "end" : "middle",
        one.end,
        "cache-growth-end",
      ),
    );
  });
  return node;
}

/** What a curve looks like, in front of its name. */
export function key(name, label) {
  const node = svg("svg", { width: 30, height: 12, viewBox: "0 0 30 12", "aria-hidden": "true" });
  const group = svg("g", { class: `cache-growth-${name}` }, svg("polyline", { points: "0,6 30,6" }));
  if (name === "with") group.append(svg("circle", { cx: 15, cy: 6, r: 4 }));
  if (name === "without") group.append(svg("rect", { x: 11.5, y: 2.5, width: 7, height: 7 }));
  node.append(group);
  return element("span", { class: "cache-growth-key" }, node, label);
}
