"use strict";
// A detector's boxes over the picture of a row: those of the hard labels, the ensemble and the students, with the probability
// of their classes at the slider's T. A box is [position, class, left, top, width, height], as parts of the picture.
softlabels.parts.rowBoxes = (root, data, own, colours) => {
  const { element } = softlabels;
  const LEAST = 0.2, SURE = 0.5; // below the first a box is hidden, below the second it is thin
  const every = [["hard labels", null], [colours.teacher, colours.ensemble], ...data.students.map((each, s) => [each.label, colours.students[s]])];
  const allVoices = every.map(([name]) => name);
  const voices = every.filter((_, v) => data.rows.some((row) => row.boxes && row.boxes[v]));
  const shown = new Map(allVoices.map((name, v) => [name, v < 2])); // at first hard labels and ensemble
  const colourOf = new Map(voices);

  // The index among all positions of the page of position `at` of row r.
  function indexOf(r, at) {
    let [low, high] = [data.starts[r], data.starts[r + 1] - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (own.places[middle] < at) low = middle + 1;
      else high = middle;
    }
    return own.places[low] === at ? low : -1;
  }

  function scoreOf(v, n, id) {
    if (v === 0) return 1;
    const k = own.kOf(n, id);
    return v === 1 ? own.ensembleOf(own.membersOf(n))[k] : own.studentOf(n, v - 2)[k];
  }

  // What is drawn of row r at T: the large first, so that a small box can be chosen inside a large one.
  function boxesOf(r) {
    const found = [];
    data.rows[r].boxes.forEach((boxes, v) => {
      if (!boxes || !shown.get(allVoices[v])) return;
      for (const [at, id, left, top, width, height] of boxes) {
        const n = indexOf(r, at), score = n < 0 ? 0 : scoreOf(v, n, id);
        if (score >= LEAST) found.push({ v, n, id, left, top, width, height, score });
      }
    });
    return found.sort((a, b) => b.width * b.height - a.width * a.height);
  }

  const nameOf = (each) => `${own.nameOf(each.id)}${each.v ? ` ${(100 * each.score).toFixed(0)}%` : ""} (${allVoices[each.v]})`;

  function drawn(r, each, number, choose) {
    const name = allVoices[each.v], hard = each.v === 0, said = `${nameOf(each)}, position ${own.places[each.n]}`;
    const rect = (kind) => element("svg:rect", {
      class: kind, x: 100 * each.left, y: 100 * each.top, width: 100 * each.width, height: 100 * each.height,
    });
    return element("svg:g", {
      role: "option", id: `${root.id}-${r}-box-${number}`, "aria-label": said, "data-position": own.places[each.n],
      "data-who": name, "data-class": each.id, "data-score": each.score.toFixed(4), "aria-selected": "false",
      class: hard ? "box hard" : each.score < SURE ? "box thin" : "box",
      style: hard ? null : `--colour:${colourOf.get(name)};--sure:${Math.max(0.45, each.score).toFixed(3)}`,
      onclick: () => choose(each.n),
    }, element("svg:title", {}, said), rect("halo"), rect("edge"));
  }

  // The boxes of row r over its picture, as a list of which one is chosen. `mark(n)` shows which are of position n, and says so.
  function overlay(r, choose) {
    const boxes = boxesOf(r);
    const marks = boxes.map((each, number) => drawn(r, each, number, (n) => go(number, n)));
    const list = element("svg:svg", {
      class: "boxes", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "listbox", tabindex: 0,
      "aria-label": `${boxes.length} boxes; arrow keys choose one`,
    }, marks);
    const order = boxes.map((_, number) => number).sort((a, b) => boxes[a].v - boxes[b].v || boxes[b].score - boxes[a].score);
    let at = -1;
    function go(number, n) {
      at = number;
      choose(n);
      list.setAttribute("aria-activedescendant", marks[number].id);
    }
    list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || !boxes.length) return;
      event.preventDefault();
      const rank = order.indexOf(at);
      const next = order[rank < 0 ? (step > 0 ? 0 : order.length - 1) : Math.min(order.length - 1, Math.max(0, rank + step))];
      go(next, boxes[next].n);
    });
    let before = [];
    function mark(n) {
      before.forEach((number) => marks[number].setAttribute("aria-selected", "false"));
      before = order.filter((number) => boxes[number].n === n);
      before.forEach((number) => marks[number].setAttribute("aria-selected", "true"));
      return before.length ? `Boxes: ${before.map((number) => nameOf(boxes[number])).join(", ")}` : "No box is of this position.";
    }
    return { list, mark };
  }

  // A tick for each of those who have boxes, in its colour.
  function ticks(change) {
    return element("fieldset", { class: "row-boxes" }, element("legend", {}, "Boxes"),
      voices.map(([name, colour], at) => {
        const box = element("input", {
          type: "checkbox", id: `${root.id}-boxes-${at}`, checked: shown.get(name),
          onchange: () => {
            shown.set(name, box.checked);
            change();
          },
        });
        return element("span", { class: "control" }, box,
          element("label", { for: box.id },
            element("i", { class: colour ? "box-line" : "box-line hard", style: colour ? `--colour:${colour}` : null }), element("bdi", {}, name)));
      }),
      element("p", { class: "quiet" },
        `The score of a box is the probability of its class at T. Below ${SURE} it is thin, below ${LEAST} it is hidden. A click shows the bars of its position.`));
  }

  return voices.length ? { overlay, ticks } : null;
};
