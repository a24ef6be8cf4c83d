// The beam tree of one decode, or of two on the same calls. beam_pack.py says what each array holds.

const [SEARCH, ACCELERATE, FINISHED] = [0, 1, 2];
const [KEPT, MERGED, PRUNED] = [0, 1, 2];
const MODE_NAMES = ["search: tries positions one by one", "accelerate: commits all it is sure of", "finished"];
const FATE_NAMES = ["kept", "merged: same board as a better one", "pruned: the beam was full"];
const STRATEGY_NAMES = { greedy: "greedy", parallel: "parallel", adaptive: "adaptive", pbs: "PBS", soar: "SOAR" };
const LEFT = 52, RIGHT = 18, TOP = 16, LANE = 58, AXIS = 34;
const DROPPED = 0.42; // how far along a call a dropped candidate ends
const DETAIL = 22; // pixels a call needs before dropped candidates are drawn
const LABELS = 74; // ... and before the answer's path says what it commits
const STARTS = [0.3, 4.5]; // the threshold's range in nines: 0.5 to 0.99997
const nines = (t) => -Math.log10(Math.max(1 - t, 1e-6));
const digits = (t) => (t >= 0.99 ? t.toFixed(5).replace(/\.?0+$/, "") : t.toFixed(3));

function unpack(packed) {
  const read = (name, Kind) => {
    const view = packed[name];
    return new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  };
  const starts = (sizes) => {
    const sums = new Uint32Array(sizes.length + 1);
    for (let i = 0; i < sizes.length; i++) sums[i + 1] = sums[i] + sizes[i];
    return sums;
  };
  const t = {
    ...packed,
    tokens: read("tokens", Int32Array), given: read("given", Uint8Array),
    truth: packed.truth ? read("truth", Int32Array) : null,
    first: starts(read("counts", Uint16Array)), parent: read("parent", Int32Array),
    score: read("score", Float32Array), committed: read("committed", Uint16Array), mode: read("mode", Uint8Array),
    delta: starts(read("changed", Uint16Array)), deltaPosition: read("delta_position", Uint16Array),
    deltaToken: read("delta_token", Int32Array), fill: starts(read("fills", Uint16Array)),
    fillPosition: read("fill_position", Uint16Array), fillToken: read("fill_token", Int32Array),
    fillConfidence: read("fill_confidence", Float32Array), cand: starts(read("candidates", Uint16Array)),
    candScore: read("cand_score", Float32Array), candFate: read("cand_fate", Uint8Array),
    candChild: read("cand_child", Uint16Array), commit: starts(read("cand_commits", Uint16Array)),
    commitRank: read("commit_rank", Uint16Array), answer: read("answer", Int32Array),
  };
  t.rows = t.parent.length;
  t.steps = t.first.length - 2; // forward calls: the last step is the finished one
  t.step = new Uint16Array(t.rows);
  t.slots = 1;
  for (let s = 0; s <= t.steps; s++) {
    t.step.fill(s, t.first[s], t.first[s + 1]);
    t.slots = Math.max(t.slots, t.first[s + 1] - t.first[s]);
  }
  t.lasts = Uint16Array.from(t.step); // the last call at which something of this state was still in the beam
  for (let r = t.rows - 1; r > 0; r--) t.lasts[t.parent[r]] = Math.max(t.lasts[t.parent[r]], t.lasts[r]);
  t.onAnswer = new Uint8Array(t.rows);
  for (const r of t.answer) t.onAnswer[r] = 1;
  t.slot = (r) => r - t.first[t.step[r]];
  t.child = (r, c) => (t.candChild[c] === 65535 ? -1 : t.first[t.step[r] + 1] + t.candChild[c]);
  t.spread = (r) => { // the dropped candidates of a state, in order
    const found = [];
    for (let c = t.cand[r]; c < t.cand[r + 1]; c++) if (t.candFate[c] !== KEPT) found.push(c);
    return found;
  };
  let [low, high] = [Infinity, -Infinity];
  for (let r = 0; r < t.rows; r++)
    if (t.committed[r]) [low, high] = [Math.min(low, t.score[r]), Math.max(high, t.score[r])];
  t.range = low <= high ? [low, high] : [0, 1];
  return t;
}

// The tokens of a state and the call that filled each position (0: the prompt's, or before a fork).
function state(t, row) {
  const tokens = Int32Array.from(t.tokens), when = new Uint16Array(tokens.length), path = [];
  for (let r = row; r >= 0; r = t.parent[r]) path.push(r);
  for (const r of path.reverse())
    for (let i = t.delta[r]; i < t.delta[r + 1]; i++) {
      tokens[t.deltaPosition[i]] = t.deltaToken[i];
      when[t.deltaPosition[i]] = t.offset + t.step[r];
    }
  return { tokens, when };
}

// Would this state accelerate at `threshold`? From the confidences that the decode recorded.
function wouldAccelerate(t, row, threshold) {
  let sure = 0;
  for (let i = t.fill[row]; i < t.fill[row + 1] && t.fillConfidence[i] > threshold; i++) sure++;
  return sure >= t.min_parallel;
}

