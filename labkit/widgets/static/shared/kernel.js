// Is there still a Python behind the instrument? Whoever uses it is told when there is none.

import { make } from "./dom.js";

const ASK = 1000; // milliseconds between two questions
const WAIT = 4000; // until silence is said
const GONE = "The kernel that this belonged to is gone: run the cell again.";
const SILENT =
  "Python does not answer. If its kernel died or was restarted, run the cell again; if it is busy, wait.";

/**
 * Ask Python for an answer when someone uses `root`; say it at its top when none comes. A page without Python
 * (no `twin`) is not watched. Returns the clean-up.
 * @param {import("./instrument.js").Model} model @param {HTMLElement} root
 */
export function watchKernel(model, root) {
  if (!model.get("twin")) return () => {};
  const gone = make("p", { class: "lk-gone", role: "alert" });
  root.prepend(gone);
  let [asked, number, waiting] = [Number.NEGATIVE_INFINITY, 0, 0];
  const say = (/** @type {string} */ text) => {
    gone.textContent = text;
  };
  const ask = () => {
    if (performance.now() - asked < ASK) return;
    asked = performance.now();
    waiting ||= window.setTimeout(() => say(SILENT), WAIT);
    try {
      model.send({ ping: ++number });
    } catch {
      say(GONE);
    }
  };
  const answer = () => {
    clearTimeout(waiting);
    waiting = 0;
    say("");
  };
  const live = () => {
    if (root.closest(".jupyter-widgets-disconnected")) say(GONE);
  };
  const uses = ["pointerdown", "keydown", "input"];
  for (const use of uses) root.addEventListener(use, ask);
  model.on("msg:custom", answer);
  model.on("comm_live_update", () => setTimeout(live)); // JupyterLab marks the view after this event
  return () => {
    clearTimeout(waiting);
    for (const use of uses) root.removeEventListener(use, ask);
    model.off("msg:custom", answer);
  };
}
