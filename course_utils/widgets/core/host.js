// The second host: shows a saved widget in a page without a kernel.

/**
 * A function (css, render) for a widget with a style of its own and a function `render`; it makes a function
 * (view, state) that replaces the still pictures of one saved widget by the widget itself.
 * A notebook may hold the same output twice; each gets its own copy of the state.
 */
export function host(sharedCss) {
  return (css, render) => (view, state) => {
    for (const place of document.querySelectorAll(`[data-course-view="${view}"]:not([data-ready])`)) {
      place.dataset.ready = "";
      const style = document.createElement("style");
      style.textContent = sharedCss + css;
      const el = document.createElement("div");
      render({ model: savedModel(withBytes(state)), el });
      place.replaceChildren(style, el); // only now: if `render` fails, the still picture stays
    }
  };
}

/** What anywidget's model offers to a module, without a kernel behind it. */
function savedModel(values) {
  const listeners = new Map();
  return {
    get: (name) => values[name],
    set(name, value) {
      values[name] = value;
      for (const listener of listeners.get(`change:${name}`) ?? []) listener();
    },
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off: (event, listener) =>
      listeners.set(
        event,
        (listeners.get(event) ?? []).filter((one) => listener && one !== listener),
      ),
    save_changes() {},
    send() {},
  };
}

/** A copy of a JSON value in which every {"$bytes": base64} is a DataView. */
function withBytes(value) {
  if (value === null || typeof value !== "object") return value;
  if ("$bytes" in value) {
    return new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer);
  }
  if (Array.isArray(value)) return value.map(withBytes);
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, withBytes(inner)]));
}
