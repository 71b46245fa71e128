// What is generated from what: prompts, arguments of generate() and the seed.
import { control, element, uniqueId } from "../core/dom.js";

/** A button that keeps the focus while it is off: with `disabled` a keyboard would lose its place. */
export function action(label, act) {
  const click = (event) => event.currentTarget.getAttribute("aria-disabled") !== "true" && act();
  return control("button", { type: "button", class: "course-action", onclick: click }, label);
}

/**
 * The boxes and the button Start.
 * @param {{ edited: () => void, begin: (request: object) => void }} on `edited` is called when the boxes come to
 *   hold something else than what is shown, or no longer do
 */
export function settingsForm(live, { edited, begin }) {
  const ids = Object.fromEntries(["prompts", "arguments", "seed"].map((name) => [name, uniqueId()]));
  const prompts = control("textarea", {
    id: ids.prompts,
    rows: 1,
    dir: "auto",
    spellcheck: "false",
    readonly: !live,
  });
  const settings = control("textarea", {
    id: ids.arguments,
    class: "stepper-code",
    rows: 1,
    spellcheck: "false",
    readonly: !live,
  });
  const seed = control("input", {
    id: ids.seed,
    type: "number",
    min: 0,
    max: 2 ** 32 - 1,
    step: 1,
    readonly: !live,
  });
  const objects = element("code", { class: "stepper-objects" });
  const fit = () => (prompts.rows = prompts.value.split("\n").length);
  const edit = (is) => {
    start.toggleAttribute("data-edited", is);
    edited();
  };
  const start = action("Start", () => begin(requestOf(prompts, settings, seed)));
  if (!live) start.setAttribute("aria-disabled", "true");
  for (const box of [prompts, settings, seed]) {
    box.addEventListener("input", () => {
      fit();
      edit(true);
    });
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || box === prompts) return;
      event.preventDefault();
      start.click();
    });
  }

  const labelled = (name, text, ...nodes) =>
    element("div", { class: `stepper-${name}` }, element("label", { for: ids[name] }, text), ...nodes);
  return {
    nodes: [
      labelled("prompts", "Prompts, one a line (⏎ is a line break in one)", prompts),
      element(
        "div",
        { class: "stepper-line" },
        labelled("arguments", "Arguments of generate()", settings, objects),
        labelled("seed", "Seed", seed),
        start,
      ),
    ],
    edit,
    isEdited: () => start.hasAttribute("data-edited"),
    /** Show what was generated from. */
    fill(shown, ownSeed) {
      prompts.value = shown.prompts.map((text) => text.replaceAll("\n", "⏎")).join("\n");
      settings.value = shown.arguments;
      objects.textContent = shown.objects && `And from the cell: ${shown.objects}`;
      seed.value = ownSeed;
      fit();
    },
  };
}

/** What the boxes hold, as the kernel takes it. */
function requestOf(prompts, settings, seed) {
  return {
    prompts: prompts.value
      .replace(/\n+$/, "")
      .split("\n")
      .map((text) => text.replaceAll("⏎", "\n")),
    arguments: settings.value,
    seed: Number(seed.value),
  };
}
