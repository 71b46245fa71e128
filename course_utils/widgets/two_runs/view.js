import { connect, control, element, scrolling, uniqueId } from "../core/dom.js";
import { afterTyping } from "../core/typing.js";

const FULL = 4; // the gap that fills a bar

/** One step of one run: its token over a bar as high as the gap. */
function cell(token, state) {
  const height = `height: ${((100 * Math.min(token.gap, FULL)) / FULL).toFixed(1)}%`;
  return element(
    "td",
    { class: state },
    element("bdi", { class: "two-runs-token" }, token.text),
    element("span", { class: "two-runs-bar", "aria-hidden": "true" }, element("span", { style: height })),
    element("span", { class: "two-runs-gap" }, token.gap.toFixed(2)),
  );
}

function table({ runs, parted }) {
  const steps = runs[0].tokens.map((_, at) => element("th", { scope: "col" }, String(at + 1)));
  const state = (at) =>
    parted === null || at < parted ? "" : at === parted ? "two-runs-parted" : "two-runs-after";
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "token"), ...steps)),
    element(
      "tbody",
      {},
      ...runs.map((run) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, run.name),
          ...run.tokens.map((token, at) => cell(token, state(at))),
        ),
      ),
    ),
  );
}

function chooser(label, names, live, changed) {
  const id = uniqueId();
  const options = names.map((name) => element("option", { value: name }, name));
  const select = control("select", { id, disabled: !live, onchange: changed }, ...options);
  return { node: element("span", {}, element("label", { for: id }, label), select), select };
}

function render({ model, el }) {
  const live = model.get("live");
  const status = element("p", { class: "course-status", role: "status" });
  const wrong = element("p", { class: "course-wrong", role: "alert" });
  const say = (sentence) => (status.textContent = sentence);
  const line = connect(model, say);
  const typing = afterTyping(ask);
  const id = uniqueId();
  const prompt = control("textarea", { id, rows: 1, dir: "auto", spellcheck: "false", readonly: !live });
  const { names } = model.get("shown");
  const choosers = ["First run", "Second run"].map((label) => chooser(label, names, live, ask));
  const verdict = element("p", { class: "two-runs-verdict", "aria-live": "polite" });
  const place = scrolling("two-runs-scroll", "Both runs, a column a token");
  let shown = null; // what is drawn
  let edited = false; // the box holds a prompt that has not been answered, or was refused

  function ask() {
    typing.stop();
    const [left, right] = choosers.map(({ select }) => select.value);
    line.ask({ prompt: prompt.value, left, right }, ({ error }) => {
      prompt.setAttribute("aria-invalid", String(Boolean(error)));
      wrong.textContent = error ?? "";
      edited = Boolean(error) || typing.waiting();
      if (shown !== model.get("shown")) take();
    });
  }
  prompt.addEventListener("input", () => {
    edited = true;
    typing.restart();
  });

  function take() {
    if (line.overtaken()) return;
    shown = model.get("shown");
    if (!edited) prompt.value = shown.prompt;
    choosers.forEach(({ select }, at) => (select.value = shown.runs[at].name));
    verdict.textContent = shown.said;
    place.replaceChildren(table(shown));
  }

  take();
  if (!live) say("A saved view. To try another prompt, run this cell.");
  el.append(
    element(
      "div",
      { class: "course-widget two-runs" },
      element("label", { for: id }, "Prompt"),
      prompt,
      wrong,
      element("div", { class: "two-runs-choosers" }, ...choosers.map(({ node }) => node)),
      verdict,
      place,
      element(
        "p",
        { class: "two-runs-legend" },
        "Under each token, the gap between the two best logits; a full bar is 4 and more.",
      ),
      status,
    ),
  );
  model.on("change:shown", take);
  return () => {
    typing.stop();
    model.off("change:shown", take);
    line.close();
  };
}

export default { render };
