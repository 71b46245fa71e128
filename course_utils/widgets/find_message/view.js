import { control, element, uniqueId, write } from "../core/dom.js";
import { finder } from "./search.js";

const MOST = 6;

/** Text with what stands between backticks as code. */
function withCode(text) {
  return text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));
}

/** A link to a heading of the page. JupyterLab names its headings in an attribute of its own. */
function link(title, text) {
  const anchor = title.replaceAll(" ", "-");
  return control(
    "a",
    {
      href: `#${anchor}`,
      onclick(event) {
        const name = CSS.escape(anchor);
        const place = document.querySelector(`[data-jupyter-id="${name}"], [id="${name}"]`);
        if (!place) return;
        event.preventDefault();
        place.scrollIntoView();
      },
    },
    text,
  );
}

function messageItem({ kind, title, says, cause, cure, place }) {
  const line = (name, ...parts) => element("p", {}, element("strong", {}, name), " ", ...parts);
  return element(
    "li",
    {},
    element("p", { class: "find-message-title" }, element("strong", {}, title)),
    kind === "symptom" ? "" : element("p", { class: "find-message-says" }, says),
    line("Why:", ...withCode(cause)),
    line("Do:", ...withCode(cure)),
    element("p", {}, link(title, "See it happen, and cured"), ` · ${place}`),
  );
}

function termItem([word, here, elsewhere, lesson]) {
  return element(
    "li",
    {},
    element("strong", {}, word),
    ": ",
    ...withCode(here),
    ...(elsewhere ? [" (elsewhere: ", ...withCode(elsewhere), ")"] : []),
    ` · lesson ${lesson}`,
  );
}

/** All titles, in groups, as links. */
function overview(groups, messages) {
  return groups.map((group, at) =>
    element(
      "li",
      {},
      element("strong", {}, group),
      element(
        "ul",
        {},
        ...messages
          .filter((one) => one.group === at)
          .map(({ title }) => element("li", {}, link(title, title))),
      ),
    ),
  );
}

/** The terms whose word is typed, or begins so. */
function termsFor(query, terms) {
  const typed = query.trim().toLowerCase();
  const words = ` ${typed.replaceAll(/[^a-z0-9-]+/g, " ")} `;
  if (typed.length < 2) return [];
  return terms.filter(([word]) => {
    const name = word.toLowerCase();
    return name.startsWith(typed) || (words.length < 60 && words.includes(` ${name} `));
  });
}

function render({ model, el }) {
  const { messages: rows, groups, terms, fits } = model.get("shown");
  const messages = rows.map(([kind, title, says, cause, cure, place, group, asked]) => ({
    kind,
    title,
    says,
    cause,
    cure,
    place,
    group,
    phrases: [...(kind === "symptom" ? [] : [says]), title, ...asked],
  }));
  const scores = finder(messages.map((one) => one.phrases));
  const id = uniqueId();
  const box = control("textarea", { id, rows: 1, dir: "auto", spellcheck: "false" });
  const status = element("p", { class: "course-status", role: "status" });
  const list = element("ul", { class: "find-message-list" });
  const root = element(
    "div",
    { class: "course-widget find-message" },
    element("label", { for: id }, "A message, what you see, or a word"),
    box,
    status,
    list,
  );

  function draw() {
    const query = box.value;
    if (query.trim() === "") {
      status.textContent = `${messages.length} messages and symptoms, ${terms.length} words`;
      list.classList.add("find-message-all");
      list.replaceChildren(...overview(groups, messages));
      return;
    }
    const all = scores(query);
    const ranked = messages.map((_, at) => at).sort((a, b) => all[b] - all[a]);
    const best = all[ranked[0]];
    const close = best >= fits;
    const chosen = ranked.filter((at) => all[at] > 0 && all[at] >= 0.5 * best).slice(0, close ? MOST : 3);
    const named = termsFor(query, terms);
    status.textContent = [
      named.length ? `${named.length} ${named.length === 1 ? "word" : "words"}.` : "",
      close
        ? `${chosen.length} ${chosen.length === 1 ? "message" : "messages"}, the best first.`
        : chosen.length
          ? "No message here fits closely. The nearest:"
          : "No message here has any of these words.",
    ]
      .filter(Boolean)
      .join(" ");
    const parts = [named.map(termItem), chosen.map((at) => messageItem(messages[at]))];
    if (query.trim().split(/\s+/).length > 3) parts.reverse();
    list.classList.remove("find-message-all");
    list.replaceChildren(...parts.flat());
  }

  // The kernel may send a typed text back when more has been typed since: that is no news.
  const sent = new Set();
  let writing = false;
  box.addEventListener("input", () => {
    sent.add(box.value);
    writing = true;
    write(model, { query: box.value });
    writing = false;
    draw();
  });

  function changed() {
    const query = model.get("query");
    if (writing || sent.has(query)) return;
    sent.clear();
    box.value = query;
    draw();
  }

  box.value = model.get("query");
  model.on("change:query", changed);
  draw();
  el.append(root);
  return () => model.off("change:query", changed);
}

export default { render };
