// Hosts a widget's module as anywidget does, on a blank page. `courseKernel` reaches the Python widget.
async ({ esm, css, state }) => {
  const revive = (_, value) =>
    value !== null && typeof value === "object" && "$bytes" in value
      ? new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer)
      : value;
  const values = JSON.parse(state, revive);
  const listeners = {};
  const fire = (event, ...given) => (listeners[event] ?? []).forEach((listener) => listener(...given));
  let unsaved = {};
  const model = {
    get: (name) => values[name],
    set(name, value) {
      values[name] = unsaved[name] = value;
      fire(`change:${name}`);
    },
    save_changes() {
      courseKernel(JSON.stringify({ set: unsaved }));
      unsaved = {};
    },
    send: (message) => courseKernel(JSON.stringify({ message })),
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: (event, listener) => (listeners[event] = (listeners[event] ?? []).filter((one) => one !== listener)),
  };
  // Of the browser's own clock, also where a test has stopped the page's.
  window.courseLater = setTimeout.bind(window);
  window.courseFrame = requestAnimationFrame.bind(window);
  window.courseReceive = (text) => {
    const { set, message } = JSON.parse(text, revive);
    for (const [name, value] of Object.entries(set ?? {})) {
      if (values[name] === value) continue; // an echo
      values[name] = value;
      fire(`change:${name}`);
    }
    if (message) fire("msg:custom", message, []);
  };
  const style = document.createElement("style");
  style.textContent = css;
  document.head.append(style);
  const module = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
  window.courseCleanup = await module.default.render({ model, el: document.getElementById("host") });
  window.courseListeners = listeners;
};
