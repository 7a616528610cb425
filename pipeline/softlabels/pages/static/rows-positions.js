"use strict";
// The positions of a row as a list in which one is chosen: tokens, squares of a grid over the picture, or a strip.
// `state`: what they are coloured by, and which position of each row is chosen.
softlabels.parts.rowPositions = (root, data, own, state) => {
  const { element } = softlabels;
  const SPAN = 0.01; // nats: below it, positions that differ by rounding would look different

  // What a position is coloured by, and the least and the largest of it on the page at T.
  function scoreOf(n, colour) {
    const at = own.atPosition[n];
    return colour === "entropy" || colour === "disagreement" ? at[colour] : at.students[Number(colour.split("-")[1])];
  }

  function range(colour = state.colour) {
    let [least, most] = [Infinity, -Infinity];
    if (own.isValues || !colour) return null;
    for (let n = 0; n < own.N; n++) {
      const x = scoreOf(n, colour);
      if (x < least) least = x;
      if (x > most) most = x;
    }
    return own.N ? [Math.max(0, least), Math.max(0, most)] : null;
  }

  function shade(n, [least, most]) {
    return Math.min(1, Math.max(0, (scoreOf(n, state.colour) - least) / Math.max(SPAN, most - least)));
  }

  // The position that is looked at first: that of most colour.
  function striking(start, stop) {
    const colour = state.colour || "entropy";
    let best = start;
    if (!own.isValues) for (let n = start; n < stop; n++) if (scoreOf(n, colour) > scoreOf(best, colour)) best = n;
    return best;
  }

  const named = (token) => token.trim() || token.replaceAll(" ", "␣").replaceAll("\n", "↵");

  function described(n, tokens) {
    const at = own.places[n];
    if (tokens) return `position ${at}: what comes after “${named(tokens[at] ?? "")}”, which is “${named(tokens[at + 1] ?? "")}”`;
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

  // The list, what is said of the chosen one, whether the list lies over the picture, and a function that chooses one.
  function positions(r, row, bodyOf) {
    const [start, stop] = [data.starts[r], data.starts[r + 1]];
    const tokens = (row.inputs || []).find((each) => each.kind === "tokens")?.tokens;
    const picture = (row.inputs || []).find((each) => each.kind === "picture");
    if (!state.at.has(r)) state.at.set(r, striking(start, stop));
    const at = () => state.at.get(r);
    const body = element("div", {});
    const options = [];
    const box = element("div", {
      class: tokens ? "tokens" : "squares", role: "listbox", tabindex: 0,
      "aria-label": `${stop - start} positions; arrow keys choose one`,
    });
    const choose = (n) => {
      options[at() - start].setAttribute("aria-selected", "false");
      options[n - start].setAttribute("aria-selected", "true");
      state.at.set(r, n);
      box.setAttribute("aria-activedescendant", options[n - start].id);
      body.replaceChildren(element("p", { class: "quiet" }, described(n, tokens)), bodyOf(n));
    };
    if (tokens) box.append(element("bdi", { class: "token", role: "presentation" }, tokens[0] ?? ""));
    const ends = range();
    for (let n = start; n < stop; n++) {
      const dark = ends ? shade(n, ends) : 0;
      const option = element("bdi", {
        role: "option", id: `${root.id}-${n}`, class: "token", style: dark ? `--shade:${dark.toFixed(3)}` : null,
      }, tokens ? tokens[own.places[n] + 1] ?? "" : "");
      options.push(option);
    }
    box.append(...options);
    // One listener for all: a picture may have hundreds of cells.
    const pointed = (event) => options.indexOf(event.target.closest("[role=option]"));
    box.addEventListener("click", (event) => pointed(event) >= 0 && choose(start + pointed(event)));
    box.addEventListener("pointerover", (event) => {
      if (pointed(event) >= 0) options[pointed(event)].title = described(start + pointed(event), tokens);
    });
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
    return { box, body, over, choose, at };
  }

  return { of: positions, range };
};
