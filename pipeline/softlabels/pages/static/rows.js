"use strict";
// The section on single rows: a list of them, a page at a time, sorted, filtered, and drawn again as the slider moves.
softlabels.sections.rows = (root, data) => {
  const { element, onTemperature, parts } = softlabels;
  const PAGE = 20;
  const place = root.querySelector(".rows");
  const own = parts.rowNumbers(data);
  const state = { sort: "", filter: "", words: "", differs: false, errors: false, page: 0, at: new Map() };
  state.colour = data.rows.some((row) => row.boxes) ? "" : "entropy"; // below boxes the picture stays as it is
  const changed = (name) => (value) => {
    state[name] = value;
    state.page = 0;
    draw();
  };
  const controls = parts.rowControls(root, data, own, state, changed);
  const bars = parts.rowBars(data, own);
  const positions = parts.rowPositions(root, data, own, state);
  const boxes = parts.rowBoxes(root, data, own, bars.colours);
  const inputsOf = new Map(); // drawn once: what is open stays so when the slider moves
  const list = element("div", { class: "row-list" });
  const tints = element("p", { class: "quiet", hidden: true });
  const status = element("p", { class: "quiet", role: "status" });
  const pages = element("nav", { class: "pager", "aria-label": "Pages of rows" });
  let scores, order;

  function textOf(r) {
    const row = data.rows[r];
    const found = [`row ${row.row}`];
    for (const each of row.inputs || []) {
      found.push(each.text || "", ...(each.tokens ? [each.tokens.join("")] : []), ...(each.cells || []).flat().map(String));
    }
    if (!own.isValues && own.labelOf(data.starts[r]) >= 0) found.push(own.nameOf(own.labelOf(data.starts[r])));
    return found.join(" ").toLowerCase();
  }
  const texts = data.rows.map((_, r) => textOf(r));

  function arrange() {
    order = [...data.rows.keys()].filter(
      (r) =>
        (!state.differs || scores[r].differs) &&
        (!state.errors || data.rows[r].error) &&
        (state.filter === "" || own.hasClass(r, Number(state.filter))) &&
        texts[r].includes(state.words)
    );
    const by = controls.sorts.find(([name]) => name === state.sort)[2];
    const keys = scores.map((each, r) => by(each, r));
    order.sort((a, b) => keys[a] - keys[b] || a - b);
    state.page = Math.min(state.page, Math.max(0, Math.ceil(order.length / PAGE) - 1));
  }

  function pager() {
    const count = Math.ceil(order.length / PAGE);
    const go = (step) => () => {
      turn(step);
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

  function facts(r) {
    const found = [];
    const add = (name, x) => found.push(element("span", { "data-score": name, "data-value": x.toFixed(4) }, `${name} ${x.toFixed(3)}`));
    if (!own.isValues) add("entropy", scores[r].entropy);
    if (own.M > 1) add("disagreement", scores[r].disagreement);
    if (own.isValues && own.hard) add("error", scores[r].residual);
    data.students.forEach((each, s) => {
      if (own.asked(r, s)) add(`${own.isValues ? "squared error" : "KL"} of ${each.label}`, scores[r].students[s]);
    });
    return found;
  }

  function header(r, label) {
    const errors = (data.rows[r].error || []).slice(0, 3).map((each) =>
      `${data.of !== null ? `position ${each.position}: ` : ""}perhaps ${each.suggested} (score ${each.score.toFixed(2)})`);
    return element("header", {}, element("b", {}, `Row ${data.rows[r].row}`),
      label === null ? null : element("span", {}, "hard label ", element("b", {}, element("bdi", {}, label))),
      facts(r), errors.length ? element("span", { class: "broken" }, "label likely wrong: ", element("bdi", {}, errors.join("; "))) : null);
  }

  function drawRow(r) {
    const row = data.rows[r], start = data.starts[r], several = data.of !== null;
    const label = several || !own.isSoftmax || own.labelOf(start) < 0 ? null : own.nameOf(own.labelOf(start));
    if (!inputsOf.has(r)) inputsOf.set(r, (row.inputs || []).filter((each) => each.kind !== "tokens").map(parts.rowInput));
    const shown = inputsOf.get(r);
    const [above, inputs, body] = data.starts[r + 1] === start
      ? [null, element("div", {}, shown), element("p", { class: "quiet" }, "No position of this row counts.")]
      : several ? severalOf(r, shown) : [null, element("div", {}, shown), bars.of(r, start)];
    return element("article", { class: "row", tabindex: -1, "data-row": row.row, "aria-label": `row ${row.row}` },
      header(r, label), above, element("div", { class: "row-body" }, inputs, body));
  }

  // Of a row of positions: the list of them where it is not over the picture, the inputs, and what is said of the chosen one.
  function severalOf(r, shown) {
    const row = data.rows[r], places = [];
    const list = positions.of(r, row, (n) =>
      element("div", {}, places.map((each) => element("p", { class: "quiet box-names" }, element("bdi", {}, each.mark(n)))), bars.of(r, n)));
    const at = (row.inputs || []).filter((each) => each.kind !== "tokens").findIndex((each) => each.kind === "picture");
    if (boxes && row.boxes && at >= 0) places.push(boxes.overlay(r, list.choose));
    list.choose(list.at());
    if (!list.over && !places.length) return [list.box, element("div", {}, shown), list.body];
    const picture = element("div", { class: places.length ? "grid-picture large" : "grid-picture" },
      shown[at], list.over ? list.box : null, places.map((each) => each.list));
    const rest = shown.filter((_, number) => number !== at);
    return [list.over ? null : list.box, element("div", {}, picture, rest), list.body];
  }

  // Which numbers the colours of positions are.
  function tint() {
    const ends = data.of ? positions.range() : null;
    const said = state.colour === "entropy" ? "entropy" : state.colour === "disagreement" ? "disagreement of members" : `KL of ${data.students[Number(state.colour.split("-")[1])]?.label}`;
    tints.hidden = ends === null;
    if (ends) tints.textContent = `Colour of positions: ${said}, none at ${ends[0].toFixed(3)} nats, full at ${ends[1].toFixed(3)}, the least and the most on this page.`;
  }

  function draw() {
    arrange();
    tint();
    const focused = document.activeElement?.closest?.(".row")?.dataset.row;
    const inList = list.contains(document.activeElement) && document.activeElement.getAttribute("role") === "listbox" &&
      (document.activeElement.classList.contains("boxes") ? ".boxes" : "[role=listbox]:not(.boxes)");
    list.replaceChildren(...order.slice(state.page * PAGE, (state.page + 1) * PAGE).map(drawRow));
    pager();
    if (focused === undefined) return;
    const again = list.querySelector(`[data-row="${focused}"]`);
    if (again) (inList ? again.querySelector(inList) : again).focus({ preventScroll: true });
  }

  function turn(step) {
    const to = state.page + step;
    if (to < 0 || to >= Math.ceil(order.length / PAGE)) return false;
    state.page = to;
    draw();
    return true;
  }

  parts.rowKeys(root, list, turn);
  scores = own.scoresAt(softlabels.temperature);
  place.append(controls.form(), ...(own.isValues ? [] : [bars.legend()]), ...(boxes ? [boxes.ticks(draw)] : []), tints, status, list, pages);
  if (own.isValues) {
    draw();
    return parts.rowScatter(place, own, controls.choice);
  }
  onTemperature((now) => {
    scores = own.scoresAt(now);
    draw();
  });
  return undefined;
};
