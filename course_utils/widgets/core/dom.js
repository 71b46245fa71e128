// What several widgets need. Written into each widget's module when its class is made (see bundle.py).

/**
 * An element. Text is set as text, so nothing in it is ever read as HTML.
 * @param {string} tag
 * @param {Object<string, any>} [attributes] `class`, `for`, `aria-...`, ...; "on..." holds a listener; a
 *   null or false one is left out
 * @param {...(Node|string)} children
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/**
 * An element that takes the focus. JupyterLab's one-key commands ("a" inserts a cell, arrows move between
 * cells) are held back only from elements that carry this attribute themselves.
 */
export function control(tag, attributes = {}, ...children) {
  return element(tag, { "data-lm-suppress-shortcuts": "true", ...attributes }, ...children);
}

/** A box that scrolls by itself where the page is too narrow. */
export function scrolling(name, label, ...children) {
  return control("div", { class: name, role: "region", "aria-label": label, tabindex: 0 }, ...children);
}

/** Set traits and tell the kernel. */
export function write(model, traits) {
  for (const [name, value] of Object.entries(traits)) model.set(name, value);
  model.save_changes();
}

let names = 0;

/** A name for `id` and `for` that no other widget in the page has. */
export function uniqueId() {
  names += 1;
  return `course-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}-${names}`;
}

/** Bytes of a synced trait (DataView) as a typed array: Float32Array, Uint32Array, ... */
export function typed(ArrayType, view) {
  return new ArrayType(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

/**
 * Of a group of buttons one is in the tab order; arrow keys, Home and End move between them.
 * @param {HTMLElement} group holds the buttons, whatever they are at the time
 * @param {string} selector finds the buttons in the group
 */
export function arrowKeys(group, selector) {
  group.addEventListener("keydown", (event) => {
    const buttons = [...group.querySelectorAll(selector)];
    const at = buttons.indexOf(event.target);
    const to = {
      ArrowLeft: at - 1,
      ArrowUp: at - 1,
      ArrowRight: at + 1,
      ArrowDown: at + 1,
      Home: 0,
      End: buttons.length - 1,
    }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    buttons[to]?.focus();
  });
  group.addEventListener("focusin", (event) => {
    for (const button of group.querySelectorAll(selector)) button.tabIndex = button === event.target ? 0 : -1;
  });
}

/**
 * The line to the kernel: one request under way; of those made meanwhile only the newest is kept, and an
 * answer that a newer request has overtaken is ignored.
 * @param {object} model anywidget's model
 * @param {(text: string) => void} status shows a sentence while the kernel is slow, "" when it has answered
 */
export function connect(model, status) {
  const view = uniqueId();
  let count = 0;
  let underWay = null; // { number, done }
  let next = null; // { request, done }
  let timers = [];

  function send({ request, done }) {
    count += 1;
    underWay = { number: `${view}:${count}`, done };
    timers = [
      setTimeout(() => status("Kernel busy…"), 400),
      setTimeout(
        () =>
          status(
            "No answer yet: the kernel is running another cell, or has stopped. What you typed is kept.",
          ),
        15000,
      ),
    ];
    model.send({ number: underWay.number, request });
  }

  function receive(reply) {
    if (reply?.number !== underWay?.number || !underWay) return;
    timers.forEach(clearTimeout);
    const { done } = underWay;
    underWay = null;
    if (next) {
      const request = next;
      next = null;
      send(request);
    } else {
      status("");
      done(reply);
    }
  }

  model.on("msg:custom", receive);
  return {
    /** Ask for something; `done(reply)` is called unless a newer request overtakes this one. */
    ask(request, done = () => {}) {
      if (underWay) next = { request, done };
      else send({ request, done });
    },
    /** True while what the kernel sends belongs to a request that a newer one has overtaken. */
    overtaken: () => next !== null,
    waiting: () => underWay !== null,
    close() {
      timers.forEach(clearTimeout);
      model.off("msg:custom", receive);
    },
  };
}
