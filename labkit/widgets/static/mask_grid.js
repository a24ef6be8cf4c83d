// The 2:4 mask of one layer: a window of cells, the group under the cursor, and the whole layer as a map.

const CELL = 17, GAP = 9, ROW = 20, ROWS = 15, LABEL = 118, HEAD = 20, SHARE = 62;

// float16 of a root -> the signed square, all 65,536 of them, once.
const SQUARES = Float64Array.from({ length: 65536 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024)) ** 2;
});

const COLOURS = {
  light: {
    kept: ramp(["#c6dff0", "#0072b2", "#00304d"]), dropped: ramp(["#fdebc8", "#e69f00", "#7a5200"]), mark: "#1b1f24",
    counts: ["#f3f4f6", "#c6dff0", "#7fb3d5", "#b36b00", "#5c2e00"], wrong: "#b00020",
  },
  dark: {
    kept: ramp(["#173a52", "#56b4e9", "#e3f3fd"]), dropped: ramp(["#4d3905", "#e69f00", "#ffe7ad"]), mark: "#ffffff",
    counts: ["#20252c", "#12405e", "#2a7db0", "#f0b429", "#ffedc2"], wrong: "#ff6b6b",
  },
};

const visible = (token) => token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣");
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const bits = (number, length) => number.toString(2).padStart(length, "0");
const written = (value) => {
  if (!Number.isFinite(value)) return String(value);
  return value === 0 ? "0" : Math.abs(value) < 1e-3 ? value.toExponential(1) : value.toPrecision(3);
};

// The plane in view, decoded from the model's bytes; null while Python is fetching it.
function readPlane(model) {
  const features = model.get("features"), tokens = model.get("tokens").length;
  const plane = model.get("step") * model.get("layers") + model.get("layer");
  const place = model.get("held").indexOf(plane);
  if (place < 0) return null;
  const cells = tokens * features, row = Math.ceil(features / 8);
  const values = model.get("values"), metadata = model.get("metadata");
  const half = (i) => SQUARES[values.getUint16(2 * (place * cells + i), true)];
  const scale = model.get("scales")[place];
  const byteOf = (token, group) => metadata.getUint8(place * tokens * row + token * row + (group >> 1));
  const nibble = (token, group) => (byteOf(token, group) >> (group & 1 ? 4 : 0)) & 15;
  return {
    plane, features, tokens, byteOf, nibble, scale,
    groups: features / 4,
    relative: (token, feature) => half(token * features + feature),
    value: (token, feature) => half(token * features + feature) * scale,
    kept: (token, feature) => {
      const pair = nibble(token, feature >> 2), at = feature & 3;
      return (pair & 3) === at || pair >> 2 === at;
    },
    nonzeros: (token, group) => {
      let count = 0;
      for (let i = 0; i < 4; i++) count += half(token * features + 4 * group + i) !== 0;
      return count;
    },
  };
}

