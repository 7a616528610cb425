"use strict";
// Teacher against hard values, and what is left, of one output at a time; `choice` makes a select.
softlabels.parts.rowScatter = (place, own, choice) => {
  const { element, chart, COLOURS } = softlabels;
  const { N, K, mean, hard } = own;
  if (!hard) return;
  const rows = (d) => [...Array(N).keys()].filter((n) => !Number.isNaN(hard[n * K + d]))
    .map((n) => ({ hard: hard[n * K + d], teacher: mean[n * K + d], rest: mean[n * K + d] - hard[n * K + d] }));
  const options = [...Array(K).keys()].map((d) => [String(d), own.nameOf(d), rows(d)]).filter(([, , known]) => known.length);
  if (!options.length) return;
  const plots = [["teacher", "the teacher's mean", "Teacher against hard values: on the line both agree."],
    ["rest", "teacher minus hard", "What is left, by hard value: a slope or a funnel is an error that the teacher makes again and again."]];
  const drawn = [], boxes = [];
  for (const [field, title, says] of plots) {
    const plot = element("div", { class: "plot", role: "img", "aria-label": says });
    boxes.push(element("div", {}, element("p", {}, says), plot));
  }
  const change = (d) => drawn.forEach((each) => each.update("rows", rows(Number(d))));
  place.prepend(element("p", {}, choice("output", "Output", options, change)), element("div", { class: "two" }, boxes));
  for (const [number, [field, title]] of plots.entries()) {
    drawn.push(chart(boxes[number].querySelector(".plot"), {
      data: { name: "rows" },
      layer: [
        { mark: { type: "point", filled: true, size: 12, opacity: 0.5, color: COLOURS[0] },
          encoding: { x: { field: "hard", type: "quantitative", title: "hard value", scale: { zero: false } },
            y: { field, type: "quantitative", title, scale: { zero: false } } } },
        { mark: { type: "line", strokeWidth: 1, strokeDash: [4, 3], color: "currentColor" },
          encoding: { x: { field: "hard", type: "quantitative" }, y: field === "rest" ? { datum: 0 } : { field: "hard", type: "quantitative" } } },
      ],
    }, { rows: options[0][2] }));
  }
};
