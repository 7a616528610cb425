"use strict";
// Draws single rows: inputs, the ensemble's and the members' distributions at the slider's T, hard label and students.
softlabels.sections.rows = (root, data) => {
  const { element, numbers, chart, onTemperature, logSoftmax, within, weightsAt, COLOURS } = softlabels;
  const PAGE = 20, TOP = 8, MEMBERS = 8;
  const place = root.querySelector(".rows");
  const read = (name) => (data[name] ? numbers(data[name]) : null);
  const names = new Map(Object.entries(data.names).map(([id, name]) => [Number(id), name]));
  const nameOf = (id) => names.get(id) ?? String(id);
  const isValues = data.kind === "values", isSoftmax = data.kind === "softmax";
  const M = data.members.length, S = data.students.length;
  const places = read("places");
  const N = places.length;
  const [ids, labels, logP, curves, inTail] = ["ids", "labels", "log_p", "curves", "in_tail"].map(read);
  const [entropy, disagreement, kl, tops] = ["entropy", "disagreement", "kl", "students_top"].map(read);
  const [studentP, studentCurves] = ["student_log_p", "student_curves"].map(read);
  const [values, mean, hard, studentValues] = ["values", "mean", "hard", "student_values"].map(read);
  const K = isValues ? mean.shape[1] : ids.shape[1];
  const J = isValues ? 0 : data.nodes.length;
  const STUDENT = data.students.map((each, at) => (each.kind === "hard" ? COLOURS[1] : COLOURS[(2 + at) % COLOURS.length]));
  const state = { sort: "", filter: "", words: "", differs: false, errors: false, page: 0, colour: "entropy", at: new Map() };
  const atPosition = [], topAt = []; // of each position, at T: its scores, and the ensemble's most probable class
  const inputsOf = new Map(); // drawn once: what is open stays so when the slider moves
  let T, weights, scores, order;

  function along(curve, start) {
    let found = 0;
    for (let j = 0; j < J; j++) found += weights[j] * curve[start + j];
    return found;
  }

  const idAt = (n, k) => ids[(ids.shape[0] === 1 ? 0 : n) * K + k];
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));

  // Probabilities at T of what carries itself: all logits of a softmax, or those of a sigmoid.
  function own(logits, base) {
    if (!isSoftmax) return Float64Array.from({ length: K }, (_, k) => sigmoid(logits[base + k] / T));
    const ratio = data.nodes[data.reference] / T;
    return logSoftmax(logits.subarray(base, base + K), 1 / ratio).map(Math.exp);
  }

  // Of member m, and of student s, for position n's kept classes.
  function memberP(n, m) {
    const base = (n * M + m) * K;
    if (!curves) return own(logP, base);
    const ratio = data.nodes[data.reference] / T;
    const stored = along(curves, (n * M + m) * 2 * J);
    const tail = inTail ? along(curves, (n * M + m) * 2 * J + J) : 0;
    return Float64Array.from({ length: K }, (_, k) => Math.exp(logP[base + k] * ratio + (inTail && inTail[base + k] ? tail : stored)));
  }

  function studentOf(n, s) {
    const base = (s * N + n) * K;
    if (!curves) return own(studentP, base);
    const ratio = data.nodes[data.reference] / T, stored = along(studentCurves, (s * N + n) * J);
    return Float64Array.from({ length: K }, (_, k) => Math.exp(studentP[base + k] * ratio + stored));
  }

  // -sum p log p, of a sigmoid with both ends.
  function entropyOf(p) {
    let found = 0;
    for (let k = 0; k < K; k++) {
      if (p[k] > 0) found -= p[k] * Math.log(p[k]);
      if (!isSoftmax && p[k] < 1) found -= (1 - p[k]) * Math.log(1 - p[k]);
    }
    return found;
  }

  // -sum p log q of a student's q, from its logits: a q that rounds to 0 or 1 has a logarithm all the same.
  function crossTo(p, base) {
    let found = 0;
    if (isSoftmax) {
      const logs = softlabels.logSoftmax(studentP.subarray(base, base + K), T / data.nodes[data.reference]);
      for (let k = 0; k < K; k++) if (p[k] > 0) found -= p[k] * logs[k];
      return found;
    }
    for (let k = 0; k < K; k++) {
      const z = studentP[base + k] / T, least = Math.log1p(Math.exp(-Math.abs(z)));
      found += p[k] * (least + Math.max(0, -z)) + (1 - p[k]) * (least + Math.max(0, z));
    }
    return found;
  }

  // Scores of position n at T.
  function positionScores(n, r, members, p) {
    const of = (s, compute) => (asked(r, s) ? compute() : 0);
    if (entropy) {
      return {
        entropy: along(entropy, n * J), disagreement: along(disagreement, n * J),
        students: data.students.map((_, s) => of(s, () => along(kl, (s * N + n) * J))),
      };
    }
    const H = entropyOf(p);
    return {
      entropy: H,
      disagreement: M > 1 ? H - members.reduce((sum, each, m) => sum + data.weights[m] * entropyOf(each), 0) : 0,
      students: data.students.map((_, s) => of(s, () => crossTo(p, (s * N + n) * K) - H)),
    };
  }

  const membersOf = (n) => [...Array(M).keys()].map((m) => memberP(n, m));

  function ensembleOf(members) {
    const found = new Float64Array(K);
    members.forEach((each, m) => each.forEach((p, k) => (found[k] += data.weights[m] * p)));
    return found;
  }

  const labelOf = (n) => (isSoftmax && labels ? labels[n] : -1);
  const asked = (r, s) => data.rows[r].asked[s];

  // The scores of row r at T: means over its positions.
  function scoresOf(r) {
    const [start, stop] = [data.starts[r], data.starts[r + 1]], count = Math.max(1, stop - start);
    const found = { entropy: 0, disagreement: 0, residual: 0, students: data.students.map(() => 0), differs: false };
    for (let n = start; n < stop; n++) {
      if (isValues) addValues(found, n);
      else {
        const members = membersOf(n), p = ensembleOf(members);
        const at = (atPosition[n] = positionScores(n, r, members, p));
        topAt[n] = idAt(n, p.indexOf(Math.max(...p)));
        found.entropy += at.entropy;
        found.disagreement += at.disagreement;
        at.students.forEach((each, s) => (found.students[s] += each));
      }
      if (isSoftmax && !found.differs) found.differs = data.students.some((_, s) => asked(r, s) && tops[s * N + n] !== topAt[n]);
    }
    for (const name of ["entropy", "disagreement", "residual"]) found[name] = Math.max(0, found[name] / count);
    found.students = found.students.map((each, s) => (asked(r, s) ? Math.max(0, each / count) : -1));
    return found;
  }

  function addValues(found, n) {
    let apart = 0, off = 0;
    for (let d = 0; d < K; d++) {
      const parts = (x) => ((x - mean[n * K + d]) / data.usual[d]) ** 2;
      for (let m = 0; m < M; m++) apart += data.weights[m] * parts(values[(n * M + m) * K + d]);
      if (hard && !Number.isNaN(hard[n * K + d])) off += parts(hard[n * K + d]);
      for (let s = 0; s < S; s++) found.students[s] += parts(studentValues[(s * N + n) * K + d]) / K;
    }
    found.disagreement += Math.sqrt(apart / K);
    found.residual += Math.sqrt(off / K);
  }

  const hasErrors = data.rows.some((row) => row.error);
  const SORTS = [
    ["", "as chosen", () => 0],
    ...(isValues ? [] : [["entropy", "entropy, highest first", (s) => -s.entropy]]),
    ...(M > 1 ? [["disagreement", "disagreement of members", (s) => -s.disagreement]] : []),
    ...(isValues && hard ? [["residual", "error against hard values", (s) => -s.residual]] : []),
    ...data.students.map((each, s) => [
      `student-${s}`, `${isValues ? "squared error" : "KL"} of ${each.label}`, (found) => -found.students[s],
    ]),
    ...(hasErrors ? [["label-error", "likely label errors", (_, r) => Math.min(...(data.rows[r].error || [{ score: 9 }]).map((e) => e.score))]] : []),
    ["row", "row number", (_, r) => data.rows[r].row],
  ];

  function textOf(r) {
    const row = data.rows[r];
    const parts = [`row ${row.row}`];
    for (const each of row.inputs || []) {
      parts.push(each.text || "", ...(each.tokens ? [each.tokens.join("")] : []), ...(each.cells || []).flat().map(String));
    }
    if (!isValues) {
      const start = data.starts[r];
      if (labelOf(start) >= 0) parts.push(nameOf(labelOf(start)));
    }
    return parts.join(" ").toLowerCase();
  }
  const texts = data.rows.map((_, r) => textOf(r));

  function hasClass(r, id) {
    for (let n = data.starts[r]; n < data.starts[r + 1]; n++) if (labelOf(n) === id || topAt[n] === id) return true;
    return false;
  }

  function scoreAt(temperature) {
    T = isValues ? temperature : within(temperature, data.nodes); // labels that are known at one temperature stay there
    weights = isValues ? [] : weightsAt(T, data.nodes);
    scores = data.rows.map((_, r) => scoresOf(r));
  }

  function arrange() {
    order = [...data.rows.keys()].filter(
      (r) =>
        (!state.differs || scores[r].differs) &&
        (!state.errors || data.rows[r].error) &&
        (state.filter === "" || hasClass(r, Number(state.filter))) &&
        texts[r].includes(state.words)
    );
    const by = SORTS.find(([name]) => name === state.sort)[2];
    const keys = scores.map((each, r) => by(each, r));
    order.sort((a, b) => keys[a] - keys[b] || a - b);
    state.page = Math.min(state.page, Math.max(0, Math.ceil(order.length / PAGE) - 1));
  }

  // Controls.
  const list = element("div", { class: "row-list" });
  const status = element("p", { class: "quiet", role: "status" });
  const pages = element("nav", { class: "pager", "aria-label": "Pages of rows" });
  const idOf = (name) => `${root.id}-${name}`;

  function choice(name, title, options, change) {
    const select = element("select", { id: idOf(name), onchange: () => change(select.value) },
      options.map(([value, text]) => element("option", { value }, text)));
    return element("span", { class: "control" }, element("label", { for: idOf(name) }, title), select);
  }

  function tick(name, title, change) {
    const box = element("input", { type: "checkbox", id: idOf(name), onchange: () => change(box.checked) });
    return element("span", { class: "control" }, box, element("label", { for: idOf(name) }, title));
  }

  const changed = (name) => (value) => {
    state[name] = value;
    state.page = 0;
    draw();
  };

  function controls() {
    const classes = isSoftmax ? [...new Set([...Array(N).keys()].flatMap((n) => [labelOf(n), topAt[n]]))] : [];
    classes.sort((a, b) => a - b);
    const search = element("input", {
      type: "search", id: idOf("words"), class: "row-filter", placeholder: "a word, a row",
      oninput: () => changed("words")(search.value.toLowerCase()),
    });
    const shown = classes.filter((id) => id >= 0).slice(0, 1000).map((id) => [String(id), nameOf(id)]);
    const colours = [["entropy", "entropy"], ...(M > 1 ? [["disagreement", "disagreement"]] : []),
      ...data.students.map((each, s) => [`student-${s}`, `KL of ${each.label}`])];
    return element("form", { class: "row-controls", onsubmit: (event) => event.preventDefault() },
      choice("sort", "Sort by", SORTS, changed("sort")),
      shown.length ? choice("class", "Class", [["", "any"], ...shown], changed("filter")) : null,
      data.of && !isValues ? choice("colour", "Colour by", colours, changed("colour")) : null,
      element("span", { class: "control" }, element("label", { for: idOf("words") }, "Find"), search),
      S && isSoftmax ? tick("differs", "a student differs", changed("differs")) : null,
      hasErrors ? tick("errors", "likely label errors", changed("errors")) : null,
      element("span", { class: "quiet" }, "Keys: j and k next and previous row, / to find."));
  }

  function pager() {
    const count = Math.ceil(order.length / PAGE);
    const go = (step) => () => {
      state.page += step;
      draw();
      list.querySelector(".row")?.focus();
    };
    pages.replaceChildren(
      element("button", { type: "button", disabled: state.page === 0, onclick: go(-1) }, "Previous"),
      element("span", {}, count ? ` Page ${state.page + 1} of ${count} ` : " No row "),
      element("button", { type: "button", disabled: state.page >= count - 1, onclick: go(1) }, "Next"));
    pages.hidden = count < 2;
    const [first, last] = [state.page * PAGE, Math.min(order.length, (state.page + 1) * PAGE)];
    const said = order.length
      ? `Rows ${first + 1} to ${last} of ${order.length} that fit, of ${data.rows.length} on this page.`
      : `No row fits, of ${data.rows.length} on this page. Clear the filters.`;
    if (status.textContent !== said) status.textContent = said; // read aloud when it changes, not while the slider moves
  }

  // One row.
  const legend = () =>
    element("p", { class: "row-legend quiet" },
      [["ensemble", softlabels.COLOURS[0]],
        ...(M > 1 ? [[`${M > MEMBERS ? `${MEMBERS} of ${M}` : M} members, thin, in their order`, "currentColor"]] : []),
        ...data.students.map((each, s) => [each.label, STUDENT[s]])]
        .map(([text, colour]) => element("span", {}, element("i", { style: `background:${colour}` }), element("bdi", {}, text))),
      element("span", {}, "● hard label"));

  const percent = (p) => `${(100 * p).toFixed(1)}%`;
  const bar = (who, id, p, colour, thin) =>
    element("span", { class: thin ? "bar-line thin" : "bar-line", title: `${who}: ${percent(p)}` },
      element("span", {
        class: "bar-fill", "data-who": who, "data-class": id, "data-probability": p.toFixed(4),
        style: `width:${(100 * Math.min(1, Math.max(0, p))).toFixed(2)}%;background:${colour}`,
      }));

  function bars(r, n) {
    const members = membersOf(n);
    const ensemble = ensembleOf(members);
    const students = data.students.map((_, s) => (asked(r, s) ? studentOf(n, s) : null));
    const real = [...Array(K).keys()].filter((k) => idAt(n, k) >= 0).sort((a, b) => ensemble[b] - ensemble[a]);
    const isHard = (k) => (isSoftmax ? labelOf(n) === idAt(n, k) : labels && labels[n * K + k] === 1);
    const kept = real.filter((k, at) => at < TOP || isHard(k));
    const rest = (p) => 1 - kept.reduce((sum, k) => sum + p[k], 0);
    const lines = kept.map((k) => [idAt(n, k), nameOf(idAt(n, k)), isHard(k), (p) => p[k]]);
    if (isSoftmax && kept.length < data.classes) {
      lines.push([-1, `${data.classes - kept.length} others`, false, rest]);
    }
    return element("div", { class: "row-bars", "data-position": places[n] }, lines.map(([id, name, isOwn, of]) =>
      element("div", { class: isOwn ? "bar-class hard" : "bar-class" },
        element("span", { class: "bar-name" }, isOwn ? "● " : "", element("bdi", {}, name)),
        element("span", { class: "bar-all" },
          bar("ensemble", id, of(ensemble), COLOURS[0], false),
          M > 1 ? members.slice(0, MEMBERS).map((p, m) => bar(`member ${m}`, id, of(p), "currentColor", true)) : null,
          students.map((p, s) => (p ? bar(data.students[s].label, id, of(p), STUDENT[s], false) : null))),
        element("span", { class: "bar-number" }, percent(of(ensemble))))));
  }

  function vector(r, n) {
    const text = (x) => (Number.isNaN(x) ? "none" : x.toPrecision(4));
    const D = values.shape[2];
    const head = ["", "ensemble", ...(M > 1 ? ["least", "most"] : []), ...(hard ? ["hard", "error"] : []), ...data.students.map((each) => each.label)];
    const line = (d) => {
      const own = mean[n * K + d], all = [...Array(M).keys()].map((m) => values[(n * M + m) * D + d]);
      const truth = hard ? hard[n * K + d] : NaN;
      return [nameOf(d), text(own), ...(M > 1 ? [text(Math.min(...all)), text(Math.max(...all))] : []),
        ...(hard ? [text(truth), text(own - truth)] : []),
        ...data.students.map((_, s) => (asked(r, s) ? text(studentValues[(s * N + n) * K + d]) : ""))];
    };
    const cells = (tag, row) => element("tr", {}, row.map((each, at) => element(tag, { class: at ? "number" : null }, element("bdi", {}, each))));
    return element("div", { class: "table" }, element("table", {}, element("thead", {}, cells("th", head)),
      element("tbody", {}, [...Array(Math.min(K, 16)).keys()].map((d) => cells("td", line(d))))));
  }

  function shade(r, n) {
    if (isValues) return 0;
    const s = Number(state.colour.split("-")[1]);
    const at = atPosition[n], most = isSoftmax ? Math.log(Math.max(2, Math.min(data.classes, 100))) : data.classes * Math.LN2;
    const x = state.colour === "entropy" ? at.entropy / most : state.colour === "disagreement" ? at.disagreement / Math.LN2 : at.students[s] / 2;
    return Math.min(1, Math.max(0, x));
  }

  // The positions of a row as a list in which one is chosen: tokens, squares of a grid over the picture, or a strip.
  function positions(r, own, bodyOf) {
    const [start, stop] = [data.starts[r], data.starts[r + 1]];
    const tokens = (own.inputs || []).find((each) => each.kind === "tokens")?.tokens;
    const picture = (own.inputs || []).find((each) => each.kind === "picture");
    if (!state.at.has(r)) state.at.set(r, striking(r, start, stop));
    const at = () => state.at.get(r);
    const body = element("div", {});
    const options = [];
    const box = element("div", {
      class: tokens ? "tokens" : "squares", role: "listbox", tabindex: 0,
      "aria-label": `${stop - start} positions; arrow keys choose one`,
    });
    const choose = (n) => {
      state.at.set(r, n);
      options.forEach((each, number) => each.setAttribute("aria-selected", String(start + number === n)));
      box.setAttribute("aria-activedescendant", options[n - start].id);
      body.replaceChildren(element("p", { class: "quiet" }, described(n, tokens)), bodyOf(n));
    };
    if (tokens) box.append(element("bdi", { class: "token", role: "presentation" }, tokens[0] ?? ""));
    for (let n = start; n < stop; n++) {
      const alpha = shade(r, n).toFixed(3);
      const option = element("bdi", {
        role: "option", id: `${root.id}-${n}`, class: "token", "data-shade": alpha, style: `--shade:${alpha}`,
        title: described(n, tokens), onclick: () => choose(n),
      }, tokens ? tokens[places[n] + 1] ?? "" : "");
      options.push(option);
      box.append(option);
    }
    const columns = picture && data.of === "rows" ? gridColumns(picture.shape, data.most) : 0;
    if (columns && stop - start === data.most) {
      box.classList.add("over");
      box.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    }
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns || 1, ArrowUp: -(columns || 1) }[event.key];
      if (step === undefined && event.key !== "Enter") return;
      event.preventDefault();
      choose(Math.min(stop - 1, Math.max(start, at() + (step || 0))));
    });
    choose(at());
    return [box, body, columns && stop - start === data.most];
  }

  // The position that is looked at first: the darkest.
  function striking(r, start, stop) {
    let best = start;
    for (let n = start; n < stop; n++) if (shade(r, n) > shade(r, best)) best = n;
    return best;
  }

  function described(n, tokens) {
    if (tokens) return `position ${places[n]}: what comes after “${(tokens[places[n]] ?? "").trim()}”, which is “${(tokens[places[n] + 1] ?? "").trim()}”`;
    return `position ${places[n]}`;
  }

  // Cells of a grid over a picture: how many stand side by side, 0 where they are none.
  function gridColumns(shape, count) {
    const [height, width] = shape.length === 3 && shape[0] <= 4 ? shape.slice(1) : shape;
    for (let side = 1; side <= Math.min(height, width); side++) {
      if (Math.ceil(height / side) * Math.ceil(width / side) === count) return Math.ceil(width / side);
    }
    return 0;
  }

  function input(each, at, all) {
    const label = each.name ? element("span", { class: "quiet" }, element("bdi", {}, each.name)) : null;
    if (each.kind === "picture") return element("figure", {}, element("img", { src: each.source, alt: "the row's picture", class: "picture" }));
    if (each.kind === "sound") return element("figure", {}, element("audio", { controls: true, src: each.source }), label);
    if (each.kind === "text") return element("p", { class: "text" }, all.length > 1 ? [label, " "] : null, element("bdi", {}, each.text));
    if (each.kind === "cells") {
      const rows = each.cells.map(([name, value]) => element("tr", {}, element("td", {}, element("bdi", {}, name)), element("td", { class: "number" }, element("bdi", {}, value))));
      return element("details", { open: each.cells.length <= 8 }, element("summary", {}, label, ` ${each.cells.length + each.more} cells`),
        element("table", {}, rows), each.more ? element("p", { class: "quiet" }, `and ${each.more} more`) : null);
    }
    return null;
  }

  function facts(r) {
    const own = scores[r], found = [];
    const add = (name, x) => found.push(element("span", { "data-score": name, "data-value": x.toFixed(4) }, `${name} ${x.toFixed(3)}`));
    if (!isValues) add("entropy", own.entropy);
    if (M > 1) add("disagreement", own.disagreement);
    if (isValues && hard) add("error", own.residual);
    data.students.forEach((each, s) => {
      if (asked(r, s)) add(`${isValues ? "squared error" : "KL"} of ${each.label}`, own.students[s]);
    });
    return found;
  }

  function drawRow(r) {
    const own = data.rows[r], start = data.starts[r], several = data.of !== null;
    const bodyOf = (n) => (isValues ? vector(r, n) : bars(r, n));
    const label = several || !isSoftmax || labelOf(start) < 0 ? null : nameOf(labelOf(start));
    const errors = (own.error || []).slice(0, 3).map((each) =>
      `${several ? `position ${each.position}: ` : ""}perhaps ${each.suggested} (score ${each.score.toFixed(2)})`);
    const empty = data.starts[r + 1] === start;
    const [box, body, over] = empty
      ? [null, element("p", { class: "quiet" }, "No position of this row counts."), false]
      : several ? positions(r, own, bodyOf) : [null, bodyOf(start), false];
    if (!inputsOf.has(r)) inputsOf.set(r, (own.inputs || []).filter((each) => each.kind !== "tokens").map(input));
    const shown = inputsOf.get(r);
    const inputs = over
      ? element("div", { class: "grid-picture" }, shown[0], box)
      : element("div", {}, shown);
    return element("article", { class: "row", tabindex: -1, "data-row": own.row, "aria-label": `row ${own.row}` },
      element("header", {}, element("b", {}, `Row ${own.row}`),
        label === null ? null : element("span", {}, "hard label ", element("b", {}, element("bdi", {}, label))),
        facts(r), errors.length ? element("span", { class: "broken" }, "label likely wrong: ", element("bdi", {}, errors.join("; "))) : null),
      over || !box ? null : box,
      element("div", { class: "row-body" }, inputs, body));
  }

  function draw() {
    arrange();
    const focused = document.activeElement?.closest?.(".row")?.dataset.row;
    const inList = list.contains(document.activeElement) && document.activeElement.getAttribute("role") === "listbox";
    list.replaceChildren(...order.slice(state.page * PAGE, (state.page + 1) * PAGE).map(drawRow));
    pager();
    if (focused === undefined) return;
    const again = list.querySelector(`[data-row="${focused}"]`);
    if (again) (inList ? again.querySelector("[role=listbox]") : again).focus({ preventScroll: true });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]), select, textarea")) return;
    if (softlabels.rowsAt === undefined) softlabels.rowsAt = root;
    if (softlabels.rowsAt !== root) return;
    if (event.key === "/") {
      event.preventDefault();
      root.querySelector(".row-filter").focus();
    }
    const step = { j: 1, k: -1 }[event.key];
    if (!step) return;
    const rows = [...list.querySelectorAll(".row")];
    const now = rows.indexOf(document.activeElement?.closest?.(".row"));
    let next = now < 0 ? 0 : now + step;
    if (next < 0 || next >= rows.length) {
      const turned = state.page + step;
      if (turned < 0 || turned >= Math.ceil(order.length / PAGE)) return;
      state.page = turned;
      draw();
      next = step > 0 ? 0 : PAGE - 1;
    }
    [...list.querySelectorAll(".row")][next]?.focus();
  });
  // Of several sections on rows the keys are those of the one that was used last.
  for (const type of ["focusin", "pointerdown"]) root.addEventListener(type, () => (softlabels.rowsAt = root));

  // Teacher against hard values, and what is left, of one output at a time.
  async function scatter() {
    if (!hard) return;
    const rows = (d) => [...Array(N).keys()].filter((n) => !Number.isNaN(hard[n * K + d]))
      .map((n) => ({ hard: hard[n * K + d], teacher: mean[n * K + d], rest: mean[n * K + d] - hard[n * K + d] }));
    const plots = [["teacher", "the teacher's mean", "Teacher against hard values: on the line both agree."],
      ["rest", "teacher minus hard", "What is left, by hard value: a slope or a funnel is an error that the teacher makes again and again."]];
    const drawn = [], boxes = [];
    for (const [field, title, says] of plots) {
      const plot = element("div", { class: "plot", role: "img", "aria-label": says });
      boxes.push(element("div", {}, element("p", {}, says), plot));
    }
    const options = [...Array(K).keys()].map((d) => [String(d), nameOf(d)]);
    const change = (d) => drawn.forEach((each) => each.update("rows", rows(Number(d))));
    place.prepend(element("p", {}, choice("output", "Output", options, change)), element("div", { class: "two" }, boxes));
    for (const [number, [field, title]] of plots.entries()) {
      drawn.push(await chart(boxes[number].querySelector(".plot"), {
        data: { name: "rows" },
        layer: [
          { mark: { type: "point", filled: true, size: 12, opacity: 0.5, color: COLOURS[0] },
            encoding: { x: { field: "hard", type: "quantitative", title: "hard value", scale: { zero: false } },
              y: { field, type: "quantitative", title, scale: { zero: false } } } },
          { mark: { type: "line", strokeWidth: 1, strokeDash: [4, 3], color: "currentColor" },
            encoding: { x: { field: "hard", type: "quantitative" }, y: field === "rest" ? { datum: 0 } : { field: "hard", type: "quantitative" } } },
        ],
      }, { rows: rows(0) }));
    }
  }

  scoreAt(softlabels.temperature);
  place.append(controls(), ...(isValues ? [] : [legend()]), status, list, pages);
  if (isValues) {
    draw();
    return scatter();
  }
  onTemperature((now) => {
    scoreAt(now);
    draw();
  });
  return undefined;
};
