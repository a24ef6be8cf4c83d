// The 2:4 mask of one layer: a window of cells, the group under the cursor, and the whole layer as a map.

import { COLOURS } from "./mask_grid/colours.js";
import { actionOf } from "./mask_grid/keys.js";
import { cellAt, centred, follow, inView, ROWS, usedWidth } from "./mask_grid/layout.js";
import { drawLegend, drawMap, drawMapLegend, mapImage } from "./mask_grid/map.js";
import { page } from "./mask_grid/page.js";
import { drawGrid } from "./mask_grid/paint.js";
import { Plane } from "./mask_grid/plane.js";
import { drawSide } from "./mask_grid/side.js";
import { comparedTitle, layerTitle } from "./mask_grid/words.js";
import { palette } from "./shared/dom.js";
import { instrument, renewed, setTraits } from "./shared/instrument.js";
import { clamp } from "./shared/values.js";

const TRAITS = [
  ...["step", "layer", "token", "feature", "natural", "enforced", "difference"],
  ...["held", "values", "compared"],
];

/** @param {import("./shared/instrument.js").RenderProps} props */
export function render(props) {
  return renewed(props, ["tokens", "features"], () => new MaskGrid(props));
}

class MaskGrid {
  /** @type {import("./mask_grid/layout.js").View} */ view = { top: 0, first: 0, rows: ROWS, groups: 1 };
  /** @type {Plane | null} the last one that was here */ plane = null;
  /** @type {OffscreenCanvas | null} */ image = null;
  colours = COLOURS.light;
  read = ""; // for which traits the plane was read

  /** @param {import("./shared/instrument.js").RenderProps} props */
  constructor({ model, el }) {
    this.model = model;
    this.page = page((name) => this.get(name), {
      set: (changes) => this.set(changes),
      seek: () => this.seek(),
      read: (text) => model.send({ text }),
    });
    this.listen();
    this.panel = instrument({ model, el, root: this.page.root, draw: () => this.draw(), watch: TRAITS });
  }

  close() {
    this.panel.close();
  }

  /** @param {string} name of a trait @returns {any} */
  get(name) {
    return this.model.get(name);
  }

  /** @param {Record<string, unknown>} changes of traits */
  set(changes) {
    setTraits(this.model, changes);
    this.panel.redraw();
  }

  get cursor() {
    return { token: this.get("token"), feature: this.get("feature") };
  }

  /** @param {number} token @param {number} feature */
  moveTo(token, feature) {
    const [tokens, features] = [this.get("tokens").length, this.get("features")];
    this.set({ token: clamp(token, 0, tokens - 1), feature: clamp(feature, 0, features - 1) });
  }

  /** To the next crowded group. */
  seek() {
    const found = this.plane?.nextCrowded(this.cursor.token, this.cursor.feature);
    if (found) this.moveTo(...found);
  }

  // ---- pointer and keys

  listen() {
    const { grid, map } = this.page;
    grid.addEventListener("pointermove", (event) => this.point(event));
    grid.addEventListener("pointerdown", () => grid.focus());
    grid.addEventListener("keydown", (event) => this.key(event));
    map.addEventListener("pointerdown", (event) => {
      map.setPointerCapture(event.pointerId);
      this.drag(event);
    });
    map.addEventListener("pointermove", (event) => this.drag(event));
  }

  /** @param {PointerEvent} event */
  point({ clientX, clientY }) {
    if (!this.plane) return;
    const { left, top } = this.page.grid.getBoundingClientRect();
    const found = cellAt(this.view, clientX - left, clientY - top);
    if (found && (found[0] !== this.get("token") || found[1] !== this.get("feature"))) this.moveTo(...found);
  }

  /** Take the frame of the map along. @param {PointerEvent} event */
  drag({ buttons, clientX, clientY }) {
    if (!this.plane || !(buttons & 1)) return;
    const { left, top, width, height } = this.page.map.getBoundingClientRect();
    this.view = centred(this.view, this.plane, (clientX - left) / width, (clientY - top) / height);
    this.moveTo(...inView(this.view, this.cursor.token, this.cursor.feature));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const action = actionOf(event, this.cursor, { rows: this.view.rows, features: this.get("features") });
    if (!action) return;
    event.preventDefault();
    if (action.do === "move") this.moveTo(action.token, action.feature);
    else if (action.do === "layer")
      this.set({ layer: clamp(this.get("layer") + action.by, 0, this.get("layers") - 1) });
    else this.seek();
  }

  // ---- drawing

  draw() {
    const { page } = this;
    const theme = palette(page.root);
    this.readPlane(theme.dark ? COLOURS.dark : COLOURS.light);
    for (const [name, slider] of Object.entries(page.sliders)) slider.set(this.get(name));
    for (const [name, toggle] of Object.entries(page.toggles)) toggle.set(this.get(name));
    const room = Math.floor(page.stage.clientWidth);
    if (!this.plane || !room) return;
    const { plane, colours, cursor } = this;
    const [tokens, compared] = [this.get("tokens"), this.get("compared")];
    this.view = follow(this.view, plane, room, cursor.token, cursor.feature);
    const width = usedWidth(this.view);
    const difference = this.get("difference") && !compared.problem;
    const show = { natural: this.get("natural"), enforced: this.get("enforced"), difference };
    const monospace = getComputedStyle(page.root).getPropertyValue("--lk-mono") || "monospace";
    const scene = {
      plane,
      view: this.view,
      width,
      cursor,
      tokens,
      show,
      compared,
      theme,
      colours,
      monospace,
    };
    drawGrid(page.grid, scene);
    this.image ??= mapImage(plane, colours);
    drawMap(page.map, this.image, width - 2, this.view, theme);
    drawLegend(page.legend, colours, theme);
    drawMapLegend(page.mapLegend, colours, theme);
    page.live.textContent = drawSide(page.side, scene);
    const size = `${plane.tokens} tokens by ${plane.groups} groups`;
    page.map.setAttribute("aria-label", `Map of the whole layer: ${size}; crowded groups stand out.`);
    page.title.textContent = this.get("difference") ? comparedTitle(compared) : this.layerTitle(plane);
  }

  /**
   * The plane that step and layer ask for; while Python is fetching it, the last one stays.
   * @param {import("./mask_grid/colours.js").Colours} colours
   */
  readPlane(colours) {
    const [step, layer, layers, held] = ["step", "layer", "layers", "held"].map((name) => this.get(name));
    const read = `${step}/${layer}/${held}`;
    if (read === this.read && colours === this.colours) return;
    [this.read, this.colours, this.image] = [read, colours, null];
    const [features, scales, values, metadata] = ["features", "scales", "values", "metadata"].map((name) =>
      this.get(name),
    );
    const tokens = this.get("tokens").length;
    this.plane =
      Plane.read({ step, layer, layers, tokens, features, held, scales, values, metadata }) ?? this.plane;
  }

  /** @param {Plane} plane */
  layerTitle(plane) {
    const [at, layers, held] = ["step", "layers", "held"].map((name) => this.get(name));
    if (this.get("frozen") && !held.includes(at * layers + this.get("layer")))
      return `Layer ${this.get("layer")} is not in this page: without Python it shows layer ${plane.number % layers}.`;
    const step = this.get("steps")[at];
    return layerTitle(step, this.get("layer"), this.get("shares")[plane.number], this.get("left_out"));
  }
}
