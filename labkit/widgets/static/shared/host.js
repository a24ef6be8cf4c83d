// An instrument without Python: its state stands in the page, and what changes stays there.

import { make } from "./dom.js";

/**
 * @typedef {import("./instrument.js").Model} Model
 * @typedef {import("./instrument.js").RenderProps} RenderProps
 */

/**
 * Show an instrument in the page that labkit/widgets/export.py wrote, as anywidget would.
 * @param {(props: RenderProps) => unknown} render
 */
export async function host(render) {
  const el = /** @type {HTMLElement} */ (document.getElementById("instrument"));
  try {
    const text = document.getElementById("state")?.textContent ?? "";
    await render({ model: modelOf(await inflated(text)), el });
  } catch (error) {
    el.append(make("pre", { role: "alert" }, `This page cannot be shown: ${error}`));
    throw error;
  }
  if (window.parent !== window) tellHeight();
}

/**
 * anywidget's model over a state of its own: no Python hears of a change or a message.
 * @param {Record<string, unknown>} state @returns {Model}
 */
export function modelOf(state) {
  /** @type {Map<string, Set<() => void>>} */
  const calls = new Map();
  return {
    get: (name) => state[name],
    set: (name, value) => {
      if (state[name] === value) return;
      state[name] = value;
      for (const call of [...(calls.get(`change:${name}`) ?? [])]) call();
    },
    on: (event, call) => {
      calls.set(event, (calls.get(event) ?? new Set()).add(call));
    },
    off: (event, call) => {
      calls.get(event)?.delete(call);
    },
    save_changes: () => {},
    send: () => {},
  };
}

/** The state behind base64 of zlib's format; byte strings come as DataView, as anywidget gives them. @param {string} text */
export async function inflated(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text(), (_name, value) =>
    typeof value?.base64 === "string" ? new DataView(bytesOf(value.base64).buffer) : value,
  );
}

/** @param {string} text base64 */
function bytesOf(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** A frame does not know how high its page is, with the line about what needs Python: say it. */
function tellHeight() {
  const page = document.documentElement;
  const tell = () => window.parent.postMessage({ labkitHeight: page.offsetHeight }, "*");
  new ResizeObserver(tell).observe(page);
}
