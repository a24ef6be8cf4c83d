// Curves of many runs under one cursor. The cursor moves here; only a chosen step asks Python for its texts.

const PANEL = 150, TOP = 24, BOTTOM = 20, LEFT = 46, PAD = 14, SPEED = 14; // steps per second when it plays
// Okabe and Ito (2008); arms differ by dash and marker too.
const HUES = {
  light: ["#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000", "#8a7a00"],
  dark: ["#56b4e9", "#ff8f4a", "#2fd3a3", "#f0b429", "#e3a4c6", "#9fd6f7", "#ffffff", "#f0e442"],
};
const DASHES = [[], [7, 3], [8, 3, 2, 3], [2, 3], [12, 4], [5, 2, 2, 2], [3, 2], [10, 2, 10, 6]];

// A marker of the arm, filled, around (x, y).
function marker(ink, kind, x, y, r) {
  const polygon = (...corners) => {
    ink.beginPath();
    corners.forEach(([dx, dy], i) => (i ? ink.lineTo(x + r * dx, y + r * dy) : ink.moveTo(x + r * dx, y + r * dy)));
    ink.closePath();
  };
  if (kind === 0) {
    ink.beginPath();
    ink.arc(x, y, r, 0, 7);
  } else if (kind === 1) polygon([-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]);
  else if (kind === 2) polygon([0, -1.2], [1.1, 0.9], [-1.1, 0.9]);
  else if (kind === 3) polygon([0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]);
  else if (kind === 4) polygon([0, 1.2], [1.1, -0.9], [-1.1, -0.9]);
  else if (kind === 5) polygon([-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]);
  else if (kind === 6) polygon([-1.2, 0], [0, -0.5], [1.2, 0], [0, 0.5]);
  else polygon([0, -1.3], [0.4, -0.4], [1.3, -0.3], [0.5, 0.3], [0.8, 1.2], [0, 0.7], [-0.8, 1.2], [-0.5, 0.3], [-1.3, -0.3], [-0.4, -0.4]);
  ink.fill();
}

const number = (value) => {
  if (value == null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = Number.isInteger(value) || size >= 1000 ? Math.round(value).toLocaleString("en") : size >= 100 ? value.toFixed(1) : size >= 10 ? value.toFixed(2) : size >= 0.001 || size === 0 ? value.toFixed(3) : value.toExponential(1);
  return text.replace("-", "−");
};

// The text, or as much of it as is `width` wide.
function fitting(ink, text, width) {
  let length = text.length;
  while (length > 4 && ink.measureText(shorten(text, length)).width > width) length--;
  return shorten(text, length);
}

// About `count` round numbers between low and high, two at least.
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const unit = power * [1, 2, 5, 10].find((step) => step * power >= rough);
  const found = [];
  for (let at = Math.ceil(low / unit) * unit; at <= high + unit * 1e-6; at += unit) found.push(Number(at.toPrecision(12)));
  return found.length > 1 || count > 12 ? found : ticks(low, high, 2 * count);
}

// Every curve of the model: steps, values, and the place of the last point at or before a step.
function readCurves(model) {
  const points = model.get("points");
  return model.get("extent").map(([run, panel, first, count]) => {
    const steps = new Int32Array(count), values = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      steps[i] = points.getInt32(8 * (first + i), true);
      values[i] = points.getFloat32(8 * (first + i) + 4, true);
    }
    return { run, panel, steps, values, drawn: values };
  });
}