function render({ model, el }) {
  let trees = [], view = null, play = 0, hover = null, colours = null, drag = null, shownKey = "";
  const get = (name) => model.get(name);
  const save = lazySave(model);
  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    save.later();
  };
  const side = () => get("side");
  const place = (p) => (side() ? `r${Math.floor(p / side()) + 1}c${(p % side()) + 1}` : `${p}`);
  const word = (token) => get("texts")[token] ?? String(token);
  const told = (p, token) => (side() ? `${place(p)}=${word(token)}` : `${p}: “${word(token)}”`);
  const fills = (t, r, i) => told(t.fillPosition[i], t.fillToken[i]);
  const commits = (t, r, c) => {
    const found = [];
    for (let i = t.commit[c]; i < t.commit[c + 1]; i++) found.push(fills(t, r, t.fill[r] + t.commitRank[i]));
    return found;
  };
  const ready = () => trees.length > 0 && get("row") < trees[get("tree")].rows;
  const lastCall = () => Math.max(...trees.map((t) => t.offset + t.steps));
  const callNow = () => trees[get("tree")].offset + trees[get("tree")].step[get("row")];

  // ---- the parts -----------------------------------------------------------------------------------
  const title = make("p", { class: "lk-title" });
  const note = make("span", { class: "bt-note" });
  const back = make("button", { onclick: () => model.send({ kind: "back", tree: get("tree") }) }, "Undo");
  const prompt = make("input", {
    type: "number", min: 0, "aria-label": "puzzle or prompt", class: "bt-number",
    onchange: () => set({ prompt: clamp(Math.round(Number(prompt.value)) || 0, 0, get("prompts") - 1) }),
  });
  const strategy = make("select", { "aria-label": "strategy", "data-explicit": true });
  for (const [value, text] of Object.entries(STRATEGY_NAMES)) strategy.append(make("option", { value }, text));
  const beam = make("input", { type: "number", min: 1, max: 16, "data-explicit": true, "aria-label": "beam: states kept", class: "bt-number" });
  const decode = make("button", { class: "bt-run", onclick: () => model.send({
    kind: "decode", strategy: strategy.value, beam: Number(beam.value), threshold: get("preview"),
  }) }, "Decode again");
  const playing = make("button", { onclick: () => toggle() }, "▶ Play");
  const scrub = slider("after call", { max: 1, value: 0, say: (n) => `${n} of ${trees.length ? lastCall() : 0}`, change: (n) => goTo(n) });
  scrub.input.classList.add("bt-wide");
  const zoom = (label, sign, text) => make("button", { "aria-label": label, title: label, onclick: () => zoomBy(sign) }, text);
  const threshold = make("input", {
    type: "range", min: STARTS[0], max: STARTS[1], step: 0.02, "aria-label": "threshold", class: "bt-wide",
    oninput: () => set({ preview: Number((1 - 10 ** -Number(threshold.value)).toFixed(5)) }),
  });
  const thresholdSays = make("output", {});
  const previewSays = make("span", { class: "bt-preview" });
  const reset = make("button", { onclick: () => set({ preview: recorded() }) }, "Reset");
  const stages = [];
  const stageBox = make("div", { class: "lk-stage bt-stages" });
  const tip = make("div", { class: "bt-tip", hidden: true });
  const boards = make("div", { class: "bt-boards" });
  const details = make("div", { class: "bt-details" });
  const aside = make("div", { class: "lk-side bt-side" }, boards, details);
  const live = make("div", { class: "lk-live", "aria-live": "polite", role: "status" });
  const legend = make("div", { class: "lk-legend" });
  const hint = make("p", { class: "lk-hint" });
  hint.innerHTML = "<kbd>←</kbd> <kbd>→</kbd> parent, child · <kbd>↑</kbd> <kbd>↓</kbd> rank · <kbd>C</kbd> next candidate · " +
    "<kbd>Space</kbd> play · <kbd>+</kbd> <kbd>−</kbd> <kbd>0</kbd> or Ctrl+wheel zoom · <kbd>Shift</kbd>+<kbd>←</kbd> <kbd>→</kbd> or drag pans";
  const decodeRow = make("div", { class: "lk-row" },
    make("label", { class: "lk-check" }, make("span", { class: "bt-what" }, "prompt"), prompt), make("span", { class: "bt-count" }),
    make("label", { class: "lk-check" }, "strategy", strategy), make("label", { class: "lk-check" }, "beam", beam), decode, back, note);
  const root = make("div", { class: "lk bt", role: "group", "aria-label": "beam tree" }, title, decodeRow,
    make("div", { class: "lk-row" }, playing, scrub.node,
      make("span", { class: "bt-zoom" }, zoom("zoom out", -1, "−"), zoom("zoom in", 1, "+"), zoom("fit the whole tree", 0, "Fit"))),
    make("div", { class: "lk-row" }, make("label", { class: "lk-slider" }, make("span", {}, "threshold"), threshold, thresholdSays),
      previewSays, reset),
    make("div", { class: "lk-main" }, stageBox, aside),
    legend, hint, live);
  stageBox.append(tip);

  // ---- where things are ----------------------------------------------------------------------------
  const rowHeight = (t) => clamp(Math.floor((trees.length > 1 ? 200 : 290) / t.slots), 26, 84);
  const height = (t) => TOP + t.slots * rowHeight(t) + LANE + AXIS;
  const stageWidth = () => Math.max(320, stageBox.clientWidth);
  const fitted = () => Math.min(150, (stageWidth() - LEFT - RIGHT - 24) / Math.max(1, lastCall()));
  const furthest = () => Math.max(-0.12, lastCall() + 0.3 - (stageWidth() - LEFT - RIGHT - 12) / view.scale);
  const fit = () => (view = { start: -0.12, scale: fitted(), whole: true });
  const x = (call) => LEFT + 12 + (call - view.start - 0.12) * view.scale;
  const callAt = (px) => (px - LEFT - 12) / view.scale + view.start + 0.12;
  const y = (t, slot) => TOP + (slot + 0.4) * rowHeight(t);
  const at = (t, r) => [x(t.offset + t.step[r]), y(t, t.slot(r))];
  const stub = (t, r, rank, count) => {
    const [px, py] = at(t, r);
    return [px + DROPPED * view.scale, py + rowHeight(t) * (0.16 + (0.66 * (rank + 1)) / (count + 1))];
  };
  function keepInView() {
    const low = callAt(LEFT), high = callAt(stageWidth() - RIGHT), now = callNow(), margin = 0.12 * (high - low);
    if (now < low + margin && low > -0.2) view.start -= low + margin - now;
    if (now > high - margin && high < lastCall()) view.start += now - high + margin;
    view.start = clamp(view.start, -0.12, furthest());
  }
  function zoomBy(sign, anchor = x(callNow())) {
    const call = callAt(anchor);
    if (sign === 0) fit();
    else {
      view.whole = false;
      view.scale = clamp(view.scale * 1.35 ** sign, Math.min(fitted(), 150), 220);
      view.start += call - callAt(anchor);
      view.start = clamp(view.start, -0.12, furthest());
    }
    panel.redraw();
  }
  const panBy = (calls) => {
    view.start = clamp(view.start + calls, -0.12, furthest());
    panel.redraw();
  };

  // ---- moving the selection ------------------------------------------------------------------------
  const select = (tree, row, candidate = -1) => {
    set({ tree, row, candidate });
    keepInView();
    panel.redraw();
  };
  function goTo(call) {
    const tree = get("tree"), t = trees[tree];
    select(tree, t.answer[clamp(call - t.offset, 0, t.steps)]);
  }
  function toggle() {
    if (play) {
      clearInterval(play);
      play = 0;
    } else {
      if (callNow() >= lastCall()) goTo(0);
      play = setInterval(() => (callNow() < trees[get("tree")].offset + trees[get("tree")].steps ? goTo(callNow() + 1) : toggle()), 650);
    }
    playing.textContent = play ? "❚❚ Pause" : "▶ Play";
  }
  function walk(event) {
    const tree = get("tree"), t = trees[tree], r = get("row"), s = t.step[r];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const within = (row) => select(tree, clamp(row, t.first[s], t.first[s + 1] - 1));
    const moves = {
      ArrowLeft: () => (event.shiftKey ? panBy(-60 / view.scale) : t.parent[r] >= 0 && select(tree, t.parent[r])),
      ArrowRight: () => {
        if (event.shiftKey) return panBy(60 / view.scale);
        const children = [];
        for (let c = t.cand[r]; c < t.cand[r + 1]; c++) if (t.candFate[c] === KEPT) children.push(t.child(r, c));
        const next = children.find((c) => t.onAnswer[c]) ?? children[0];
        if (next !== undefined) select(tree, next);
        else say(t.mode[r] === FINISHED ? "finished: no further call" : "no candidate of this state was kept");
      },
      ArrowUp: () => within(r - 1),
      ArrowDown: () => within(r + 1),
      Home: () => goTo(0),
      End: () => goTo(lastCall()),
      " ": toggle,
      "+": () => zoomBy(1),
      "=": () => zoomBy(1),
      "-": () => zoomBy(-1),
      0: () => zoomBy(0),
      c: () => t.cand[r + 1] > t.cand[r] && select(tree, r, (get("candidate") + 1) % (t.cand[r + 1] - t.cand[r])),
      Escape: () => select(tree, r),
    };
    const move = moves[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!move) return;
    event.preventDefault();
    move();
  }
  const say = (text) => (live.textContent = text);

  function hit(t, px, py) {
    const call = Math.round(callAt(px) - t.offset);
    let best = null, nearest = 14 * 14;
    const near = (row, candidate, [a, b]) => {
      const d = (a - px) ** 2 + (b - py) ** 2;
      if (d < nearest) [nearest, best] = [d, { row, candidate }];
    };
    for (let s = Math.max(0, call - 1); s <= Math.min(t.steps, call + 1); s++)
      for (let r = t.first[s]; r < t.first[s + 1]; r++) {
        near(r, -1, at(t, r));
        if (view.scale < DETAIL) continue;
        const dropped = t.spread(r);
        dropped.forEach((c, i) => near(r, c - t.cand[r], stub(t, r, i, dropped.length)));
      }
    return best;
  }

  function addStage(index) {
    const canvas = make("canvas", { tabindex: 0, role: "application", "aria-roledescription": "beam tree" });
    const caption = make("p", { class: "bt-caption" });
    canvas.addEventListener("keydown", (event) => {
      if (get("tree") !== index && /^(Arrow|Home|End| |c)/.test(event.key))
        select(index, trees[index].answer[clamp(callNow() - trees[index].offset, 0, trees[index].steps)]);
      walk(event);
    });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      zoomBy(event.deltaY < 0 ? 1 : -1, event.offsetX);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      drag = { from: event.offsetX, start: view.start, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag) {
        if (Math.abs(event.offsetX - drag.from) > 4) drag.moved = true;
        if (drag.moved) panBy(drag.start - (event.offsetX - drag.from) / view.scale - view.start);
        return;
      }
      const found = hit(trees[index], event.offsetX, event.offsetY);
      canvas.style.cursor = found ? "pointer" : "grab";
      hover = found && { ...found, index, px: event.offsetX, py: event.offsetY + canvas.offsetTop };
      showTip();
    });
    canvas.addEventListener("pointerup", (event) => {
      const found = !drag?.moved && hit(trees[index], event.offsetX, event.offsetY);
      drag = null;
      if (found) select(index, found.row, found.candidate);
    });
    canvas.addEventListener("pointercancel", () => (drag = null));
    canvas.addEventListener("pointerleave", () => ((hover = null), showTip()));
    stageBox.append(caption, canvas);
    return { canvas, caption };
  }

  // ---- drawing -------------------------------------------------------------------------------------
  function readColours() {
    const p = palette(root);
    const style = getComputedStyle(root);
    const own = (name) => style.getPropertyValue(`--bt-${name}`).trim();
    return { ...p, modes: [own("search"), own("accelerate"), own("finished")], merged: own("merged") };
  }
  function mark(g, mode, px, py, size, fill, edge) {
    g.beginPath();
    if (mode === SEARCH) g.arc(px, py, size, 0, 7);
    else if (mode === ACCELERATE) {
      g.moveTo(px - size, py - size * 1.1);
      g.lineTo(px + size * 1.25, py);
      g.lineTo(px - size, py + size * 1.1);
      g.closePath();
    } else {
      g.moveTo(px, py - size * 1.25);
      g.lineTo(px + size * 1.25, py);
      g.lineTo(px, py + size * 1.25);
      g.lineTo(px - size * 1.25, py);
      g.closePath();
    }
    if (fill) {
      g.fillStyle = fill;
      g.fill();
    }
    if (edge) {
      g.strokeStyle = edge;
      g.stroke();
    }
  }
  function cross(g, fate, px, py, size, colour) {
    g.strokeStyle = colour;
    g.beginPath();
    const [a, b] = fate === MERGED ? [[0, 1], [1, 0]] : [[1, 1], [1, -1]];
    for (const [dx, dy] of [a, b]) {
      g.moveTo(px - dx * size, py - dy * size);
      g.lineTo(px + dx * size, py + dy * size);
    }
    g.stroke();
  }

  function drawTree(index) {
    const t = trees[index], { canvas } = stages[index];
    const width = stageWidth(), rows = TOP + t.slots * rowHeight(t), g = sized(canvas, width, height(t));
    const active = index === get("tree"), now = callNow() - t.offset, k = view.scale;
    const low = clamp(Math.floor(callAt(LEFT) - t.offset) - 1, 0, t.steps);
    const high = clamp(Math.ceil(callAt(width) - t.offset) + 1, 0, t.steps);
    const from = t.first[low], to = t.first[high + 1], size = clamp(k * 0.24, 1.6, 7);
    g.save();
    g.beginPath();
    g.rect(LEFT - 8, 0, width - LEFT + 8 - 2, height(t));
    g.clip();
    g.fillStyle = colours.accent;
    g.globalAlpha = 0.12;
    g.fillRect(x(t.offset + now) - Math.max(2, Math.min(k / 2, 12)), 2, Math.max(4, Math.min(k, 24)), rows + LANE - 4);
    g.globalAlpha = 1;
    // Edges in four batches: kept and the answer's, before and after the cursor.
    for (const late of [true, false])
      for (const bold of [false, true]) {
        g.beginPath();
        for (let r = Math.max(from, 1); r < to; r++) {
          if (t.step[r] > now !== late || Boolean(t.onAnswer[r]) !== bold) continue;
          const [ax, ay] = at(t, t.parent[r]), [bx, by] = at(t, r);
          g.moveTo(ax, ay);
          g.lineTo(bx, by);
        }
        g.globalAlpha = late ? 0.4 : bold ? 1 : 0.75;
        g.strokeStyle = bold ? colours.ink : colours.muted;
        g.lineWidth = bold ? (k > 12 ? 3 : 1.6) : 1;
        g.stroke();
      }
    if (active) { // how the selected state came about
      g.beginPath();
      for (let r = get("row"); t.parent[r] >= 0; r = t.parent[r]) {
        g.moveTo(...at(t, t.parent[r]));
        g.lineTo(...at(t, r));
      }
      g.globalAlpha = 1;
      g.strokeStyle = colours.accent;
      g.lineWidth = 2;
      g.setLineDash([5, 3]);
      g.stroke();
      g.setLineDash([]);
    }
    if (k >= DETAIL)
      for (let r = from; r < to; r++) {
        g.globalAlpha = t.step[r] >= now ? 0.45 : 1;
        const dropped = t.spread(r), [ax, ay] = at(t, r);
        dropped.forEach((c, i) => {
          const [px, py] = stub(t, r, i, dropped.length);
          const colour = t.candFate[c] === MERGED ? colours.merged : colours.muted;
          g.lineWidth = 0.8;
          g.strokeStyle = colours.line;
          g.beginPath();
          g.moveTo(ax, ay);
          g.lineTo(px, py);
          g.stroke();
          g.lineWidth = 1.7;
          cross(g, t.candFate[c], px, py, k > 40 ? 3.6 : 2.6, colour);
          if (active && r === get("row") && c - t.cand[r] === get("candidate")) {
            g.globalAlpha = 1;
            mark(g, SEARCH, px, py, 7, null, colours.accent);
          }
        });
      }
    const preview = get("preview"), previewing = preview !== t.threshold && (t.threshold !== null || preview !== recorded());
    for (let r = from; r < to; r++) {
      const [px, py] = at(t, r);
      g.globalAlpha = t.step[r] > now ? 0.5 : 1;
      g.lineWidth = 1.2;
      mark(g, t.mode[r], px, py, size, colours.modes[t.mode[r]], size > 3 ? colours.paper : null);
      if (!previewing || t.mode[r] === FINISHED) continue;
      const then = wouldAccelerate(t, r, preview) ? ACCELERATE : SEARCH;
      if (then === t.mode[r]) continue;
      g.globalAlpha = 1; // what the preview would change: a hollow marker of the other kind
      g.lineWidth = 2;
      mark(g, then, px, py, size + 2.5, colours.paper, colours.modes[then]);
    }
    g.globalAlpha = 1;
    const picked = t.cand[get("row")] + get("candidate");
    if (active && get("candidate") >= 0 && t.candFate[picked] === KEPT) {
      g.strokeStyle = colours.accent;
      g.lineWidth = 3;
      g.beginPath();
      g.moveTo(...at(t, get("row")));
      g.lineTo(...at(t, t.child(get("row"), picked)));
      g.stroke();
    }
    if (active) {
      const [px, py] = at(t, get("row"));
      g.lineWidth = 2.2;
      mark(g, SEARCH, px, py, size + 5, null, colours.accent);
    }
    if (k >= LABELS) drawLabels(g, t, from, to, now);
    drawLane(g, t, rows, from, to, now);
    g.restore();
    drawFrame(g, t, rows, width);
  }
  function drawLabels(g, t, from, to, now) {
    g.font = "11px " + getComputedStyle(root).fontFamily;
    g.textAlign = "center";
    for (let r = Math.max(from, 1); r < to; r++) {
      if (!t.onAnswer[r]) continue;
      const [ax, ay] = at(t, t.parent[r]), [bx, by] = at(t, r), lines = [];
      for (let i = t.delta[r]; i < t.delta[r + 1]; i++)
        lines.push(shorten(told(t.deltaPosition[i], t.deltaToken[i]), 12));
      if (lines.length > 2) lines.splice(1, lines.length, `+${lines.length - 1} more`);
      const [px, py] = [ax + 0.6 * (bx - ax), ay + 0.6 * (by - ay) - 5];
      lines.reverse().forEach((text, i) => {
        g.globalAlpha = 0.85;
        g.fillStyle = colours.paper;
        const w = g.measureText(text).width + 4;
        g.fillRect(px - w / 2, py - 10 - 12 * i, w, 12);
        g.globalAlpha = t.step[r] > now ? 0.45 : 1;
        g.fillStyle = colours.ink;
        g.fillText(text, px, py - 12 * i);
      });
    }
    g.globalAlpha = 1;
  }
  function drawLane(g, t, rows, from, to, now) {
    const curved = (score) => (t.score_name === "mean" ? nines(score) : score); // means crowd below 1
    const [low, high] = t.range.map(curved), top = rows + 8, room = LANE - 16;
    const level = (score) => top + room * (1 - (curved(score) - low) / Math.max(high - low, 1e-9));
    for (let r = from; r < to; r++) {
      if (!t.committed[r]) continue;
      g.globalAlpha = t.step[r] > now ? 0.2 : 0.8;
      g.fillStyle = colours.muted;
      g.fillRect(at(t, r)[0] - 1.5, level(t.score[r]) - 1.5, 3, 3);
    }
    g.globalAlpha = 1;
    g.strokeStyle = colours.ink;
    g.lineWidth = 2;
    g.beginPath();
    for (const r of t.answer) if (t.step[r] <= now && t.committed[r]) g.lineTo(at(t, r)[0], level(t.score[r]));
    g.stroke();
  }
  function drawFrame(g, t, rows, width) {
    g.fillStyle = colours.muted;
    g.strokeStyle = colours.line;
    g.lineWidth = 1;
    g.font = "11px " + getComputedStyle(root).fontFamily;
    g.textBaseline = "middle";
    g.textAlign = "right";
    for (let slot = 0; slot < t.slots; slot++) g.fillText(String(slot + 1), LEFT - 14, y(t, slot));
    const short = (v) => (v > 10 ? v.toFixed(1) : digits(v).slice(0, 6));
    g.fillText(short(t.range[1]), LEFT - 10, rows + 8);
    g.fillText(short(t.range[0]), LEFT - 10, rows + LANE - 8);
    g.textAlign = "left";
    g.fillText("rank", 0, 7);
    g.fillText("score", 0, rows + LANE / 2);
    g.textBaseline = "alphabetic";
    const base = rows + LANE;
    g.beginPath();
    g.moveTo(LEFT - 8, base);
    g.lineTo(width - 4, base);
    g.moveTo(LEFT - 8, rows);
    g.lineTo(width - 4, rows);
    g.stroke();
    const every = [1, 2, 5, 10, 20, 50, 100, 200].find((n) => n * view.scale >= 34) ?? 500;
    g.textAlign = "center";
    for (let call = Math.ceil(Math.max(t.offset, callAt(LEFT)) / every) * every; call <= t.offset + t.steps && x(call) < width - 4; call += every) {
      g.fillRect(x(call), base, 1, 4);
      g.fillText(String(call), x(call), base + 15);
    }
    g.fillText("forward calls", LEFT + (width - LEFT - RIGHT) / 2, base + 29);
  }

  // ---- the boards and the words --------------------------------------------------------------------
  const when = (t, n) => 0.08 + (0.84 * Math.max(0, n - 1)) / Math.max(1, t.offset + t.steps - 1);
  const CIVIDIS = ramp(["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"]);
  function drawBoard(index) {
    const t = trees[index], tree = get("tree");
    const r = index === tree ? get("row") : t.answer[clamp(callNow() - t.offset, 0, t.steps)];
    const { tokens, when: filled } = state(t, r), guess = new Map(), n = side();
    for (let i = t.fill[r]; i < t.fill[r + 1]; i++) guess.set(t.fillPosition[i], i);
    let wrong = 0, open = 0;
    const cells = [...tokens].map((token, p) => {
      const cell = make("span", { class: n ? "bt-cell" : "bt-word" });
      if (token < 0) return cell; // padding
      if (token === t.mask_id && !t.given[p]) {
        open++;
        cell.classList.add("bt-open");
        const i = guess.get(p);
        if (i !== undefined) {
          const sure = t.fillConfidence[i] > get("preview");
          cell.textContent = word(t.fillToken[i]);
          cell.style.setProperty("--sure", `${Math.round(100 * clamp(nines(t.fillConfidence[i]) / STARTS[1], 0.04, 1))}%`);
          cell.classList.toggle("bt-sure", sure);
          cell.title = `${place(p)}: ${word(t.fillToken[i])} with ${digits(t.fillConfidence[i])}${sure ? ", above the threshold" : ""}`;
          if (index === tree && get("can_run")) {
            cell.classList.add("bt-click");
            cell.addEventListener("click", () => chooseCell(p));
          }
        } else if (!n) cell.textContent = "▢";
        return cell;
      }
      cell.textContent = word(token);
      if (t.given[p]) cell.classList.add("bt-given");
      else if (!filled[p]) cell.classList.add("bt-before");
      else {
        cell.style.background = CIVIDIS(when(t, filled[p]));
        cell.style.color = when(t, filled[p]) < 0.5 ? "#ffffff" : "#101418";
        cell.title = `filled by call ${filled[p]}`;
        if (n) cell.append(make("small", {}, String(filled[p])));
      }
      if (t.truth && token !== t.truth[p]) {
        wrong++;
        cell.classList.add("bt-wrong");
      }
      return cell;
    });
    const name = STRATEGY_NAMES[t.strategy];
    const says = `${trees.length > 1 ? name + ", " : ""}after call ${t.offset + t.step[r]}, rank ${t.slot(r) + 1}: ` +
      `${open ? `${open} masked` : "full"}${t.truth && wrong ? `, ${wrong} wrong (struck out)` : ""}`;
    const rows = n ? Array.from({ length: n }, (_, i) => [...tokens.slice(i * n, i * n + n)].map((token) => (token === t.mask_id ? "_" : word(token))).join(" ")).join("; ") : "";
    const box = make("div", { class: n ? "bt-board" : "bt-text", role: "img", "aria-label": n ? `board, ${says}: ${rows}` : `text, ${says}` }, ...cells);
    if (n) {
      box.style.setProperty("--side", n);
      box.classList.add(n > 4 ? "bt-large" : "bt-small");
      cells.forEach((cell, p) => {
        const root = Math.round(Math.sqrt(n));
        if (p % n && (p % n) % root === 0) cell.classList.add("bt-left");
        if (p >= n && Math.floor(p / n) % root === 0) cell.classList.add("bt-top");
      });
    }
    return make("figure", { class: "bt-figure" }, make("figcaption", {}, says), box);
  }
  function fateOf(t, r) {
    if (t.onAnswer[r]) return "it leads to the answer";
    if (t.lasts[r] === t.steps) return "it lives to the end, below the answer";
    return `given up: nothing of it is left after call ${t.offset + t.lasts[r]}`;
  }
  function candidateSays(t, r, c) {
    const child = t.child(r, c), fate = t.candFate[c];
    return fate === KEPT ? `kept as rank ${t.slot(child) + 1}` : fate === MERGED ? "merged" : "pruned";
  }
  const choice = make("select", { "data-explicit": true, "aria-label": "masked position to force" });
  const forced = side()
    ? make("input", { type: "number", "data-explicit": true, min: 1, max: side(), class: "bt-number", "aria-label": "digit to force there" })
    : make("select", { "data-explicit": true, "aria-label": "token to force there" });
  choice.addEventListener("change", () => chooseCell(Number(choice.value)));
  function chooseCell(p) {
    const t = trees[get("tree")], r = get("row");
    choice.value = p;
    for (let i = t.fill[r]; i < t.fill[r + 1]; i++) if (t.fillPosition[i] === p) forced.value = t.fillToken[i];
  }
  const force = (position, token) => model.send({ kind: "force", tree: get("tree"), row: get("row"), position, token });

  function drawDetails() {
    const tree = get("tree"), t = trees[tree], r = get("row"), picked = get("candidate");
    const head = `Call ${t.offset + t.step[r]}, rank ${t.slot(r) + 1} of ${t.first[t.step[r] + 1] - t.first[t.step[r]]}`;
    const score = t.committed[r] ? `${t.score_name === "mean" ? "mean confidence" : "score"} ${digits(t.score[r])}, ` : "";
    const about = `${MODE_NAMES[t.mode[r]]}; ${score}${t.committed[r]} filled${t.offset ? " since the fork" : ""}; ${fateOf(t, r)}`;
    const parts = [make("h4", {}, head), make("p", {}, about)];
    const rank = new Map(); // fill -> candidate that commits it
    for (let c = t.cand[r]; c < t.cand[r + 1]; c++)
      for (let i = t.commit[c]; i < t.commit[c + 1]; i++) rank.set(t.fill[r] + t.commitRank[i], c);
    const body = make("tbody");
    const shown = Math.min(t.fill[r + 1], t.fill[r] + Math.max(8, rank.size));
    for (let i = t.fill[r]; i < shown; i++) {
      const c = rank.get(i), sure = t.fillConfidence[i] > get("preview");
      const bar = make("span", { class: "bt-bar" });
      bar.style.setProperty("--share", `${100 * clamp(nines(t.fillConfidence[i]) / STARTS[1], 0, 1)}%`);
      bar.style.setProperty("--threshold", `${100 * clamp(nines(get("preview")) / STARTS[1], 0, 1)}%`);
      const line = make("tr", { class: c !== undefined && c - t.cand[r] === picked ? "bt-picked" : "" },
        make("th", { scope: "row" }, c === undefined ? fills(t, r, i)
          : make("button", { class: "bt-link", "aria-pressed": String(c - t.cand[r] === picked), onclick: () => select(tree, r, c - t.cand[r]) }, fills(t, r, i))),
        make("td", {}, bar, `${digits(t.fillConfidence[i])}${sure ? " ▸" : ""}`),
        make("td", {}, c === undefined ? "not tried" : candidateSays(t, r, c)));
      if (get("can_run")) line.append(make("td", {}, make("button", { class: "bt-force", "aria-label": `force ${fills(t, r, i)} and decode from here`, onclick: () => force(t.fillPosition[i], t.fillToken[i]) }, "Force")));
      body.append(line);
    }
    if (shown > t.fill[r])
      parts.push(make("table", { class: "bt-table" },
        make("thead", {}, make("tr", {}, ...["fill", "confidence", "fate", ...(get("can_run") ? [""] : [])].map((text) => make("th", { scope: "col" }, text)))), body));
    if (picked >= 0 && t.cand[r] + picked < t.cand[r + 1]) {
      const c = t.cand[r] + picked;
      parts.push(make("p", { class: "bt-fate" }, `Candidate ${picked + 1}: ${commits(t, r, c).join(", ") || "nothing"}; score ${digits(t.candScore[c])}; ${FATE_NAMES[t.candFate[c]]}`));
    }
    if (get("can_run") && t.mode[r] !== FINISHED && t.fill[r + 1] > t.fill[r]) {
      const open = [...t.fillPosition.slice(t.fill[r], t.fill[r + 1])].sort((a, b) => a - b);
      choice.replaceChildren(...open.map((p) => make("option", { value: p }, place(p))));
      if (!side()) {
        const known = Object.keys(get("texts")).filter((token) => Number(token) !== t.mask_id);
        forced.replaceChildren(...known.map((token) => make("option", { value: token }, `“${word(token)}”`)));
      }
      chooseCell(open[0]);
      parts.push(make("div", { class: "bt-form" }, side() ? "any digit: " : "any token: ", choice, " = ", forced,
        make("button", { onclick: () => force(Number(choice.value), Number(forced.value)) }, "Force")));
    }
    details.replaceChildren(...parts);
    const fate = picked >= 0 && t.cand[r] + picked < t.cand[r + 1] ? `. Candidate ${picked + 1}: ${commits(t, r, t.cand[r] + picked).join(", ")}, ${candidateSays(t, r, t.cand[r] + picked)}` : "";
    say(`${head}. ${about}${fate}`);
  }
  function showTip() {
    tip.hidden = !hover;
    if (!hover) return;
    const t = trees[hover.index], r = hover.row;
    const c = t.cand[r] + hover.candidate;
    tip.textContent = hover.candidate < 0
      ? `call ${t.offset + t.step[r]}, rank ${t.slot(r) + 1}: ${MODE_NAMES[t.mode[r]].split(":")[0]}, score ${digits(t.score[r])}`
      : `${commits(t, r, c).join(", ") || "nothing"}: ${candidateSays(t, r, c)}, score ${digits(t.candScore[c])}`;
    tip.style.left = `${Math.min(hover.px + 12, stageWidth() - 240)}px`;
    tip.style.top = `${hover.py + 14}px`;
  }
  const recorded = () => trees[0].threshold ?? 0.9;
  function drawControls() {
    const first = trees[0], preview = get("preview");
    title.textContent = first.finding;
    prompt.parentNode.hidden = root.querySelector(".bt-count").hidden = get("prompts") < 2;
    root.querySelector(".bt-count").textContent = `of ${get("prompts")} (0 to ${get("prompts") - 1})`;
    for (const [node, shown] of [[strategy.parentNode, get("can_run")], [beam.parentNode, get("can_run")], [decode, get("can_run")],
      [back, trees.some((t) => t.forced)]]) node.hidden = !shown;
    root.querySelector(".bt-what").textContent = side() ? "puzzle" : "prompt";
    arrange();
    decode.disabled = get("busy");
    note.textContent = get("busy") ? "decoding …" : get("note");
    prompt.max = get("prompts") - 1;
    if (document.activeElement !== prompt) prompt.value = get("prompt");
    scrub.input.max = lastCall();
    scrub.set(callNow());
    threshold.value = nines(preview);
    threshold.setAttribute("aria-valuetext", digits(preview));
    thresholdSays.textContent = digits(preview);
    const uses = first.threshold !== null, changed = uses ? preview !== first.threshold : preview !== recorded();
    let now = 0, then = 0, states = 0;
    for (let r = 0; r < first.rows; r++) {
      if (first.mode[r] === FINISHED) continue;
      states++;
      now += first.mode[r] === ACCELERATE;
      then += wouldAccelerate(first, r, preview);
    }
    previewSays.textContent = changed
      ? `preview: ${then} of these ${states} states would accelerate (recorded: ${now})`
      : uses ? `as recorded: ${now} of ${states} states accelerate` : `${STRATEGY_NAMES[first.strategy]} has no threshold: move it to preview one`;
    previewSays.classList.toggle("bt-on", changed);
    reset.hidden = !changed;
  }
  // Two large boards stand below the trees, or beside each other where the page is wide.
  function arrange() {
    const two = trees.length > 1, large = two && side() > 4, broad = large && root.clientWidth > 1500;
    root.classList.toggle("bt-two", two);
    root.classList.toggle("bt-broad", broad);
    if (large && !broad) {
      if (stageBox.lastChild !== boards) stageBox.append(boards);
    } else if (boards.parentNode !== aside) aside.prepend(boards);
  }
  function drawLegend() {
    const items = [...[0, 1, 2].map((m) => [(g) => mark(g, m, 8, 8, 5, colours.modes[m], null), MODE_NAMES[m]]),
      [(g) => ((g.lineWidth = 1.7), cross(g, PRUNED, 8, 8, 4, colours.muted)), "pruned"],
      [(g) => ((g.lineWidth = 1.7), cross(g, MERGED, 8, 8, 4, colours.merged)), "merged: same board as a better one"],
      [(g) => ((g.lineWidth = 2), mark(g, ACCELERATE, 8, 8, 5, null, colours.modes[1])), "hollow: the preview would change it"]];
    legend.replaceChildren(...items.map(([paint, text]) => {
      const canvas = make("canvas", { "aria-hidden": "true" });
      const g = sized(canvas, 16, 16);
      paint(g);
      return make("span", {}, canvas, text);
    }));
  }

  let packed = null, settings = "", looks = "", check = 0, later = 0, lastWords = -1e9;
  function drawWords() {
    later = 0;
    lastWords = performance.now();
    if (!ready()) return;
    boards.replaceChildren(...trees.map((_, i) => drawBoard(i)));
    drawDetails();
  }
  function draw() {
    if (packed !== get("trees")) {
      packed = get("trees");
      trees = packed.map(unpack);
      while (stages.length < trees.length) stages.push(addStage(stages.length));
      view = null;
      hover = null;
      showTip();
      strategy.value = trees[0].strategy;
      beam.value = trees[0].beam;
    }
    if (!ready() || !root.isConnected) return;
    const width = stageWidth();
    clearTimeout(check); // while a theme loads, sizes are for a moment those of no style at all
    check = setTimeout(() => stageWidth() !== width && panel.redraw(), 400);
    if (!view || view.whole) fit(); // the whole tree, until someone zooms
    colours = readColours();
    drawControls();
    stages.forEach(({ canvas, caption }, i) => {
      caption.textContent = trees.length > 1 || trees[i].offset ? trees[i].finding : "";
      caption.hidden = i === 0 || !caption.textContent;
      canvas.setAttribute("aria-label", `${trees[i].finding}. Arrow keys walk the tree.`);
      drawTree(i);
    });
    const key = JSON.stringify([get("tree"), get("row"), get("candidate"), get("preview"), get("can_run"), get("prompt"), colours.dark]) + packed.length;
    if (key !== shownKey || settings !== packed) { // panning redraws the canvas alone
      [shownKey, settings] = [key, packed];
      // Hundreds of words take longer than a frame: while the cursor runs they follow ten times a second.
      later ||= setTimeout(drawWords, Math.max(0, 100 - (performance.now() - lastWords)));
    }
    const look = JSON.stringify(colours);
    if (look !== looks) {
      looks = look;
      drawLegend();
    }
  }

  const panel = instrument({
    model, el, root, draw,
    watch: ["trees", "tree", "row", "candidate", "preview", "prompt", "can_run", "busy", "note"],
  });
  const widths = new ResizeObserver(panel.redraw); // the stage can change while the panel does not
  widths.observe(stageBox);
  return () => {
    widths.disconnect();
    clearTimeout(check);
    clearTimeout(later);
    panel.close();
    save.close();
    clearInterval(play);
  };
}
export default { render };
