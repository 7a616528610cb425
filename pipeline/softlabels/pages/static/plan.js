"use strict";
// Draws what a plan's pilot found: how flat distributions are, bytes by way, and the gain of students with its interval.
softlabels.sections.plan = (root, data) => {
  const place = (name) => root.querySelector(`[data-plot="${name}"]`);

  function flatness(rows) {
    return softlabels.chart(place("flatness"), {
      data: { name: "rows" },
      mark: { type: "line", point: true },
      encoding: {
        x: { field: "T", type: "quantitative", scale: { type: "log", nice: false }, axis: { values: [1, 2, 4, 8, 20] } },
        y: { field: "value", type: "quantitative", scale: { domain: [0, 1] }, title: null },
        color: { field: "what", type: "nominal", title: null },
        strokeDash: { field: "what", type: "nominal", title: null },
        tooltip: [{ field: "what", title: "what" }, { field: "T" }, { field: "value", format: ".4f" }],
      },
    }, { rows });
  }

  function sizes(rows) {
    const names = [...new Set(rows.map((row) => row.name))];
    return softlabels.chart(place("sizes"), {
      height: 20 + 36 * names.length,
      data: { name: "rows" },
      mark: "bar",
      encoding: {
        y: { field: "name", type: "nominal", sort: names, title: null },
        yOffset: { field: "layout", type: "nominal" },
        x: { field: "bytes", type: "quantitative", title: "bytes", axis: { format: "~s", tickCount: 5 } },
        color: { field: "layout", type: "nominal", title: null },
        tooltip: [{ field: "name" }, { field: "layout" }, { field: "bytes", format: "," }],
      },
    }, { rows });
  }

  function gain(rows) {
    const x = (field) => ({ field, type: "quantitative", title: `gain (${data.measure})`, axis: { tickCount: 6 } });
    return softlabels.chart(place("gain"), {
      height: 50,
      data: { name: "rows" },
      layer: [
        { mark: { type: "rule", strokeDash: [3, 3], color: "currentColor" }, encoding: { x: { datum: 0 } } },
        { mark: { type: "rule", strokeWidth: 3, color: softlabels.COLOURS[0] }, encoding: { x: x("low"), x2: { field: "high" } } },
        { mark: { type: "point", filled: true, size: 90, color: softlabels.COLOURS[0], opacity: 1 }, encoding: { x: x("estimate") } },
      ],
    }, { rows });
  }

  for (const [name, draw] of Object.entries({ flatness, sizes, gain })) if (data[name]) draw(data[name]);
};