function placeOf(steps, step) {
  let low = 0, high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// Trailing mean over `width` points.
function smoothed(values, width) {
  if (width < 2) return values;
  const out = new Float32Array(values.length);
  let sum = 0, count = 0;
  const add = (value, sign) => {
    if (!Number.isFinite(value)) return; // one infinity must not swallow the rest
    sum += sign * value;
    count += sign;
  };
  for (let i = 0; i < values.length; i++) {
    add(values[i], 1);
    if (i >= width) add(values[i - width], -1);
    out[i] = Number.isFinite(values[i]) ? sum / count : values[i];
  }
  return out;
}

function render({ model, el }) {
  const lazy = lazySave(model);
  const curves = readCurves(model);
  const runs = model.get("runs"), panels = model.get("panels"), unit = model.get("unit");
  const arms = [...new Set(runs.map((run) => run.arm))], seeds = [...new Set(runs.map((run) => run.seed))];
  const armOf = runs.map((run) => arms.indexOf(run.arm));
  const domain = Int32Array.from(new Set(curves.flatMap((curve) => [...curve.steps]))).sort();
  const view = model.get("sampled");
  const sampled = Array.from({ length: view.byteLength / 4 }, (_, i) => view.getInt32(4 * i, true));
  const inReach = sampled.filter((step) => step >= domain[0] && step <= domain.at(-1));
  const [firstStep, lastStep] = [domain[0], domain.at(-1)];
  let from = firstStep, to = lastStep; // the stretch of steps in view
  let hover = null, playing = 0, began = null, drawnKey = "", scales = [], theme = null, layout = null, width = 0;

  const put = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    lazy.later();
    shell.redraw();
  };
  const place = () => Math.max(0, placeOf(domain, model.get("step")));
  const go = (index) => put({ step: domain[clamp(index, 0, domain.length - 1)] });
  const shown = () => new Set(model.get("shown"));
  const show = (wanted) => put({ shown: runs.map((_, i) => i).filter(wanted) });

  // ---- what stands on the page
  const title = make("p", { class: "lk-title" });
  const cursor = slider(unit, { max: domain.length - 1, value: place(), say: (i) => `${domain[i]} of ${domain.at(-1)}`, change: go });
  cursor.input.classList.add("sc-step");
  const zoom = ["+", "−"].map((sign, i) => make("button", {
    type: "button", "aria-label": i ? "zoom out" : "zoom in around the cursor", onclick: () => zoomBy(i ? 2 : 0.5),
  }, sign));
  const play = make("button", { type: "button", "aria-pressed": "false", onclick: () => toggle() }, "▶ play");
  const smoothing = slider("smooth over", {
    max: 29, value: model.get("smooth") - 1, say: (i) => (i ? `${i + 1} points` : "off"), change: (i) => put({ smooth: i + 1 }),
  });
  const pick = (label, words, mine) => checkbox(words, {
    value: true, title: `show or hide ${label}`,
    change: (on) => {
      const now = shown();
      show((i) => (mine(i) ? on : now.has(i)));
    },
  });
  const armBoxes = arms.map((arm, a) => pick(`all runs of ${arm}`, arm, (i) => armOf[i] === a));
  const seedBoxes = seeds.map((seed) => pick(`seed ${seed}`, seed, (i) => runs[i].seed === seed));
  const base = make("canvas", { "aria-hidden": "true" });
  const over = make("canvas", {
    tabindex: 0, role: "slider", "aria-label": `Cursor over ${unit}s. Left and right move it by one, Page Up and Page Down by a tenth, Home and End to the ends, Space plays, S goes to the next ${unit} with completions.`,
    "aria-valuemin": domain[0], "aria-valuemax": domain.at(-1),
  });
  const stage = make("div", { class: "sc-stage" }, base, over);
  const swatches = runs.map(() => make("canvas", { "aria-hidden": "true" }));
  const boxes = runs.map((run, i) => checkbox([swatches[i], runs.length > arms.length ? `${run.arm}, seed ${run.seed}` : run.arm], {
    value: true,
    change: (on) => {
      const now = shown();
      show((j) => (j === i ? on : now.has(j)));
    },
  }));
  const cells = runs.map(() => panels.map(() => make("td", {}, "–")));
  const rows = runs.map((_, i) => make("tr", {}, make("th", { scope: "row" }, boxes[i].node), ...cells[i]));
  const corner = make("th", { scope: "col" });
  const table = make("table", { class: "sc-table" },
    make("thead", {}, make("tr", {}, corner, ...panels.map((label) => make("th", { scope: "col" }, label)))), make("tbody", {}, ...rows));
  const written = make("div", { class: "sc-written", "aria-live": "polite" });
  const hint = make("p", { class: "lk-hint" });
  const group = (label, items) => make("span", { class: "lk-row", role: "group", "aria-label": label, style: "margin:0" }, label, ...items.map((item) => item.node));
  const root = make("div", { class: "lk sc" }, title,
    make("div", { class: "lk-row" }, cursor.node, play, make("span", {}, "zoom ", zoom[0], " ", zoom[1]), ...(model.get("thinned").length ? [] : [smoothing.node]),
      ...(arms.length > 1 && runs.length > arms.length ? [group("arms", armBoxes)] : []), ...(seeds.length > 1 && runs.length > arms.length ? [group("seeds", seedBoxes)] : [])),
    stage, make("div", { class: "sc-scroll" }, table), written, hint);
  const keys = [["← →", "one " + unit], ["+ −", "zoom"], ["PgUp PgDn", "a tenth"], ["Home End", "ends"], ["Space", "play"]];
  if (inReach.length) keys.push(["S", `next ${unit} with completions (▴)`]);
  hint.append("Drag in a panel, or ", ...keys.flatMap(([key, does], i) => [i ? " · " : "", make("kbd", {}, key), " " + does]));
  const [most, longest] = model.get("thinned");
  if (most) hint.append(` · each curve is drawn by its ends and extremes: at most ${most} of ${longest.toLocaleString("en")} points`);

  function toggle(on = !playing) {
    cancelAnimationFrame(playing);
    playing = 0;
    play.textContent = on ? "❚❚ pause" : "▶ play";
    play.setAttribute("aria-pressed", String(on));
    if (!on) return;
    if (place() === domain.length - 1) go(0);
    began = null;
    const start = place();
    const next = (now) => {
      began ??= now;
      const at = start + Math.floor(((now - began) / 1000) * SPEED);
      if (at !== place()) go(at);
      if (at >= domain.length - 1) return toggle(false);
      playing = requestAnimationFrame(next);
    };
    playing = requestAnimationFrame(next);
  }

  // Show `span` steps around `step`, inside the run.
  function lookAround(step, span) {
    const wide = clamp(span, Math.min(8, lastStep - firstStep), lastStep - firstStep);
    from = clamp(Math.round(step - wide / 2), firstStep, lastStep - wide);
    to = from + wide;
  }

  function zoomBy(factor) {
    lookAround(model.get("step"), Math.round((to - from) * factor));
    shell.redraw();
  }

  // ---- geometry: panels in a grid, all with the same steps from left to right
  function arrange() {
    const columns = clamp(Math.floor(width / 212), 1, Math.min(4, panels.length));
    const rows = Math.ceil(panels.length / columns), wide = width / columns;
    const boxes = panels.map((_, i) => ({
      x: (i % columns) * wide + LEFT, y: Math.floor(i / columns) * (PANEL + BOTTOM) + TOP,
      w: wide - LEFT - PAD, h: PANEL - TOP - 6,
      last: i + columns >= panels.length,
    }));
    return { boxes, height: rows * (PANEL + BOTTOM) + 8 };
  }
  const toX = (box, step) => box.x + ((step - from) / Math.max(1, to - from)) * box.w;
  const toY = (box, scale, value) => box.y + box.h - ((value - scale.low) / (scale.high - scale.low)) * box.h;

  function scaleOf(panel, visible) {
    let low = Infinity, high = -Infinity;
    for (const curve of curves)
      if (curve.panel === panel && visible.has(curve.run))
        curve.drawn.forEach((value, i) => {
          if (!Number.isFinite(value) || curve.steps[i] < from || curve.steps[i] > to) return;
          if (value < low) low = value;
          if (value > high) high = value;
        });
    if (low > high) [low, high] = [0, 1];
    const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
    return { low: low - room, high: high + room };
  }

  // ---- drawing: the curves when something changes, the cursor in every frame
  function drawBase(visible) {
    const ink = sized(base, width, layout.height);
    ink.font = "11px " + getComputedStyle(root).fontFamily;
    ink.lineJoin = "round";
    panels.forEach((label, p) => {
      const box = layout.boxes[p], scale = (scales[p] = scaleOf(p, visible));
      ink.setLineDash([]);
      ink.lineWidth = 1;
      ink.textBaseline = "middle";
      ink.textAlign = "right";
      for (const at of ticks(scale.low, scale.high, 3)) {
        const y = Math.round(toY(box, scale, at)) + 0.5;
        ink.strokeStyle = theme.line;
        ink.beginPath();
        ink.moveTo(box.x, y);
        ink.lineTo(box.x + box.w, y);
        ink.stroke();
        ink.fillStyle = theme.muted;
        ink.fillText(Number(at.toPrecision(6)).toLocaleString("en", { maximumSignificantDigits: 4 }).replace("-", "−"), box.x - 5, y);
      }
      ink.textBaseline = "top";
      ink.textAlign = "center";
      const zoomed = from > firstStep || to < lastStep; // then its ends say where one is
      for (const at of zoomed ? [from, to] : ticks(from, Math.max(to, from + 1), Math.max(2, box.w / 70)))
        if (Number.isInteger(at) && at <= to) ink.fillText(at.toLocaleString("en"), toX(box, at), box.y + box.h + 8);
      ink.fillStyle = theme.ink;
      ink.textAlign = "left";
      ink.textBaseline = "alphabetic";
      ink.font = "600 12px " + getComputedStyle(root).fontFamily;
      ink.fillText(fitting(ink, label, box.w + 34), box.x - 30, box.y - 8);
      ink.font = "11px " + getComputedStyle(root).fontFamily;
      ink.fillStyle = theme.muted;
      let before = -9;
      for (const step of inReach) {
        const x = toX(box, step);
        if (x - before < 5 || step < from || step > to) continue;
        marker(ink, 2, x, box.y + box.h + 4, 2);
        before = x;
      }
    });
    for (const curve of curves) {
      if (!visible.has(curve.run)) continue;
      const box = layout.boxes[curve.panel], scale = scales[curve.panel], arm = armOf[curve.run] % 8;
      ink.strokeStyle = ink.fillStyle = theme.hues[arm];
      ink.globalAlpha = runs.length > arms.length ? 0.8 : 1;
      ink.lineWidth = runs.length > arms.length ? 1.3 : 1.8;
      ink.setLineDash(DASHES[arm]);
      ink.save();
      ink.beginPath();
      ink.rect(box.x - 3, box.y - 3, box.w + 6, box.h + 6);
      ink.clip();
      ink.beginPath();
      let open = false;
      curve.drawn.forEach((value, i) => {
        if (!Number.isFinite(value)) return void (open = false);
        const [x, y] = [toX(box, curve.steps[i]), toY(box, scale, value)];
        open ? ink.lineTo(x, y) : ink.moveTo(x, y);
        open = true;
      });
      ink.stroke();
      ink.setLineDash([]);
      const inView = curve.drawn.length * Math.min(1, (to - from + 1) / (lastStep - firstStep + 1));
      const every = Math.max(1, Math.ceil(inView / 5));
      for (let i = curve.run % every; i < curve.drawn.length; i += every)
        if (Number.isFinite(curve.drawn[i])) marker(ink, arm, toX(box, curve.steps[i]), toY(box, scale, curve.drawn[i]), 2.6);
      ink.restore();
      ink.globalAlpha = 1;
    }
  }

  function drawCursor(step, visible) {
    const ink = sized(over, width, layout.height);
    ink.font = "600 11px " + getComputedStyle(root).fontFamily;
    for (const box of layout.boxes) {
      const x = toX(box, step);
      ink.strokeStyle = theme.ink;
      ink.lineWidth = 1.5;
      ink.setLineDash(hover == null ? [] : [3, 3]);
      ink.beginPath();
      ink.moveTo(x, box.y - 3);
      ink.lineTo(x, box.y + box.h + 2);
      ink.stroke();
      const text = step.toLocaleString("en"), wide = ink.measureText(text).width + 8;
      const left = clamp(x - wide / 2, box.x - 8, box.x + box.w - wide + 8);
      ink.fillStyle = theme.ink;
      ink.fillRect(left, box.y + box.h + 6, wide, 15);
      ink.fillStyle = theme.paper;
      ink.textAlign = "left";
      ink.textBaseline = "middle";
      ink.fillText(text, left + 4, box.y + box.h + 14);
    }
    ink.setLineDash([]);
    for (const curve of curves) {
      const at = placeOf(curve.steps, step), value = curve.drawn[at];
      const cell = cells[curve.run][curve.panel];
      const old = at >= 0 && curve.steps[at] !== step;
      const text = at < 0 ? "–" : number(value);
      if (cell.textContent !== text) cell.textContent = text;
      if (cell.className !== (old ? "sc-old" : "")) cell.className = old ? "sc-old" : "";
      if (at < 0 || !visible.has(curve.run) || !Number.isFinite(value) || curve.steps[at] < from) continue;
      const box = layout.boxes[curve.panel], arm = armOf[curve.run] % 8;
      const [x, y] = [toX(box, curve.steps[at]), toY(box, scales[curve.panel], value)];
      ink.fillStyle = theme.paper;
      marker(ink, arm, x, y, 6);
      ink.fillStyle = theme.hues[arm];
      marker(ink, arm, x, y, 4.2);
    }
  }

  function drawSwatches() {
    swatches.forEach((canvas, i) => {
      const ink = sized(canvas, 40, 14), arm = armOf[i] % 8;
      ink.strokeStyle = ink.fillStyle = theme.hues[arm];
      ink.lineWidth = 2;
      ink.setLineDash(DASHES[arm]);
      ink.beginPath();
      ink.moveTo(0, 7);
      ink.lineTo(40, 7);
      ink.stroke();
      ink.setLineDash([]);
      marker(ink, arm, 20, 7, 4);
    });
  }

  // What the shown runs wrote at the cursor's step; Python sends it when a step is chosen.
  let told = null;
  function drawWritten() {
    const found = model.get("completions"), step = model.get("step");
    if (!inReach.length && !sampled.length) {
      if (told !== "none") written.replaceChildren(make("p", { class: "lk-hint" }, "These runs kept no completions."));
      told = "none";
      return;
    }
    if (found.step !== step) return; // on its way
    if (told === found) return;
    told = found;
    written.replaceChildren(...found.runs.map((one) => card(one, found.step)),
      ...(found.more ? [make("p", { class: "lk-hint" }, `${found.more} more runs are shown above; hide some to read them.`)] : []));
  }

  function card({ run, rows, of, near }, step) {
    const name = runs.length > arms.length ? `${runs[run].arm}, seed ${runs[run].seed}` : runs[run].arm;
    const head = make("h4", {}, `${name}, ${unit} ${step}` + (of > rows.length ? ` (${rows.length} of ${of})` : ""));
    if (!rows.length)
      return make("section", { class: "sc-card" }, head, make("p", {}, near.length
        ? `No completions were kept at ${unit} ${step}. The nearest: ` : "This run kept no completions."),
        ...near.flatMap((at) => [make("button", { type: "button", onclick: () => put({ step: at }) }, `${unit} ${at}`), " "]));
    return make("section", { class: "sc-card" }, head, make("ol", {}, ...rows.map((row) => {
      const verdict = row.correct == null ? "" : row.correct ? "✓ right" : "✗ wrong";
      const facts = [row.length != null && `${row.length} tokens`, row.entropy != null && `${number(row.entropy)} nats`,
        row.advantage != null && `advantage ${row.advantage > 0 ? "+" : ""}${number(row.advantage)}`].filter(Boolean);
      return make("li", {}, make("span", { class: `sc-verdict ${row.correct ? "sc-right" : "sc-wrong"}` }, verdict),
        make("span", { class: "sc-text" }, make("b", {}, row.prompt ?? ""), row.text ?? "", make("span", { class: "sc-note" }, facts.join(" · "))));
    })));
  }

  function draw() {
    const wide = Math.floor(stage.clientWidth);
    if (!wide) return;
    const colours = palette(root), visible = shown(), step = hover ?? model.get("step"), smooth = model.get("smooth");
    theme = { ...colours, hues: colours.dark ? HUES.dark : HUES.light };
    if (step < from || step > to) lookAround(step, to - from);
    const key = [wide, smooth, from, to, [...visible], colours.ink, colours.paper, window.devicePixelRatio].join();
    if (key !== drawnKey) {
      drawnKey = key;
      width = wide;
      layout = arrange();
      stage.style.height = `${layout.height}px`;
      for (const curve of curves) curve.drawn = smoothed(curve.values, smooth);
      drawBase(visible);
      drawSwatches();
      boxes.forEach((box, i) => {
        box.set(visible.has(i));
        rows[i].classList.toggle("sc-off", !visible.has(i));
      });
      const state = (box, mine) => {
        const count = mine.filter((i) => visible.has(i)).length;
        box.set(count > 0);
        box.input.indeterminate = count > 0 && count < mine.length;
      };
      arms.forEach((_, a) => state(armBoxes[a], runs.map((_, i) => i).filter((i) => armOf[i] === a)));
      seeds.forEach((seed, s) => state(seedBoxes[s], runs.map((_, i) => i).filter((i) => runs[i].seed === seed)));
      smoothing.set(smooth - 1);
      title.textContent = model.get("title") || `${panels.length} curve${panels.length > 1 ? "s" : ""} of ${runs.length} run${runs.length > 1 ? "s" : ""} under one cursor`;
    }
    drawCursor(step, visible);
    corner.textContent = `at ${unit} ${step}`;
    if (hover == null) {
      cursor.set(place());
      over.setAttribute("aria-valuenow", step);
      over.setAttribute("aria-valuetext", `${unit} ${step}: ` + [...visible].slice(0, 4).map((i) => `${runs[i].arm} ${panels[0]} ${cells[i][0].textContent}`).join("; "));
      drawWritten();
    }
  }

  // ---- touch
  const stepUnder = (event) => {
    const box = stage.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const panel = layout?.boxes.find((one) => x >= one.x - 10 && x <= one.x + one.w + 10 && y >= one.y - TOP && y <= one.y + one.h + BOTTOM);
    if (!panel) return null;
    const wanted = from + clamp((x - panel.x) / panel.w, 0, 1) * (to - from);
    const at = clamp(placeOf(domain, wanted), 0, domain.length - 1), next = Math.min(at + 1, domain.length - 1);
    return Math.abs(domain[next] - wanted) < Math.abs(domain[at] - wanted) ? domain[next] : domain[at];
  };
  over.addEventListener("pointerdown", (event) => {
    over.focus();
    over.setPointerCapture(event.pointerId);
    toggle(false);
    const step = stepUnder(event);
    hover = null;
    if (step != null) put({ step });
  });
  over.addEventListener("pointermove", (event) => {
    const step = stepUnder(event);
    if (event.buttons & 1) return step != null && put({ step });
    if (step !== hover) {
      hover = step;
      shell.redraw();
    }
  });
  over.addEventListener("pointerleave", () => {
    hover = null;
    shell.redraw();
  });
  over.addEventListener("keydown", (event) => {
    const now = place(), leap = Math.max(1, Math.round(domain.length / 10));
    const later = inReach.find((step) => step > model.get("step")) ?? inReach[0];
    const moves = {
      ArrowLeft: () => go(now - 1), ArrowRight: () => go(now + 1), ArrowDown: () => go(now - 1), ArrowUp: () => go(now + 1),
      PageDown: () => go(now - leap), PageUp: () => go(now + leap), Home: () => go(0), End: () => go(domain.length - 1),
      "+": () => zoomBy(0.5), "=": () => zoomBy(0.5), "-": () => zoomBy(2), " ": () => toggle(), s: () => later != null && put({ step: later }), S: () => later != null && put({ step: later }),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    hover = null;
    if (event.key !== " ") toggle(false);
    moves[event.key]();
  });

  const shell = instrument({ model, el, root, draw, watch: ["step", "shown", "smooth", "completions"] });
  return () => {
    cancelAnimationFrame(playing);
    lazy.close();
    shell.close();
  };
}

export default { render };
