"use strict";
// One input of a row: picture, sound, text or cells. Tokens are positions.
softlabels.parts.rowInput = (each, at, all) => {
  const { element } = softlabels;
  const label = each.name ? element("span", { class: "quiet" }, element("bdi", {}, each.name)) : null;
  if (each.kind === "picture") return element("figure", {}, element("img", { src: each.source, alt: "the row's picture", class: "picture" }));
  if (each.kind === "sound") return element("figure", {}, element("audio", { controls: true, src: each.source, "aria-label": `the row's sound${each.name ? `: ${each.name}` : ""}` }), label);
  if (each.kind === "text") return element("p", { class: "text" }, all.length > 1 ? [label, " "] : null, element("bdi", {}, each.text));
  if (each.kind === "cells") {
    const rows = each.cells.map(([name, value]) => element("tr", {}, element("td", {}, element("bdi", {}, name)), element("td", { class: "number" }, element("bdi", {}, value))));
    return element("details", { open: each.cells.length <= 8 }, element("summary", {}, label, ` ${each.cells.length + each.more} cells`),
      element("table", {}, rows), each.more ? element("p", { class: "quiet" }, `and ${each.more} more`) : null);
  }
  return null;
};
