// The gallery of a report. The page is opened from disk, so nothing is fetched: numbers come as scripts that call
// REPORT.receive, and pictures are drawn but never read, which a browser forbids for files.
"use strict";

(() => {
  const report = window.REPORT;
  const SECONDS = 2.4; // That a clip plays.
  const KEPT_CLIPS = 12; // In memory.

  const find = (id) => document.getElementById(id);
  const filters = find("filters");
  const viewButtons = [...document.querySelectorAll("[data-view]")];
  const views = viewButtons.map((button) => button.dataset.view);
  const state = {
    clip: null, view: ["original", "gradcam", "freeze"].filter((view) => views.includes(view)), norm: "clip", frame: 0,
    class: "", run: "", outcome: "", sort: "", more: false, twins: false,
  };
  // Of the same model the run that deletes, where both explain the clip: a run that preserves is shown with it.
  const besideOf = (explained, run) => {
    const { partner } = report.runs[run];
    return partner !== null && explained[partner] ? partner : null;
  };
  if (views.includes("suffices")) state.view.push("suffices");
  let listed = []; // Numbers of the clips that the filters leave, in order.
  let shown = null; // What is drawn: { number, image, panels }.
  let playing = null;

  // Small helpers

  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "polyline", "line"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const digits = (value, count = 3) => (value === null ? "–" : value.toFixed(count));
  const className = (label) => (label < 0 ? "Class unknown" : report.classes[label]);
  const fileOf = (number, type) => `clips/${String(number).padStart(4, "0")}.${type}`;

  function ranges(flags) {
    const found = [];
    flags.forEach((on, t) => {
      if (on && t && flags[t - 1]) found[found.length - 1][1] = t;
      else if (on) found.push([t, t]);
    });
    return found.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ") || "none";
  }

  // Filters and order

  const runsOf = (clip) => (state.run === "" ? clip.runs : [clip.runs[state.run]])
    .filter((numbers, run) => numbers && (state.run !== "" || besideOf(clip.runs, run) === null));
  const isRight = (clip, run) => clip.label >= 0 && run.prediction === clip.label;
  const isWrong = (clip, run) => clip.label >= 0 && run.prediction !== clip.label;

  function isListed(clip) {
    const runs = runsOf(clip);
    if (!runs.length || (state.class !== "" && clip.label !== Number(state.class))) return false;
    if (state.outcome === "right") return runs.every((run) => isRight(clip, run));
    if (state.outcome === "wrong") return runs.some((run) => isWrong(clip, run));
    if (state.outcome === "differ") return new Set(clip.runs.filter((run) => run).map((run) => run.prediction)).size > 1;
    return true;
  }

  function sortValue(clip, key) {
    const values = runsOf(clip).map((run) => run[key]).filter((value) => value !== null);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  }

  function order() {
    const numbers = report.clips.map((_, number) => number).filter((number) => isListed(report.clips[number]));
    const [key, way] = state.sort.split("-");
    if (!key) return numbers;
    const value = new Map(numbers.map((number) => [number, sortValue(report.clips[number], key)]));
    const sign = way === "up" ? 1 : -1;
    return numbers.sort((a, b) => {
      const [x, y] = [value.get(a), value.get(b)];
      if (x === null || y === null) return (x === null) - (y === null); // Not defined comes last.
      return sign * (x - y) || a - b;
    });
  }

  // The list

  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      target.style.backgroundImage = `url("${target.dataset.picture}")`;
      seen.unobserve(target);
    }
  }, { root: find("clips"), rootMargin: "200px" });

  function thumb(number) {
    const node = make("span", { class: "thumb", "data-picture": fileOf(number, report.picture) });
    const rows = Math.ceil(report.frames / report.columns);
    const middle = report.frames >> 1;
    const share = (place, count) => (count > 1 ? (100 * place) / (count - 1) : 0);
    node.style.backgroundSize = `${100 * report.columns}% ${100 * rows}%`;
    node.style.backgroundPosition =
      `${share(middle % report.columns, report.columns)}% ${share(Math.floor(middle / report.columns), rows)}%`;
    seen.observe(node);
    return node;
  }

  function outcomeText(clip) {
    if (clip.label < 0) return "";
    const runs = runsOf(clip);
    const right = runs.filter((run) => isRight(clip, run)).length;
    return runs.length === 1 ? (right ? "right" : "wrong") : `${right} of ${runs.length} right`;
  }

  function renderList() {
    listed = order();
    const key = state.sort.split("-")[0];
    const items = listed.map((number) => {
      const clip = report.clips[number];
      const [name, ...facts] = clip.label < 0 ? [clip.id, "Class unknown"] : [className(clip.label), clip.id];
      facts.push(outcomeText(clip));
      if (key) facts.push(`${key === "oracle_gap" ? "gap" : key} ${digits(sortValue(clip, key), 3)}`);
      const text = make("span", {}, make("strong", {}, name));
      text.append(make("small", {}, facts.filter((fact) => fact).join(" · ")));
      const button = make("button", { type: "button", "data-number": number }, thumb(number), text);
      return make("li", {}, button);
    });
    seen.disconnect();
    find("clips").replaceChildren(...items);
    items.forEach((item) => seen.observe(item.querySelector(".thumb")));
    find("count").textContent = `${listed.length} of ${report.clips.length} clip${report.clips.length === 1 ? "" : "s"}`;
    find("empty").hidden = listed.length > 0;
  }

  function markCurrent() {
    const list = find("clips");
    for (const button of list.querySelectorAll("[aria-current]")) button.removeAttribute("aria-current");
    const button = list.querySelector(`[data-number="${state.clip}"]`);
    if (!button) return;
    const hadFocus = list.contains(document.activeElement);
    button.setAttribute("aria-current", "true");
    if (hadFocus) button.focus({ preventScroll: true });
    const top = button.parentElement.offsetTop; // Scrolls the list alone, never the page.
    if (top < list.scrollTop) list.scrollTop = top;
    const bottom = top + button.parentElement.offsetHeight;
    if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }

  // Loading

  const waiting = new Map();
  const loaded = new Map();
  report.receive = (number, details) => waiting.get(number)(details);

  function loadDetails(number) {
    return new Promise((resolve, reject) => {
      const script = make("script", { src: fileOf(number, "js") });
      waiting.set(number, (details) => { waiting.delete(number); script.remove(); resolve(details); });
      script.onerror = () => { script.remove(); reject(new Error(fileOf(number, "js"))); };
      document.head.append(script);
    });
  }

  function loadImage(number) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error(fileOf(number, report.picture)));
      image.src = fileOf(number, report.picture);
    });
  }

  function load(number) {
    if (!loaded.has(number)) {
      const both = Promise.all([loadImage(number), loadDetails(number)]);
      both.catch(() => loaded.delete(number));
      loaded.set(number, both);
      for (const old of loaded.keys()) {
        if (loaded.size <= KEPT_CLIPS) break;
        if (old !== number) loaded.delete(old);
      }
    }
    return loaded.get(number);
  }

  // Heat: Grad-CAM maps at the size of the frames, as gradcam_maps.upsample and normalize make them.

  const colors = new Uint32Array(256); // Of each level of heat: the colour, and its weight as alpha.
  new Uint8Array(colors.buffer).set(report.colors.match(/../g).map((part) => parseInt(part, 16)));

  function axis(size, coarse) { // Which two cells each pixel lies between, and the share of the second.
    return Array.from({ length: size }, (_, pixel) => {
      const place = Math.min(Math.max(((pixel + 0.5) * coarse) / size - 0.5, 0), coarse - 1);
      const before = Math.floor(place);
      return [before, Math.min(before + 1, coarse - 1), place - before];
    });
  }

  function heatOf(map, time) {
    const [count, rows, across] = map.shape;
    const cells = Uint8Array.from(atob(map.cells), (character) => character.charCodeAt(0));
    const [ys, xs] = [axis(report.height, rows), axis(report.width, across)];
    const spatial = map.peaks.map((peak, t) => {
      const heat = new Float32Array(report.height * report.width);
      let pixel = 0;
      for (const [top, bottom, v] of ys) {
        const [upper, lower] = [(t * rows + top) * across, (t * rows + bottom) * across];
        for (const [left, right, u] of xs) {
          const above = cells[upper + left] * (1 - u) + cells[upper + right] * u;
          const below = cells[lower + left] * (1 - u) + cells[lower + right] * u;
          heat[pixel++] = (peak / 255) * (above * (1 - v) + below * v);
        }
      }
      return heat;
    });
    const places = axis(report.frames, count);
    const frames = Array.from({ length: report.frames }, (_, t) => {
      if (time !== "linear") return spatial[Math.floor((t * count) / report.frames)];
      const [before, after, share] = places[t];
      return spatial[before].map((value, n) => value * (1 - share) + spatial[after][n] * share);
    });
    const peaks = frames.map((heat) => heat.reduce((most, value) => Math.max(most, value), 0));
    return { frames, peaks, peak: Math.max(...peaks) };
  }

  const scratch = make("canvas", { width: report.width, height: report.height });

  function drawHeat(context, heat, t) {
    const largest = state.norm === "clip" ? heat.peak : heat.peaks[t];
    const pixels = scratch.getContext("2d").createImageData(report.width, report.height);
    const levels = new Uint32Array(pixels.data.buffer);
    const scale = largest > 0 ? 255 / largest : 0;
    heat.frames[t].forEach((value, n) => { levels[n] = colors[Math.round(value * scale)]; });
    scratch.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(scratch, 0, 0);
  }

  // Frames

  function drawSource(context, image, t) {
    const [x, y] = [t % report.columns, Math.floor(t / report.columns)];
    const { width, height } = report;
    context.drawImage(image, x * width, y * height, width, height, 0, 0, width, height);
  }

  // Row of A(m): the weighted sum of frames, and black where the weights leave something. Smallest weights first, each
  // over what is there with its share of the sum so far: so what 8 bits round off early hardly counts in the end.
  function drawMix(context, image, row) {
    let sum = Math.max(1 - row.reduce((total, [, weight]) => total + weight, 0), 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, report.width, report.height);
    for (const [t, weight] of [...row].sort((a, b) => a[1] - b[1])) {
      sum += weight;
      context.globalAlpha = weight / sum;
      drawSource(context, image, t);
    }
    context.globalAlpha = 1;
  }

  function mixText(row) {
    const parts = row.filter(([, weight]) => weight >= 0.05).sort((a, b) => b[1] - a[1]);
    if (!parts.length) return "black";
    if (parts.length === 1 || parts[0][1] >= 0.95) return `frame ${parts[0][0]}`;
    return `frames ${parts.slice(0, 2).map(([t]) => t).join(" + ")}${parts.length > 2 ? " + …" : ""}`;
  }

  const titles = new Map(viewButtons.map((button) => [button.dataset.view, button.textContent.trim()]));

  function drawFrame() {
    const t = state.frame;
    find("frame").value = t;
    find("frame").setAttribute("aria-valuetext", `frame ${t} of 0 to ${report.frames - 1}`);
    find("frame-number").textContent = `Frame ${t} of ${report.frames - 1}`;
    if (!shown) return;
    for (const panel of shown.panels) {
      for (const [view, { canvas, note }] of panel.pictures) {
        const context = canvas.getContext("2d");
        let text = `frame ${t}`;
        if (view in panel.rows) {
          drawMix(context, shown.image, panel.rows[view][t]);
          text = mixText(panel.rows[view][t]);
        } else {
          drawSource(context, shown.image, t);
          if (view === "gradcam") {
            drawHeat(context, panel.heat, t);
            if (!report.runs[panel.run].maps) text = "none of this model";
            else if (!panel.heat.peak) text = "zero everywhere";
            else if (!panel.heat.peaks[t]) text = "zero in this frame";
          }
        }
        note.textContent = text;
        canvas.setAttribute("aria-label", `${report.runs[panel.run].label}, frame ${t}, ${titles.get(view)}: ${text}`);
      }
      panel.strip.style.setProperty("--at", t);
    }
  }

  // Panels: one a run

  // All frames at once, with heat: a cell a frame, or a frame of every few where cells would be too narrow.

  const STRIP_FRAMES = 24; // At most.
  const STRIP_WIDTH = 96; // Most px of a frame.

  function film(image, heat) {
    const every = Math.ceil(report.frames / STRIP_FRAMES);
    const [width, cells] = [Math.min(report.width, STRIP_WIDTH), Math.ceil(report.frames / every)];
    const height = Math.round((width * report.height) / report.width);
    const canvas = make("canvas", { width: width * cells, height, class: "film", "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    const cell = make("canvas", { width: report.width, height: report.height });
    for (let n = 0; n < cells; n++) {
      drawSource(cell.getContext("2d"), image, n * every);
      drawHeat(cell.getContext("2d"), heat, n * every);
      context.drawImage(cell, n * width, 0, width, height);
    }
    canvas.style.width = `${(100 * cells * every) / report.frames}%`; // The last one may stand for fewer frames.
    return make("div", { class: "frames" }, make("span", {}, report.maps ? "heat" : "frames"), canvas);
  }

  // marks: { name, details, game } of each mask. The best interval is drawn where there is one mask to compare it with.
  function strip(clip, image, marks, heat) {
    const event = clip.event === null ? null : [...clip.event].map((flag) => flag === "1");
    const row = (type, name, cells) => make("div", { class: type }, make("span", {}, name), ...cells);
    const cover = (flags) => flags.map((flag) => make("i", flag ? { class: "covered" } : {}));
    const node = make("div", { class: "strip", role: "img" });
    const words = [];
    node.style.setProperty("--frames", report.frames);
    node.append(film(image, heat));
    for (const { name, details, game } of marks) {
      const on = details.mask.map((value) => value > 0.5);
      words.push(`${name}: mask on in frames ${ranges(on)}`);
      node.append(row(`mask ${game}`, name, details.mask.map((value, t) => {
        const cell = make("i", on[t] ? { class: "on" } : {});
        cell.style.setProperty("--value", value);
        return cell;
      })));
    }
    if (marks.length === 1) {
      const best = marks[0].details.mask.map((_, t) => isBest(marks[0].details, t));
      words.push(`best interval ${ranges(best)}`);
      node.append(row("best", "best", cover(best)));
    }
    if (event) {
      words.push(`event ${ranges(event)}`);
      node.append(row("event", "event", cover(event)));
    }
    node.setAttribute("aria-label", words.join("; "));
    node.append(make("b", { class: "cursor" }));
    const seek = (pointer) => {
      const box = node.getBoundingClientRect();
      const t = Math.floor(((pointer.clientX - box.left) / box.width) * report.frames);
      goToFrame(Math.min(Math.max(t, 0), report.frames - 1));
    };
    node.addEventListener("pointerdown", (pointer) => {
      node.setPointerCapture(pointer.pointerId);
      seek(pointer);
    });
    node.addEventListener("pointermove", (pointer) => { if (pointer.buttons) seek(pointer); });
    return node;
  }

  const isBest = (details, t) => t >= details.interval[0] && t < details.interval[1];

  function trace(details) {
    const points = details.loss.filter(([, value]) => value !== null);
    const values = [...points.map(([, value]) => value), details.best].filter((value) => value !== null);
    const [low, high] = [Math.min(...values, 0), Math.max(...values)];
    const y = (value) => (44 - (42 * (value - low)) / (high - low || 1)).toFixed(2);
    const x = (step) => ((100 * step) / Math.max(details.steps - 1, 1)).toFixed(2);
    const drawing = make("svg", { viewBox: "0 0 100 46", preserveAspectRatio: "none", "aria-hidden": "true" });
    drawing.append(make("polyline", { points: points.map(([step, value]) => `${x(step)},${y(value)}`).join(" ") }));
    if (details.best !== null) drawing.append(make("line", { x1: 0, x2: 100, y1: y(details.best), y2: y(details.best) }));
    const first = points.length ? points[0][1] : null;
    const best = ranges(details.mask.map((_, t) => isBest(details, t)));
    const text = `Loss ${digits(first)} → ${digits(details.final)}; of the best interval, ${best}: ${digits(details.best)} (dashed)`;
    return make("div", { class: "trace" }, drawing, make("p", {}, text));
  }

  function scores(numbers, game) {
    const list = make("dl", { class: "scores" });
    for (const name of ["OS", "FS", "RS", "RS/FS", "CS"]) {
      if (name === "CS" && numbers.CS === null) continue;
      const value = digits(numbers[name], name === "RS/FS" ? 2 : 3);
      list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value), make("dd", {}, meanings[game][name])));
    }
    return list;
  }

  function guess(clip, numbers) {
    const text = make("p", { class: "guess" });
    if (clip.label >= 0 && isRight(clip, numbers)) text.append(make("b", {}, "✓ Right"));
    else if (clip.label >= 0) text.append(make("b", { class: "wrong" }, "✗ Wrong"), `: ${className(numbers.prediction)}`);
    else text.append(make("b", {}, "Guess"), `: ${className(numbers.prediction)}`);
    text.append(` (${digits(numbers.probability, 2)})`);
    if (numbers.target !== numbers.prediction) text.append(`; explained: ${className(numbers.target)}`);
    return text;
  }

  function sentence(parts) { // Plain and bold in turn.
    const texts = parts.map((part) => part.replaceAll(" %", "\u00a0%"));
    return make("p", { class: "words" }, ...texts.map((text, n) => (n % 2 ? make("b", {}, text) : text)));
  }

  const meaningsOf = (frames) => ({
    OS: "original score: probability of the explained class",
    FS: `freeze score: the same with ${frames} frozen`,
    RS: `reverse score: the same with ${frames} reversed`,
    CS: "score of the true class, where the guess is wrong",
  });
  const meanings = {
    delete: { ...meaningsOf("the masked frames"), "RS/FS": "well above 1: the frames matter, their order less" },
    preserve: { ...meaningsOf("all frames but the masked"), "RS/FS": "reverse score over freeze score" },
  };

  function panelOf(clip, run, image, explained, heat) {
    const [numbers, details] = [clip.runs[run], explained[run]];
    const beside = report.runs.findIndex((_, other) => explained[other] && besideOf(explained, other) === run);
    const both = beside < 0 ? [run] : [run, beside];
    const pictures = new Map();
    const row = make("div", { class: "pictures" });
    const rows = { ...details.views };
    if (beside >= 0) rows.suffices = explained[beside].views[explained[beside].kind];
    for (const view of views.filter((name) => state.view.includes(name) && (name !== "suffices" || beside >= 0))) {
      const canvas = make("canvas", { width: report.width, height: report.height, role: "img" });
      const note = make("span");
      pictures.set(view, { canvas, note });
      row.append(make("figure", {}, canvas, make("figcaption", {}, titles.get(view), note)));
    }
    const marks = both.map((one) => ({ name: clip.runs[one].mark, details: explained[one], game: report.runs[one].game }));
    const band = strip(clip, image, marks, heat);
    const root = make("figure", { class: "panel" }, make("figcaption", {}, report.runs[run].label));
    const more = make("details", { class: "more" }, make("summary", {}, "Scores and search"));
    for (const one of both) {
      if (both.length > 1) more.append(make("h4", {}, clip.runs[one].mark));
      more.append(scores(clip.runs[one], report.runs[one].game), trace(explained[one]));
    }
    more.open = state.more;
    more.addEventListener("toggle", () => { state.more = more.open; });
    // Of a guess both say the same.
    const said = new Map(both.map((one) => [clip.runs[one].words.join(""), clip.runs[one].words]));
    root.append(guess(clip, numbers), ...[...said.values()].map(sentence), row, band, more);
    return { run, rows, pictures, strip: band, root, heat };
  }

  // The same model in the other framework is one line under its twin; what it shows is made when it is opened.
  function folded(run, numbers, makePanel) {
    const text = `${report.runs[run].framework} agrees: ${numbers.agrees}`;
    const node = make("details", { class: "twin" }, make("summary", {}, text));
    const fill = () => {
      const panel = makePanel(run);
      shown.panels.push(panel);
      node.append(panel.root);
    };
    node.open = state.twins;
    if (node.open) fill();
    node.addEventListener("toggle", () => {
      state.twins = node.open;
      if (!node.open || node.querySelector(".panel")) return;
      fill();
      drawFrame();
    });
    return node;
  }

  // Small clips are enlarged pixel by pixel, so by a whole number: the largest with which a row holds all views, or,
  // where that would be too small, half of them.
  const SMALL = 96; // px of width up to which clips are enlarged; larger ones are shown at their size at most.
  const [LEAST_PICTURE, MOST_PICTURE, PICTURE_GAP] = [96, 160, 8]; // px

  function fitPictures() {
    find("panels").style.setProperty("--views", state.view.length);
    const row = document.querySelector(".pictures");
    if (!row || report.width > SMALL) return;
    const roomOf = (count) => (row.clientWidth + PICTURE_GAP) / count - PICTURE_GAP;
    const all = roomOf(state.view.length);
    const room = all < LEAST_PICTURE ? roomOf(Math.ceil(state.view.length / 2)) : all;
    const size = Math.min(Math.max(room, LEAST_PICTURE), MOST_PICTURE);
    find("panels").style.setProperty("--picture", `${Math.max(1, Math.floor(size / report.width)) * report.width}px`);
  }

  function renderPanels(number, image, details) {
    const clip = report.clips[number];
    const runs = clip.runs.map((_, run) => run).filter((run) => details.runs[run]
      && (state.run === "" ? besideOf(details.runs, run) === null : run === Number(state.run)));
    const heats = shown && shown.number === number ? shown.heats : new Map();
    const makePanel = (run) => {
      if (!heats.has(run)) heats.set(run, heatOf(details.runs[run].map, report.runs[run].time));
      return panelOf(clip, run, image, details.runs, heats.get(run));
    };
    const isFolded = (run) => runs.includes(report.runs[run].twin);
    shown = { number, image, panels: runs.filter((run) => !isFolded(run)).map(makePanel), heats };
    const width = Math.min(27, Math.max(15, 8.6 * state.view.length));
    find("panels").style.setProperty("--panel", `${width}rem`);
    find("panels").replaceChildren(...shown.panels.map((panel) => panel.root));
    for (const run of runs.filter(isFolded)) {
      const beside = shown.panels.find((panel) => panel.run === report.runs[run].twin);
      beside.root.append(folded(run, clip.runs[run], makePanel));
    }
    // A twin that explains fewer clips leaves nothing out.
    const isMissing = ({ twin, partner }, run) => twin === null && partner === null && !runs.includes(run);
    const missing = state.run === "" ? report.runs.some(isMissing) : !runs.length;
    if (missing) find("panels").append(make("p", { class: "guess" }, "Not every run explains this clip."));
    fitPictures();
    drawFrame();
  }

  // What is shown

  function renderHead() {
    const clip = report.clips[state.clip];
    const place = listed.indexOf(state.clip);
    const facts = clip.label < 0 ? ["Class unknown"] : [clip.id];
    if (place >= 0 && report.clips.length > 1) facts.push(`${place + 1} of ${listed.length}`);
    if (clip.truth !== null) facts.push(clip.truth);
    find("clip-class").textContent = clip.label < 0 ? clip.id : className(clip.label);
    find("clip-facts").textContent = facts.join(" · ");
    find("clip-figures").hidden = clip.figure === null;
    if (clip.figure !== null) find("clip-figures").href = `#${clip.figure}`;
    find("previous").disabled = place <= 0;
    find("next").disabled = place < 0 || place === listed.length - 1;
  }

  async function showClip() {
    const number = state.clip;
    if (number === null) return;
    renderHead();
    markCurrent();
    try {
      const [image, details] = await load(number);
      if (state.clip !== number) return; // Another one was asked for meanwhile.
      find("problem").hidden = true;
      renderPanels(number, image, details);
      const place = listed.indexOf(number);
      for (const near of [listed[place + 1], listed[place - 1]]) if (near !== undefined) load(near).catch(() => {});
    } catch (error) {
      if (state.clip !== number) return;
      find("panels").replaceChildren();
      find("problem").textContent = `This clip cannot be shown: ${error.message} is missing from the report's folder.`;
      find("problem").hidden = false;
    }
  }

  function showControls() {
    for (const button of viewButtons) {
      button.setAttribute("aria-pressed", String(state.view.includes(button.dataset.view)));
    }
    find("norm").value = state.norm;
    for (const name of ["class", "run", "outcome", "sort"]) filters.elements[name].value = state[name];
  }

  function goToClip(number) {
    if (number === undefined) return;
    state.clip = number;
    writeHash();
    showClip();
  }

  function goToFrame(t) {
    state.frame = t;
    drawFrame();
    if (!playing) writeHash();
  }

  const stepClip = (by) => goToClip(listed[listed.indexOf(state.clip) + by]);
  const stepFrame = (by) => goToFrame((state.frame + by + report.frames) % report.frames);

  function play(on) {
    clearInterval(playing);
    playing = on ? setInterval(() => stepFrame(1), (1000 * SECONDS) / report.frames) : null;
    find("play").textContent = on ? "❚❚" : "▶";
    find("play").setAttribute("aria-label", on ? "Pause" : "Play");
    if (!on) writeHash();
  }

  function toggleView(view) {
    const next = views.filter((name) => state.view.includes(name) !== (name === view));
    if (!next.length) return; // At least one stays.
    state.view = next;
    showControls();
    writeHash();
    showClip();
  }

  function setNorm(norm) {
    state.norm = norm;
    showControls();
    writeHash();
    drawFrame();
  }

  // The address holds the state, so that a link shows the same.

  function writeHash() {
    const values = new URLSearchParams();
    if (state.clip !== null) values.set("clip", report.clips[state.clip].id);
    values.set("view", state.view.join(","));
    values.set("frame", state.frame);
    for (const name of ["norm", "class", "run", "outcome", "sort"]) {
      if (state[name] !== "" && state[name] !== "clip") values.set(name, state[name]);
    }
    history.replaceState(null, "", `#${values}`);
  }

  function readHash() {
    const values = new URLSearchParams(location.hash.slice(1));
    const wanted = report.clips.findIndex((clip) => clip.id === values.get("clip"));
    if (wanted < 0) return false;
    state.clip = wanted;
    const chosen = (values.get("view") || "").split(",").filter((view) => views.includes(view));
    if (chosen.length) state.view = chosen;
    const frame = Number.parseInt(values.get("frame"), 10);
    if (frame >= 0 && frame < report.frames) state.frame = frame;
    state.norm = values.get("norm") === "frame" ? "frame" : "clip";
    for (const name of ["class", "run", "outcome", "sort"]) {
      const options = [...filters.elements[name].options].map((option) => option.value);
      state[name] = options.includes(values.get(name)) ? values.get(name) : "";
    }
    return true;
  }

  function applyFilters(keepClip) {
    renderList();
    if (!keepClip && !listed.includes(state.clip)) state.clip = listed.length ? listed[0] : null;
    find("viewer").hidden = state.clip === null;
    if (!keepClip) writeHash();
    showClip();
  }

  // Events

  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("change", () => {
    for (const name of ["class", "run", "outcome", "sort"]) state[name] = filters.elements[name].value;
    applyFilters(false);
  });
  find("reset").addEventListener("click", () => {
    for (const name of ["class", "run", "outcome"]) state[name] = "";
    showControls();
    applyFilters(false);
  });
  viewButtons.forEach((button) => button.addEventListener("click", () => toggleView(button.dataset.view)));
  find("norm").addEventListener("change", (event) => setNorm(event.target.value));
  find("frame").addEventListener("input", (event) => { play(false); goToFrame(Number(event.target.value)); });
  find("play").addEventListener("click", () => play(!playing));
  find("previous").addEventListener("click", () => stepClip(-1));
  find("next").addEventListener("click", () => stepClip(1));
  find("clips").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    goToClip(Number(button.dataset.number));
    const top = find("viewer").getBoundingClientRect().top;
    if (top < 0 || top > innerHeight / 2) find("viewer").scrollIntoView(); // On a phone it is above the list.
  });
  window.addEventListener("hashchange", () => {
    if (!readHash()) return; // To another section, or a figure.
    showControls();
    applyFilters(true);
    find("gallery").scrollIntoView();
  });

  let pointed = null; // What was clicked or tapped last, unless keys have moved the focus since.
  document.addEventListener("pointerdown", (event) => { pointed = event.target.closest("button, summary, a"); });
  document.addEventListener("focusin", (event) => { if (event.target !== pointed) pointed = null; });

  // Keys work wherever the gallery can be seen and nothing else that takes keys has the focus.
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches("select, video, .scroll")) return;
    const inGallery = find("gallery").contains(target);
    if (!inGallery && (target !== document.body || find("gallery").getBoundingClientRect().bottom < 0)) return;
    const onRange = target.matches("input");
    const actions = { k: () => play(!playing) };
    if (report.maps) actions.n = () => setNorm(state.norm === "clip" ? "frame" : "clip");
    views.forEach((view, place) => { actions[place + 1] = () => toggleView(view); });
    if (!onRange) { // The slider has arrows of its own.
      actions.ArrowLeft = () => { play(false); stepFrame(-1); };
      actions.ArrowRight = () => { play(false); stepFrame(1); };
    }
    if (inGallery) { // Elsewhere these scroll the page.
      actions.ArrowUp = () => stepClip(-1);
      actions.ArrowDown = () => stepClip(1);
    }
    // A button or link that was reached by keys has its own space; after a click space plays.
    if (!target.matches("button, summary, a") || target === pointed) actions[" "] = actions.k;
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });

  // Films of the figures

  document.querySelectorAll("[data-film]").forEach((button) => {
    const film = button.closest("figure").querySelector("video");
    const title = film.getAttribute("aria-label");
    const toggle = () => (film.paused ? film.play() : film.pause());
    const tell = () => {
      button.textContent = film.paused ? "▶" : "❚❚";
      button.setAttribute("aria-label", `${film.paused ? "Play" : "Pause"}: ${title}`);
    };
    for (const node of [button, film]) node.addEventListener("click", toggle);
    for (const name of ["play", "pause"]) film.addEventListener(name, tell);
  });

  // Start

  const present = [...new Set(report.clips.map((clip) => clip.label))].sort((a, b) => a - b);
  for (const label of present) filters.elements.class.append(make("option", { value: label }, className(label)));
  find("frame").max = report.frames - 1;
  document.documentElement.style.setProperty("--shape", `${report.width} / ${report.height}`);
  find("gallery").classList.toggle("small-pictures", report.width <= SMALL);
  find("panels").style.setProperty("--picture", `${report.width}px`);
  window.addEventListener("resize", fitPictures);
  state.frame = report.frames >> 1;
  const linked = readHash();
  if (!linked && report.clips.length) state.clip = report.start;
  showControls();
  renderList();
  find("viewer").hidden = state.clip === null;
  showClip();
  if (!linked && !matchMedia("(prefers-reduced-motion: reduce)").matches) play(true);
})();
