import { connect, control, element, uniqueId } from "../core/dom.js";

const SERIES = [
  { name: "with", label: "with the cache" },
  { name: "without", label: "without" },
];
// A chart, in its own units; it is drawn about as large as it says.
const CHART = { width: 400, height: 210, left: 46, right: 14, top: 24, bottom: 34 };

const whole = new Intl.NumberFormat("en-US");

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Milliseconds as text: three digits or all before the point. */
function milliseconds(time) {
  return time >= 100 ? whole.format(Math.round(time)) : time.toFixed(time >= 10 ? 1 : 2);
}

/** @param {number} largest of the numbers that share a unit */
function memoryUnit(largest) {
  return largest >= 2 ** 20 ? { name: "MiB", bytes: 2 ** 20 } : { name: "KiB", bytes: 2 ** 10 };
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Round steps from 0 to at least `largest`, three to five of them. */
function ticks(largest) {
  const power = 10 ** Math.floor(Math.log10(largest / 3));
  const step = power * [1, 2, 5, 10].find((factor) => 5 * factor * power >= largest);
  return Array.from({ length: Math.ceil(largest / step - 1e-9) + 1 }, (_, at) => at * step);
}

/**
 * Curves over the number of positions, all axes from 0.
 * @param {{ name: string, points: [x: number, y: number][], end?: string, dots?: [number, number][] }[]} curves
 *   `name` is also the class; `end` is written at the last point, `dots` are drawn as they are
 */
function chart({ title, most, largest, lengths, curves }) {
  const { width, height, left, right, top, bottom } = CHART;
  const rows = ticks(largest);
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
    group.append(...dots.map(([n, value]) => svg("circle", { cx: x(n), cy: y(value), r: 1.6, class: "cache-growth-dot" })));
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
    node.append(text(beyond ? width - right + 6 : one.at, one.up, beyond ? "end" : "middle", one.end, "cache-growth-end"));
  });
  return node;
}

/** What a curve looks like, in front of its name. */
function key(name, label) {
  const node = svg("svg", { width: 30, height: 12, viewBox: "0 0 30 12", "aria-hidden": "true" });
  const group = svg("g", { class: `cache-growth-${name}` }, svg("polyline", { points: "0,6 30,6" }));
  if (name === "with") group.append(svg("circle", { cx: 15, cy: 6, r: 4 }));
  if (name === "without") group.append(svg("rect", { x: 11.5, y: 2.5, width: 7, height: 7 }));
  node.append(group);
  return element("span", { class: "cache-growth-key" }, node, label);
}

/** The bytes of the cache that the configuration predicts, or null where it does not tell. */
function prediction({ rates }) {
  if (!rates) return null;
  return (positions) => rates.reduce((sum, [rate, most]) => sum + rate * Math.min(positions, most ?? positions), 0);
}

function table(points, predicted, unit) {
  const row = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, tag === "th" ? { scope: "col" } : {}, cell)));
  const memory = (bytes) => (bytes / unit.bytes).toFixed(2);
  const head = ["Positions", "With cache, ms", "Without, ms", "Times as long", `Cache, ${unit.name}`, ...(predicted ? ["Predicted"] : [])];
  const body = points.map((point) => {
    const [cached, all] = [median(point.with), median(point.without)];
    return row("td", [
      whole.format(point.positions),
      milliseconds(cached),
      milliseconds(all),
      (all / cached).toFixed(1),
      memory(point.bytes),
      ...(predicted ? [memory(predicted(point.positions))] : []),
    ]);
  });
  return element("table", {}, element("thead", {}, row("th", head)), element("tbody", {}, ...body));
}

/** What was found, in sentences. */
function verdict({ points, agree, apart }, predicted, unit) {
  const last = points.at(-1);
  const [cached, all] = [median(last.with), median(last.without)];
  const memory = (bytes) => `${(bytes / unit.bytes).toFixed(2)} ${unit.name}`;
  const shape = last.shape ? ` of shape [${last.shape.join(", ")}]` : "";
  const right = predicted && points.every((point) => point.bytes === predicted(point.positions));
  return [
    `At ${whole.format(last.positions)} positions a token takes ${milliseconds(cached)} ms with the cache and ` +
      `${milliseconds(all)} ms without, ${(all / cached).toFixed(1)} times as long. `,
    `The keys and values are then ${last.tensors} tensors${shape}: ${memory(last.bytes)}` +
      (right
        ? ", as the configuration predicts. "
        : predicted
          ? `, where the configuration predicts ${memory(predicted(last.positions))}. `
          : ". "),
    agree
      ? "Both ways found the same next token each time."
      : `The two ways did not always find the same next token: their logits differ by up to ${apart.toPrecision(2)}.`,
  ].join("");
}

