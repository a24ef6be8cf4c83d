// Shared by the instruments; put before each script (labkit.widgets.base.static), so no import is needed.

const shorten = (text, limit) => (text.length > limit ? text.slice(0, limit - 1) + "…" : text);
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// One element: make("button", { class: "x", onclick: f, "aria-label": "y" }, "text", child, ...)
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// A labelled range input that also says its value in words.
function slider(label, { max, value, say = String, change }) {
  const input = make("input", { type: "range", min: 0, max, step: 1, "aria-label": label, disabled: max < 1 });
  const output = make("output", {});
  const set = (now) => {
    input.value = now;
    output.textContent = say(now);
    input.setAttribute("aria-valuetext", say(now));
  };
  input.addEventListener("input", () => {
    set(Number(input.value));
    change(Number(input.value));
  });
  set(value);
  return { node: make("label", { class: "lk-slider" }, make("span", {}, label), input, output), set, input };
}

function checkbox(label, { value, change, title }) {
  const input = make("input", { type: "checkbox", onchange: () => change(input.checked) });
  input.checked = value;
  const set = (now) => (input.checked = now);
  return { node: make("label", { class: "lk-check", title }, input, ...[label].flat()), set, input };
}

// The 2d context of a canvas sized in CSS pixels, sharp on any screen.
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// The colours in force: JupyterLab's where it defines them, else those of instrument.css.
function palette(root) {
  const style = getComputedStyle(root);
  const read = (name) => style.getPropertyValue(`--lk-${name}`).trim();
  const [r, g, b] = (style.backgroundColor.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
  const dark = 0.299 * r + 0.587 * g + 0.114 * b < 128;
  root.classList.toggle("lk-dark", dark);
  const names = ["ink", "muted", "line", "paper", "accent"];
  return { dark, ...Object.fromEntries(names.map((name) => [name, read(name)])) };
}

// Linear mix of two #rrggbb colours.
function mix(from, to, share) {
  const parts = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const [a, b] = [parts(from), parts(to)];
  return `rgb(${a.map((x, i) => Math.round(x + (b[i] - x) * share)).join(",")})`;
}

const ramp = (stops) => (share) => {
  const place = clamp(share, 0, 1) * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2);
  return mix(stops[first], stops[first + 1], place - first);
};

// What every instrument does around its drawing: themes, sizes, one frame at a time, visible errors,
// and shortcuts of the notebook kept out while the instrument has the focus. Returns the clean-up.
function instrument({ model, el, root, draw, watch }) {
  const problem = make("pre", { class: "lk-problem", role: "alert", hidden: true });
  root.append(problem);
  el.append(root);
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.addEventListener("keydown", (event) => event.stopPropagation());
  const say = (text) => {
    problem.textContent = text;
    problem.hidden = !text;
  };
  let frame = 0;
  const redraw = () => {
    if (!frame)
      frame = requestAnimationFrame(() => {
        frame = 0;
        try {
          draw();
          say(model.get("problem") || "");
        } catch (error) {
          say(String(error));
          throw error;
        }
      });
  };
  const sizes = new ResizeObserver(redraw);
  sizes.observe(root);
  const themes = new MutationObserver(redraw);
  for (const node of [document.documentElement, document.body])
    themes.observe(node, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", redraw);
  const events = [...watch, "problem"].map((name) => `change:${name}`);
  for (const name of events) model.on(name, redraw);
  redraw();
  const close = () => {
    cancelAnimationFrame(frame);
    sizes.disconnect();
    themes.disconnect();
    scheme.removeEventListener("change", redraw);
    for (const name of events) model.off(name, redraw);
  };
  return { redraw, close };
}

// Traits travel to Python at most every `wait` ms, and always the last state.
function lazySave(model, wait = 120) {
  let timer = 0;
  const save = () => {
    timer = 0;
    model.save_changes();
  };
  return {
    later: () => (timer ||= setTimeout(save, wait)),
    close: () => clearTimeout(timer),
  };
}
