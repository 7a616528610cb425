"use strict";
// What rows are sorted, filtered and coloured by. `change(name)` gives the listener that sets one value of the state.
softlabels.parts.rowControls = (root, data, own, change) => {
  const { element } = softlabels;
  const { M, N, S, isValues, isSoftmax } = own;
  const idOf = (name) => `${root.id}-${name}`;

  function choice(name, title, options, chosen) {
    const select = element("select", { id: idOf(name), onchange: () => chosen(select.value) },
      options.map(([value, text]) => element("option", { value }, text)));
    return element("span", { class: "control" }, element("label", { for: idOf(name) }, title), select);
  }

  function tick(name, title, chosen) {
    const box = element("input", { type: "checkbox", id: idOf(name), onchange: () => chosen(box.checked) });
    return element("span", { class: "control" }, box, element("label", { for: idOf(name) }, title));
  }

  const hasErrors = data.rows.some((row) => row.error);
  const least = (r) => Math.min(...(data.rows[r].error || [{ score: 9 }]).map((each) => each.score));
  // Name, title, and the number of a row, by its scores, that sorts it: the least comes first.
  const sorts = [
    ["", "as chosen", () => 0],
    ...(isValues ? [] : [["entropy", "entropy, highest first", (s) => -s.entropy]]),
    ...(M > 1 ? [["disagreement", "disagreement of members", (s) => -s.disagreement]] : []),
    ...(isValues && own.hard ? [["residual", "error against hard values", (s) => -s.residual]] : []),
    ...data.students.map((each, s) => [
      `student-${s}`, `${isValues ? "squared error" : "KL"} of ${each.label}`, (found) => -found.students[s],
    ]),
    ...(hasErrors ? [["label-error", "likely label errors", (_, r) => least(r)]] : []),
    ["row", "row number", (_, r) => data.rows[r].row],
  ];

  function form() {
    const classes = isSoftmax ? [...new Set([...Array(N).keys()].flatMap((n) => [own.labelOf(n), own.topAt[n]]))] : [];
    classes.sort((a, b) => a - b);
    const search = element("input", {
      type: "search", id: idOf("words"), class: "row-filter", placeholder: "a word, a row",
      oninput: () => change("words")(search.value.toLowerCase()),
    });
    const shown = classes.filter((id) => id >= 0).slice(0, 1000).map((id) => [String(id), own.nameOf(id)]);
    const colours = [["entropy", "entropy"], ...(M > 1 ? [["disagreement", "disagreement"]] : []),
      ...data.students.map((each, s) => [`student-${s}`, `KL of ${each.label}`])];
    return element("form", { class: "row-controls", onsubmit: (event) => event.preventDefault() },
      choice("sort", "Sort by", sorts, change("sort")),
      shown.length ? choice("class", "Class", [["", "any"], ...shown], change("filter")) : null,
      data.of && !isValues ? choice("colour", "Colour by", colours, change("colour")) : null,
      element("span", { class: "control" }, element("label", { for: idOf("words") }, "Find"), search),
      S && isSoftmax ? tick("differs", "a student differs", change("differs")) : null,
      hasErrors ? tick("errors", "likely label errors", change("errors")) : null,
      element("span", { class: "quiet" }, "Keys: j and k next and previous row, / to find."));
  }

  return { sorts, form, choice };
};
