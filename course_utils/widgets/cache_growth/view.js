import { connect, control, element, scrolling, uniqueId } from "../core/dom.js";
import { whole } from "../core/numbers.js";
import { chart, key } from "./chart.js";

const SERIES = [
  { name: "with", label: "with the cache" },
  { name: "without", label: "without" },
];
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

/** The bytes of the cache that the configuration predicts, or null where it does not tell. */
function prediction({ rates }) {
  if (!rates) return null;
  return (positions) =>
    rates.reduce((sum, [rate, most]) => sum + rate * Math.min(positions, most ?? positions), 0);
}

function table(points, predicted, unit) {
  const row = (tag, cells) =>
    element("tr", {}, ...cells.map((cell) => element(tag, tag === "th" ? { scope: "col" } : {}, cell)));
  const memory = (bytes) => (bytes / unit.bytes).toFixed(2);
  const head = [
    "Positions",
    "With cache, ms",
    "Without, ms",
    "Times as long",
    `Cache, ${unit.name}`,
    ...(predicted ? ["Predicted"] : []),
  ];
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

/** How long a text may get: radio buttons; `chosen()` gives the number. */
function lengthChoice({ choices, most: longest }, changed) {
  const name = uniqueId();
  const first = choices.findLast((most) => most <= longest) ?? choices[0]; // `measure` takes any length
  const inputs = choices.map((most) =>
    control("input", { type: "radio", name, value: most, checked: most === first, onchange: changed }),
  );
  const labels = inputs.map((input, at) => element("label", {}, input, whole.format(choices[at])));
  const node = element("fieldset", {}, element("legend", {}, "Up to"), ...labels, "positions");
  return { node, inputs, chosen: () => Number(inputs.find((input) => input.checked).value) };
}

/** All parts of the page; `press` is called by the button. */
function createView(shown, { live, changed, press }) {
  const lengths = lengthChoice(shown, changed);
  const view = {
    lengths,
    button: control("button", { type: "button", class: "course-action", disabled: !live, onclick: press }),
    progress: element("progress", { "aria-label": "Measurements made" }),
    count: element("span", { class: "cache-growth-count" }),
    wrong: element("p", { class: "course-wrong", role: "alert" }),
    said: element("p", { class: "cache-growth-verdict" }),
    time: element("div", { class: "cache-growth-chart" }),
    memory: element("div", { class: "cache-growth-chart" }),
    numbers: scrolling("cache-growth-scroll", "The measurements"),
    note: element("p", { class: "cache-growth-note" }),
    status: element("p", { class: "course-status", role: "status" }),
  };
  const { button, progress, count, wrong, said, time, memory, numbers, note, status } = view;
  view.root = element(
    "div",
    { class: "course-widget cache-growth" },
    element("div", { class: "cache-growth-controls" }, lengths.node, button, progress, count),
    wrong,
    said,
    element("div", { class: "cache-growth-charts" }, time, memory),
    numbers,
    note,
    status,
  );
  return view;
}

/** Draw all that is known. */
function update(view, shown, { live, running }) {
  const { points } = shown;
  const some = points.length > 0;
  const most = some || running ? shown.most : view.lengths.chosen();
  const predicted = prediction(shown);
  const unit = memoryUnit(Math.max(predicted?.(most) ?? 0, ...points.map((point) => point.bytes)));
  const marks = some ? points.map((point) => point.positions) : [Math.floor(most / 2), most];
  updateControls(view, shown, { live, running });
  view.note.textContent = noteOf(shown);
  view.said.textContent = some
    ? verdict(shown, predicted, unit)
    : live
      ? "Nothing is measured yet. Press Measure: the points appear as they are measured."
      : "Nothing was measured when this page was saved. Run the cell and press Measure.";
  view.time.replaceChildren(...timeChart(points, most, marks));
  view.memory.replaceChildren(...memoryChart(shown, most, marks, predicted, unit));
  view.numbers.hidden = !some;
  view.numbers.replaceChildren(table(points, predicted, unit));
}

function updateControls({ button, lengths, progress, count }, { points, done, total }, { live, running }) {
  button.textContent = running ? "Stop" : points.length > 0 ? "Measure again" : "Measure";
  for (const input of lengths.inputs) input.disabled = !live || running;
  progress.max = total || 1;
  progress.value = done;
  progress.hidden = !running;
  count.textContent = total > 0 && (running || done < total) ? `${done} of ${total} measured` : "";
}

function noteOf({ rule, limit, trained }) {
  return (
    (rule
      ? `The configuration predicts ${rule}. `
      : "The configuration does not tell how large this kind of cache gets. ") +
    (limit ? `The model has ${whole.format(limit)} positions, so no text is longer.` : "") +
    (trained ? `The model was trained on ${whole.format(trained)} positions.` : "")
  );
}

function timeChart(points, most, lengths) {
  const some = points.length > 0;
  const curves = SERIES.map(({ name }) => ({
    name,
    points: points.map((point) => [point.positions, median(point[name])]),
    dots: points.flatMap((point) => point[name].map((value) => [point.positions, value])),
    end: some ? `${milliseconds(median(points.at(-1)[name]))} ms` : "",
  }));
  const title = "Time of a token in milliseconds over the positions in the text; the table has the numbers";
  const largest = some ? Math.max(...points.flatMap((point) => [...point.with, ...point.without])) : 100;
  return [
    element("p", {}, "Time of a token, milliseconds"),
    chart({ title, most, largest, lengths, curves }),
    element("p", {}, ...SERIES.map(({ name, label }) => key(name, label))),
  ];
}

function memoryChart({ points, rates }, most, lengths, predicted, unit) {
  const bends = (rates ?? [])
    .map(([, end]) => end)
    .filter((end) => end !== null && end < most)
    .sort((a, b) => a - b);
  const kept = points.map((point) => [point.positions, point.bytes / unit.bytes]);
  const some = points.length > 0;
  const course = predicted ? [0, ...bends, most].map((n) => [n, predicted(n) / unit.bytes]) : [];
  const nothing = points.map((point) => [point.positions, 0]);
  const title = `Memory of the cache in ${unit.name} over the positions in the text; the table has the numbers`;
  const largest = Math.max((predicted?.(most) ?? 1) / unit.bytes, ...kept.map(([, value]) => value));
  const curves = [
    { name: "predicted", points: course },
    { name: "without", points: nothing, end: some ? "nothing" : "" },
    { name: "with", points: kept, end: some ? `${kept.at(-1)[1].toFixed(2)} ${unit.name}` : "" },
  ];
  const keys = SERIES.map(({ name, label }) => key(name, label));
  return [
    element("p", {}, `Kept from token to token, ${unit.name}`),
    chart({ title, most, largest, lengths, curves }),
    element("p", {}, ...keys, ...(predicted ? [key("predicted", "predicted")] : [])),
  ];
}

function render({ model, el }) {
  const live = model.get("live");
  let running = false;
  const press = () => (running ? stop() : start());
  const view = createView(model.get("shown"), { live, changed: () => draw(), press });
  const say = (sentence) => (view.status.textContent = sentence);
  // A measurement may take a second, and its progress is shown: only a long silence is worth a word.
  const line = connect(model, (sentence) => {
    const usual = sentence === "" || sentence.startsWith("Kernel busy");
    say(running && usual ? "Measuring." : sentence);
  });
  const draw = () => update(view, model.get("shown"), { live, running });

  function start() {
    running = true;
    view.wrong.textContent = "";
    say("Measuring.");
    step({ start: view.lengths.chosen() });
    draw();
  }

  /** One measurement a request: that is what lets a run be stopped, and its progress be seen. */
  function step(request) {
    line.ask(request, ({ error, left }) => {
      view.wrong.textContent = error ?? "";
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

  draw();
  if (!live) say("A saved view. To measure on your own machine, run this cell.");
  el.append(view.root);
  model.on("change:shown", draw);
  return () => {
    model.off("change:shown", draw);
    line.close();
  };
}

export default { render };