function render({ model, el }) {
  const live = model.get("live");
  let running = false;
  const status = element("p", { class: "course-status", role: "status" });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const say = (sentence) => (status.textContent = sentence);
  // A measurement may take a second, and its progress is shown: only a long silence is worth a word.
  const line = connect(model, (sentence) => {
    const usual = sentence === "" || sentence.startsWith("Kernel busy");
    say(running && usual ? "Measuring." : sentence);
  });

  const name = uniqueId();
  const lengths = element("fieldset", {}, element("legend", {}, "Up to"));
  const { choices, most: longest } = model.get("shown");
  const first = choices.findLast((most) => most <= longest) ?? choices[0]; // `measure` takes any length
  for (const most of choices) {
    const input = control("input", { type: "radio", name, value: most, checked: most === first, onchange: () => draw() });
    lengths.append(element("label", {}, input, whole.format(most)));
  }
  lengths.append("positions");
  const button = control("button", { type: "button", class: "course-action", disabled: !live, onclick: () => (running ? stop() : start()) });
  const progress = element("progress", { "aria-label": "Measurements made" });
  const count = element("span", { class: "cache-growth-count" });
  const note = element("p", { class: "cache-growth-note" });
  const said = element("p", { class: "cache-growth-verdict" });
  const time = element("div", { class: "cache-growth-chart" });
  const memory = element("div", { class: "cache-growth-chart" });
  const numbers = control("div", { class: "cache-growth-scroll", role: "region", "aria-label": "The measurements", tabindex: 0 });

  const chosen = () => Number(lengths.querySelector("input:checked").value);

  function start() {
    running = true;
    wrong.textContent = "";
    say("Measuring.");
    step({ start: chosen() });
    draw();
  }

  /** One measurement a request: that is what lets a run be stopped, and its progress be seen. */
  function step(request) {
    line.ask(request, ({ error, left }) => {
      wrong.textContent = error ?? "";
      if (!error && left > 0) step({ next: true });
      else end(error ? "" : "Done.");
    });
  }

  function end(sentence) {
    running = false;
    say(sentence);
    draw();
  }

  function stop() {
    running = false;
    line.ask({ stop: true }, () => end("Stopped. What was measured stays until you measure again."));
    draw();
  }

  function draw() {
    const shown = model.get("shown");
    const { points, rule, limit, trained, done, total } = shown;
    const some = points.length > 0;
    const most = some || running ? shown.most : chosen();
    const predicted = prediction(shown);
    const unit = memoryUnit(Math.max(predicted?.(most) ?? 0, ...points.map((point) => point.bytes)));
    button.textContent = running ? "Stop" : some ? "Measure again" : "Measure";
    for (const input of lengths.querySelectorAll("input")) input.disabled = !live || running;
    progress.max = total || 1;
    progress.value = done;
    progress.hidden = !running;
    count.textContent = total > 0 && (running || done < total) ? `${done} of ${total} measured` : "";
    note.textContent =
      (rule ? `The configuration predicts ${rule}. ` : "The configuration does not tell how large this kind of cache gets. ") +
      (limit ? `The model has ${whole.format(limit)} positions, so no text is longer.` : "") +
      (trained ? `The model was trained on ${whole.format(trained)} positions.` : "");

    said.textContent = some
      ? verdict(shown, predicted, unit)
      : live
        ? "Nothing is measured yet. Press Measure: the points appear as they are measured."
        : "Nothing was measured when this page was saved. Run the cell and press Measure.";
    const all = points.flatMap((point) => [...point.with, ...point.without]);
    const curve = (which) => points.map((point) => [point.positions, median(point[which])]);
    const marks = some ? points.map((point) => point.positions) : [Math.floor(most / 2), most];
    time.replaceChildren(
      element("p", {}, "Time of a token, milliseconds"),
      chart({
        title: "Time of a token in milliseconds over the positions in the text; the table has the numbers",
        most,
        largest: some ? Math.max(...all) : 100,
        lengths: marks,
        curves: SERIES.map(({ name: which }) => ({
          name: which,
          points: curve(which),
          dots: points.flatMap((point) => point[which].map((value) => [point.positions, value])),
          end: some ? `${milliseconds(median(points.at(-1)[which]))} ms` : "",
        })),
      }),
      element("p", {}, ...SERIES.map(({ name: which, label }) => key(which, label))),
    );
    const bends = (shown.rates ?? []).map(([, end]) => end).filter((end) => end !== null && end < most).sort((a, b) => a - b);
    const kept = points.map((point) => [point.positions, point.bytes / unit.bytes]);
    memory.replaceChildren(
      element("p", {}, `Kept from token to token, ${unit.name}`),
      chart({
        title: `Memory of the cache in ${unit.name} over the positions in the text; the table has the numbers`,
        most,
        largest: Math.max((predicted?.(most) ?? 1) / unit.bytes, ...kept.map(([, value]) => value)),
        lengths: marks,
        curves: [
          { name: "predicted", points: predicted ? [0, ...bends, most].map((n) => [n, predicted(n) / unit.bytes]) : [] },
          { name: "without", points: points.map((point) => [point.positions, 0]), end: some ? "nothing" : "" },
          { name: "with", points: kept, end: some ? `${kept.at(-1)[1].toFixed(2)} ${unit.name}` : "" },
        ],
      }),
      element("p", {}, ...SERIES.map(({ name: which, label }) => key(which, label)), ...(predicted ? [key("predicted", "predicted")] : [])),
    );
    numbers.hidden = !some;
    numbers.replaceChildren(table(points, predicted, unit));
  }

  draw();
  if (!live) say("A saved view. To measure on your own machine, run this cell.");
  el.append(
    element(
      "div",
      { class: "course-widget cache-growth" },
      element("div", { class: "cache-growth-controls" }, lengths, button, progress, count),
      wrong,
      said,
      element("div", { class: "cache-growth-charts" }, time, memory),
      numbers,
      note,
      status,
    ),
  );
  model.on("change:shown", draw);
  return () => {
    model.off("change:shown", draw);
    line.close();
  };
}

export default { render };
