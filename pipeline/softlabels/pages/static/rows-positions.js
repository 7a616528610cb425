"use strict";
// The positions of a row as a list in which one is chosen: tokens, squares of a grid over the picture, or a strip.
// `state`: what they are coloured by, and which position of each row is chosen.
softlabels.parts.rowPositions = (root, data, own, state) => {
  const { element } = softlabels;

  function shade(r, n) {
    if (own.isValues) return 0;
    const s = Number(state.colour.split("-")[1]);
    const at = own.atPosition[n], most = own.isSoftmax ? Math.log(Math.max(2, Math.min(data.classes, 100))) : data.classes * Math.LN2;
    const x = state.colour === "entropy" ? at.entropy / most : state.colour === "disagreement" ? at.disagreement / Math.LN2 : at.students[s] / 2;
    return Math.min(1, Math.max(0, x));
  }

  // The position that is looked at first: the darkest.
  function striking(r, start, stop) {
    let best = start;
    for (let n = start; n < stop; n++) if (shade(r, n) > shade(r, best)) best = n;
    return best;
  }

  function described(n, tokens) {
    const at = own.places[n];
    if (tokens) return `position ${at}: what comes after “${(tokens[at] ?? "").trim()}”, which is “${(tokens[at + 1] ?? "").trim()}”`;
    return `position ${at}`;
  }

  // Cells of a grid over a picture: how many stand side by side, 0 where they are none.
  function gridColumns(shape, count) {
    const [height, width] = shape.length === 3 && shape[0] <= 4 ? shape.slice(1) : shape;
    for (let side = 1; side <= Math.min(height, width); side++) {
      if (Math.ceil(height / side) * Math.ceil(width / side) === count) return Math.ceil(width / side);
    }
    return 0;
  }

  // The list, what is said of the chosen one, and whether the list lies over the picture.
  return function positions(r, row, bodyOf) {
    const [start, stop] = [data.starts[r], data.starts[r + 1]];
    const tokens = (row.inputs || []).find((each) => each.kind === "tokens")?.tokens;
    const picture = (row.inputs || []).find((each) => each.kind === "picture");
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
      }, tokens ? tokens[own.places[n] + 1] ?? "" : "");
      options.push(option);
      box.append(option);
    }
    const columns = picture && data.of === "rows" ? gridColumns(picture.shape, data.most) : 0;
    const over = columns > 0 && stop - start === data.most;
    if (over) {
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
    return [box, body, over];
  };
};