function render({ model, el }) {
  const lazy = lazySave(model);
  const view = { top: 0, first: 0, rows: ROWS, groups: 8 };
  let plane = null, planeKey = "", colours = COLOURS.light, theme = null, mapImage = null;

  const put = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    lazy.later();
    shell.redraw();
  };
  const features = () => model.get("features");
  const tokens = () => model.get("tokens").length;
  const moveTo = (token, feature) =>
    put({ token: clamp(token, 0, tokens() - 1), feature: clamp(feature, 0, features() - 1) });

  // ---- what stands on the page
  const title = make("p", { class: "lk-title" });
  const steps = model.get("steps");
  const stepSlider = slider("step", {
    max: steps.length - 1, value: model.get("step"), say: (i) => steps[i], change: (step) => put({ step }),
  });
  const layerSlider = slider("layer", {
    max: model.get("layers") - 1, value: model.get("layer"), change: (layer) => put({ layer }),
  });
  const tokenSlider = slider("token", {
    max: tokens() - 1, value: model.get("token"),
    say: (i) => `${i} ${shorten(visible(model.get("tokens")[i]), 8)}`, change: (token) => put({ token }),
  });
  const toggle = (name, label, title) =>
    checkbox(label, { title, value: model.get(name), change: (on) => put({ [name]: on }) });
  const toggles = {
    natural: toggle("natural", "natural zeros ·", "values that ReLU² itself made zero"),
    enforced: toggle("enforced", "enforced ×", "values that were there and that the mask set to zero"),
    difference: toggle("difference", "difference: kernel, reference", "position bits of the reference and of the Triton kernel"),
  };
  const next = make("button", { type: "button", title: "the next group in which the mask had to drop a value (N)", onclick: () => seek() }, "next crowded group");
  const grid = make("canvas", {
    class: "mg-grid", tabindex: 0, role: "application", "aria-roledescription": "2 to 4 mask",
    "aria-label": "2:4 mask, tokens by features. Arrow keys move, with Shift by groups of four; Page Up and Page Down by windows; Home and End to the ends of the row; N to the next crowded group.",
  });
  const map = make("canvas", { class: "mg-map", role: "img" });
  const mapNote = make("div", { class: "lk-legend" });
  const legend = make("div", { class: "lk-legend" });
  const side = make("div", { class: "lk-side" });
  const live = make("div", { class: "lk-live", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "lk mg" },
    title,
    make("div", { class: "lk-row" }, ...(steps.length > 1 ? [stepSlider.node] : []), layerSlider.node, tokenSlider.node,
      ...Object.values(toggles).map((toggle) => toggle.node), next),
    make("div", { class: "lk-main" },
      make("div", { class: "lk-stage mg-stage" }, grid, legend, map, mapNote), side),
    make("p", { class: "lk-hint" }, "Point, or ", key("←↑↓→"), " move · ", key("Shift"), " by groups · ", key("PgUp PgDn"), " windows · ",
      key("Home End"), " row · ", key("[ ]"), " layer · ", key("N"), " next crowded group"),
    live);

  function key(text) {
    return make("kbd", {}, text);
  }

  function seek() {
    if (!plane) return;
    const count = plane.tokens * plane.groups;
    const from = model.get("token") * plane.groups + (model.get("feature") >> 2);
    for (let i = 1; i <= count; i++) {
      const at = (from + i) % count, token = Math.floor(at / plane.groups), group = at % plane.groups;
      if (plane.nonzeros(token, group) < 3) continue;
      const lost = [0, 1, 2, 3].find((j) => plane.value(token, 4 * group + j) !== 0 && !plane.kept(token, 4 * group + j));
      return moveTo(token, 4 * group + lost);
    }
  }

  // ---- geometry
  const groupX = (index) => LABEL + index * (4 * CELL + GAP);
  const cellX = (feature) => groupX((feature >> 2) - view.first) + (feature & 3) * CELL;
  const rowY = (token) => HEAD + (token - view.top) * ROW;

  function follow(width) {
    view.groups = Math.max(1, Math.min(plane.groups, Math.floor((width - LABEL - SHARE) / (4 * CELL + GAP))));
    view.rows = Math.min(ROWS, plane.tokens);
    const token = model.get("token"), group = model.get("feature") >> 2;
    view.top = clamp(view.top, token - view.rows + 1, token);
    view.top = clamp(view.top, 0, plane.tokens - view.rows);
    view.first = clamp(view.first, group - view.groups + 1, group);
    view.first = clamp(view.first, 0, plane.groups - view.groups);
  }

  function under(event) {
    const box = grid.getBoundingClientRect();
    const x = event.clientX - box.left - LABEL, y = event.clientY - box.top - HEAD;
    const index = Math.floor(x / (4 * CELL + GAP)), inside = x - index * (4 * CELL + GAP);
    if (x < 0 || y < 0 || index >= view.groups || y >= view.rows * ROW) return null;
    return [view.top + Math.floor(y / ROW), 4 * (view.first + index) + Math.min(3, Math.floor(inside / CELL))];
  }

  // ---- drawing
  function drawGrid(width) {
    const height = HEAD + view.rows * ROW + 4;
    const ink = sized(grid, width, height);
    const show = { natural: model.get("natural"), enforced: model.get("enforced"), difference: model.get("difference") && !model.get("compared").problem };
    const differing = show.difference ? wrongGroups() : new Map();
    ink.textBaseline = "middle";
    ink.font = "11px " + monospace();
    ink.fillStyle = theme.muted;
    ink.textAlign = "left";
    for (let g = 0; g < view.groups; g++) ink.fillText(String(4 * (view.first + g)), groupX(g), HEAD / 2);
    ink.textAlign = "right";
    ink.fillText("feature", LABEL - 8, HEAD / 2);
    ink.fillText("energy", width - 4, HEAD / 2);
    for (let r = 0; r < view.rows; r++) {
      const token = view.top + r, y = rowY(token), middle = y + ROW / 2;
      ink.fillStyle = token === model.get("token") ? theme.ink : theme.muted;
      ink.textAlign = "right";
      ink.fillText(`${shorten(visible(model.get("tokens")[token]), 9)} ${String(token).padStart(3)}`, LABEL - 8, middle);
      ink.fillText(percent(energy(token), 2), width - 4, middle);
      for (let g = 0; g < view.groups; g++) {
        const group = view.first + g, x = groupX(g);
        for (let j = 0; j < 4; j++) cell(ink, token, 4 * group + j, x + j * CELL, y, show);
        ink.strokeStyle = theme.line;
        ink.lineWidth = 1;
        ink.strokeRect(x - 1.5, y + 0.5, 4 * CELL + 3, ROW - 2);
        if (show.difference) verdict(ink, x, y, token, group, differing);
      }
    }
    const token = model.get("token"), feature = model.get("feature"), x = groupX((feature >> 2) - view.first);
    ink.strokeStyle = theme.accent;
    ink.lineWidth = 2.5;
    ink.strokeRect(x - 2.5, rowY(token) - 0.5, 4 * CELL + 5, ROW);
    ink.strokeStyle = theme.ink;
    ink.lineWidth = 1.5;
    ink.strokeRect(cellX(feature) + 0.5, rowY(token) + 2, CELL - 1, ROW - 5);
  }

  function cell(ink, token, feature, x, y, show) {
    const relative = plane.relative(token, feature), kept = plane.kept(token, feature);
    const middle = [x + CELL / 2, y + ROW / 2 - 0.5];
    if (relative === 0) {
      if (!show.natural || show.difference) return;
      ink.fillStyle = theme.muted;
      ink.beginPath();
      ink.arc(...middle, 1.6, 0, 7);
      ink.fill();
      return;
    }
    if (!kept && !show.enforced) return; // what the product sees: nothing there
    const share = Number.isFinite(relative) ? Math.cbrt(Math.abs(relative)) : 1;
    ink.globalAlpha = show.difference ? 0.25 : 1; // the bits are written over it
    ink.fillStyle = (kept ? colours.kept : colours.dropped)(share);
    ink.fillRect(x + 1, y + 2.5, CELL - 2, ROW - 6);
    if (!kept && !show.difference) {
      ink.strokeStyle = share > 0.75 && !theme.dark ? "#fff" : share > 0.75 ? "#000" : colours.mark;
      ink.lineWidth = 1.4;
      ink.beginPath();
      for (const sign of [1, -1]) {
        ink.moveTo(middle[0] - 3.5, middle[1] - 3.5 * sign);
        ink.lineTo(middle[0] + 3.5, middle[1] + 3.5 * sign);
      }
      ink.stroke();
    }
    ink.globalAlpha = 1;
  }

  const wrongGroups = () =>
    new Map((model.get("compared").found || []).filter(([at]) => at === plane.plane).map(([, token, group, a, b]) => [token * plane.groups + group, [a, b]]));

  function verdict(ink, x, y, token, group, differing) {
    const pair = differing.get(token * plane.groups + group);
    const text = pair ? `${bits(pair[0], 4)}≠${bits(pair[1], 4)}` : `${bits(plane.nibble(token, group), 4)} =`;
    ink.font = (pair ? "bold " : "") + "12px " + monospace();
    if (pair) {
      ink.fillStyle = colours.wrong;
      ink.fillRect(x - 1, y + 1, 4 * CELL + 2, ROW - 3);
    }
    ink.fillStyle = pair ? theme.paper : theme.ink;
    ink.textAlign = "center";
    ink.fillText(text, x + 2 * CELL, y + ROW / 2);
    ink.font = "11px " + monospace();
  }

  function energy(token) {
    let kept = 0, all = 0;
    for (let feature = 0; feature < plane.features; feature++) {
      const square = plane.relative(token, feature) ** 2;
      all += square;
      if (plane.kept(token, feature)) kept += square;
    }
    return all > 0 ? kept / all : 1;
  }

  // The whole layer, one pixel a group: how many of its four are non-zero.
  function drawMap(width) {
    const height = clamp(plane.tokens, 48, 128);
    const ink = sized(map, width, height);
    if (!mapImage) {
      mapImage = new OffscreenCanvas(plane.groups, plane.tokens);
      const brush = mapImage.getContext("2d");
      const pixels = brush.createImageData(plane.groups, plane.tokens);
      const rgb = colours.counts.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
      for (let t = 0, at = 0; t < plane.tokens; t++)
        for (let g = 0; g < plane.groups; g++, at += 4) pixels.data.set([...rgb[plane.nonzeros(t, g)], 255], at);
      brush.putImageData(pixels, 0, 0);
    }
    ink.imageSmoothingEnabled = false;
    ink.drawImage(mapImage, 0, 0, width, height);
    const [sx, sy] = [width / plane.groups, height / plane.tokens];
    ink.strokeStyle = theme.paper;
    ink.lineWidth = 5;
    const box = [view.first * sx + 1, view.top * sy + 1, Math.max(4, view.groups * sx - 2), Math.max(4, view.rows * sy - 2)];
    ink.strokeRect(...box);
    ink.strokeStyle = theme.ink;
    ink.lineWidth = 2;
    ink.strokeRect(...box);
  }

  const monospace = () => getComputedStyle(root).getPropertyValue("--lk-mono") || "monospace";

  function drawLegend() {
    const chip = (paint) => {
      const canvas = make("canvas", { "aria-hidden": "true" });
      paint(sized(canvas, CELL, 15));
      return canvas;
    };
    const square = (ramp, cross) => (ink) => {
      ink.fillStyle = ramp(0.55);
      ink.fillRect(1, 1, CELL - 2, 13);
      if (!cross) return;
      ink.strokeStyle = colours.mark;
      ink.lineWidth = 1.4;
      ink.beginPath();
      ink.moveTo(5, 4); ink.lineTo(12, 11); ink.moveTo(5, 11); ink.lineTo(12, 4);
      ink.stroke();
    };
    const dot = (ink) => {
      ink.fillStyle = theme.muted;
      ink.beginPath();
      ink.arc(8, 7.5, 1.8, 0, 7);
      ink.fill();
    };
    const item = (paint, text) => make("span", {}, chip(paint), text);
    legend.replaceChildren(item(square(colours.kept), "kept (darker: larger)".replace("darker", theme.dark ? "brighter" : "darker")),
      item(square(colours.dropped, true), "dropped by the mask"), item(dot, "zero by ReLU²"));
    mapNote.replaceChildren("The whole layer, tokens down, groups across; drag the frame. Non-zeros of four:",
      ...colours.counts.map((colour, n) => item((ink) => {
        ink.fillStyle = colour;
        ink.fillRect(1, 1, CELL - 2, 13);
        ink.strokeStyle = theme.line;
        ink.strokeRect(1, 1, CELL - 2, 13);
      }, n > 2 ? `${n} crowded` : String(n))));
  }

  // The group under the cursor in words and bits: on the page, and spoken.
  function drawSide() {
    const token = model.get("token"), feature = model.get("feature"), group = feature >> 2;
    const text = visible(model.get("tokens")[token]);
    const values = [0, 1, 2, 3].map((i) => plane.value(token, 4 * group + i));
    const kept = [0, 1, 2, 3].map((i) => plane.kept(token, 4 * group + i));
    const top = Math.max(...values.map(Math.abs).filter(Number.isFinite), 0) || 1;
    const fates = values.map((value, i) =>
      value === 0 ? (kept[i] ? "· zero, stored" : "· zero by ReLU²") : kept[i] ? "✓ kept" : "× dropped");
    const rows = values.flatMap((value, i) => {
      const here = i === (feature & 3) ? " mg-here" : "";
      const fill = make("i", {});
      const share = clamp(Math.abs(value) / top, 0, 1) || 0;
      fill.style.width = `${100 * share}%`;
      fill.style.background = (kept[i] ? colours.kept : colours.dropped)(0.5);
      return [
        make("span", { class: "mg-place" + here }, String(i)),
        make("span", { class: "mg-bar" }, fill),
        make("span", { class: "mg-number" + here }, written(value)),
        make("span", { class: "mg-fate" + here }, fates[i]),
      ];
    });
    const nibble = plane.nibble(token, group), [i0, i1] = [nibble & 3, nibble >> 2];
    const byte = plane.byteOf(token, group), half = group & 1 ? "high" : "low";
    const pair = (label, number) => make("figure", {},
      ...[...bits(number, 2)].map((bit) => make("span", { class: "mg-bit" + (bit === "1" ? " mg-one" : "") }, bit)),
      make("figcaption", {}, `${label} = place ${number}`));
    const found = wrongGroups().get(token * plane.groups + group);
    const compared = model.get("compared");
    const kernel = compared.problem ? `not compared: ${compared.problem}`
      : found ? `≠ the kernel wrote ${bits(found[1], 4)}, the reference ${bits(found[0], 4)}, or other values`
        : "= the Triton kernel wrote the same bits and values";
    side.replaceChildren(
      make("p", { class: "mg-where" }, "token ", make("span", { class: "mg-token" }, shorten(text, 14)), ` (${token})`),
      make("span", {}, `group ${group}: features ${4 * group} to ${4 * group + 3}`),
      make("div", { class: "mg-values" }, ...rows),
      make("div", { class: "mg-bits" }, pair("i1", i1), pair("i0", i0)),
      make("p", { class: "mg-fact" }, "stored values ", make("code", {}, `${written(values[i0])}, ${written(values[i1])}`)),
      make("p", { class: "mg-fact" }, "nibble ", make("code", {}, bits(nibble, 4)), ` is the ${half} half of byte ${group >> 1}: `, make("code", {}, `0x${byte.toString(16).padStart(2, "0")}`)),
      make("p", { class: "mg-fact" }, kernel),
    );
    live.textContent = `Token ${text}, feature ${feature}: ${written(values[feature & 3])}, ${fates[feature & 3].slice(2)}. ` +
      `Group ${group}: ${values.map(written).join(", ")}. Places ${i0} and ${i1} are stored, bits ${bits(nibble, 4)}.`;
    map.setAttribute("aria-label", `Map of the whole layer: ${plane.tokens} tokens by ${plane.groups} groups; crowded groups stand out.`);
  }

  function drawTitle() {
    const share = model.get("shares")[plane.plane], compared = model.get("compared");
    const step = steps[model.get("step")];
    const left = model.get("left_out");
    title.textContent = model.get("difference")
      ? compared.problem ? `Kernel and reference were not compared: ${compared.problem}`
        : `Triton kernel against reference on ${compared.groups.toLocaleString("en")} groups (${compared.where}): ` +
          (compared.different ? `${compared.different.toLocaleString("en")} differ` : "all agree bit for bit")
      : `${step ? step + ", " : ""}layer ${model.get("layer")}: ReLU² zeroes ${percent(share.natural)}, ` +
        `the mask ${percent(share.enforced)} more; ${percent(share.energy, 2)} of the energy stays` +
        (left ? ` (the last ${left} tokens are not shown)` : "");
  }

  function draw() {
    theme = palette(root);
    const [was, scheme] = [colours, theme.dark ? COLOURS.dark : COLOURS.light];
    colours = scheme;
    const wanted = `${model.get("step")}/${model.get("layer")}/${model.get("held")}`;
    if (wanted !== planeKey || was !== scheme) {
      planeKey = wanted;
      plane = readPlane(model) || plane;
      mapImage = null;
    }
    stepSlider.set(model.get("step"));
    layerSlider.set(model.get("layer"));
    tokenSlider.set(model.get("token"));
    for (const [name, toggle] of Object.entries(toggles)) toggle.set(model.get(name));
    if (!plane) return;
    const width = Math.floor(grid.parentElement.clientWidth);
    if (!width) return;
    follow(width);
    const used = groupX(view.groups) + SHARE - 6;
    drawGrid(used);
    drawMap(used - 2);
    drawLegend();
    drawSide();
    drawTitle();
  }

  // ---- touch
  grid.addEventListener("pointermove", (event) => {
    const at = plane && under(event);
    if (at && (at[0] !== model.get("token") || at[1] !== model.get("feature"))) moveTo(...at);
  });
  grid.addEventListener("pointerdown", () => grid.focus());
  const drag = (event) => {
    if (!plane || !(event.buttons & 1)) return;
    const box = map.getBoundingClientRect();
    const token = Math.round(((event.clientY - box.top) / box.height) * plane.tokens - view.rows / 2);
    const group = Math.round(((event.clientX - box.left) / box.width) * plane.groups - view.groups / 2);
    view.top = clamp(token, 0, plane.tokens - view.rows);
    view.first = clamp(group, 0, plane.groups - view.groups);
    moveTo(clamp(model.get("token"), view.top, view.top + view.rows - 1),
      4 * clamp(model.get("feature") >> 2, view.first, view.first + view.groups - 1) + (model.get("feature") & 3));
  };
  map.addEventListener("pointerdown", (event) => {
    map.setPointerCapture(event.pointerId);
    drag(event);
  });
  map.addEventListener("pointermove", drag);
  grid.addEventListener("keydown", (event) => {
    const token = model.get("token"), feature = model.get("feature"), leap = event.shiftKey ? 4 : 1;
    const layer = (by) => put({ layer: clamp(model.get("layer") + by, 0, model.get("layers") - 1) });
    const moves = {
      ArrowLeft: () => moveTo(token, feature - leap),
      ArrowRight: () => moveTo(token, feature + leap),
      ArrowUp: () => moveTo(token - 1, feature),
      ArrowDown: () => moveTo(token + 1, feature),
      PageUp: () => moveTo(token - view.rows, feature),
      PageDown: () => moveTo(token + view.rows, feature),
      Home: () => moveTo(token, 0),
      End: () => moveTo(token, features() - 1),
      "[": () => layer(-1),
      "]": () => layer(1),
      n: seek,
      N: seek,
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  });

  const shell = instrument({
    model, el, root, draw,
    watch: ["step", "layer", "token", "feature", "natural", "enforced", "difference", "held", "values", "compared"],
  });
  return () => {
    lazy.close();
    shell.close();
  };
}

export default { render };
