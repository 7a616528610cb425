"use strict";
// Draws a run: learning curves, its sweep, calibration at the slider's T, errors by class; and chooses between several runs.
softlabels.sections.runs = (root, data) => {
  const { chart, element, onTemperature, COLOURS } = softlabels;
  const TEACHER = [COLOURS[0], [6, 3]];
  const OWN = new Map([["ensemble", TEACHER], ["teacher", TEACHER], ["hard", [COLOURS[1], [4, 2]]]]); // by kind
  const DASHES = [[1, 0], [8, 3], [2, 2], [8, 3, 2, 3]];
  const place = (name) => root.querySelector(`[data-plot="${name}"]`);

  // Colour and dashes of each name, alike in all plots: up to as many as there are colours, then from dark to light.
  function styles(names, kinds) {
    const others = names.filter((name) => !OWN.has(kinds.get(name)));
    const free = [3, 2, 4, 5].map((at) => COLOURS[at]);
    const shade = (at) => `hsl(${Math.round(260 - (200 * at) / Math.max(1, others.length - 1))} 60% 50%)`;
    const found = names.map((name) => {
      const at = others.indexOf(name);
      if (at < 0) return OWN.get(kinds.get(name));
      return [others.length <= free.length ? free[at] : shade(at), DASHES[at % DASHES.length]];
    });
    const scale = (range) => ({ domain: names, range });
    return { colour: scale(found.map(([one]) => one)), dash: scale(found.map(([, one]) => one)) };
  }

  const kindOf = (name) => (name === "hard" || name === "hard labels" ? "hard" : name === "teacher" ? name : "distilled");
  const unique = (values) => [...new Set(values)];
  const kindsOf = (names) => new Map(names.map((name) => [name, kindOf(name)]));
  const legend = (names, own) =>
    names.length > 1 ? { title: null, columns: names.length > 6 ? 2 : 3, symbolOpacity: 1, ...own } : null;
  const stroke = { symbolType: "stroke", symbolSize: 500, symbolStrokeWidth: 2 };

  function drawCurves(name, panel, number) {
    const rows = panel.lines.flatMap((line) =>
      line.epochs.map((epoch, at) => ({ student: line.student, name: line.name, epoch, value: line.values[at] }))
    );
    const names = unique(rows.map((row) => row.student));
    const { colour, dash } = styles(names, kindsOf(names));
    const several = panel.lines.length > names.length;
    const epochs = unique(rows.map((row) => row.epoch));
    const ticks = epochs.length <= 10 ? { values: epochs, format: "d" } : { tickMinStep: 1 };
    const y = { type: "quantitative", title: panel.unit, scale: panel.log ? { type: "log" } : { zero: false } };
    const encoding = {
      x: { field: "epoch", type: "quantitative", title: "epoch", axis: ticks },
      color: { field: "student", type: "nominal", scale: colour, legend: legend(names, stroke) },
      strokeDash: { field: "student", type: "nominal", scale: dash, legend: legend(names, stroke) },
    };
    const mark = { type: "line", point: rows.length === panel.lines.length };
    const mean = { mark: { ...mark, strokeWidth: 2 }, encoding: { y: { ...y, aggregate: "mean", field: "value" } } };
    const seeds = {
      mark: { type: "line", strokeWidth: 0.8, opacity: 0.4 },
      encoding: { y: { ...y, field: "value" }, detail: { field: "name", type: "nominal" } },
    };
    const layer = several ? [seeds, mean] : [mean];
    return chart(place(`${name}-curve-${number}`), { title: panel.title, data: { name: "rows" }, encoding, layer }, { rows });
  }

  function drawSweep(name, panel, number) {
    const names = unique([...panel.rules, ...panel.points].map((row) => row.line));
    const { colour, dash } = styles(names, kindsOf(names));
    const type = panel.numeric ? "quantitative" : "nominal";
    const xs = unique(panel.points.map((point) => point.x));
    const axis = panel.numeric ? { values: xs } : { labelAngle: xs.length > 3 ? -40 : 0 };
    const x = {
      field: "x", type, title: panel.axis, axis, sort: null,
      scale: panel.log ? { type: "log", nice: false, padding: 14 } : panel.numeric ? { zero: false, padding: 14 } : {},
    };
    const y = { field: "mean", type: "quantitative", title: panel.unit, scale: { zero: false } };
    const lines = legend(names, stroke);
    const colours = { field: "line", type: "nominal", scale: colour, legend: lines };
    const dashes = { field: "line", type: "nominal", scale: dash, legend: lines };
    const tooltip = ["line", "x", "mean", "low", "high"].map((field) => ({ field }));
    const own = { data: { name: "points" }, encoding: { x, color: colours } };
    const line = { mark: "line", encoding: { y, strokeDash: dashes } };
    const dots = { mark: { type: "point", filled: true, size: 45 }, encoding: { y, tooltip } };
    const bars = { mark: { type: "rule", strokeWidth: 1.3 }, encoding: { y: { ...y, field: "low" }, y2: { field: "high" } } };
    const rules = {
      data: { name: "rules" }, mark: { type: "rule", strokeWidth: 1.5 },
      encoding: { y, color: colours, strokeDash: dashes, tooltip: tooltip.filter(({ field }) => field !== "x") },
    };
    const spec = { title: panel.title, layer: [{ ...own, layer: panel.numeric ? [line, bars, dots] : [bars, dots] }, rules] };
    return chart(place(`${name}-sweep-${number}`), spec, { points: panel.points, rules: panel.rules });
  }

  function drawCalibration(name, found) {
    const names = found.models.map((model) => model.name);
    const { colour, dash } = styles(names, new Map(found.models.map((model) => [model.name, model.kind])));
    const nearest = (T) => {
      const far = found.grid.map((each) => Math.abs(Math.log(each / T)));
      return far.indexOf(Math.min(...far));
    };
    const rowsAt = (at) =>
      found.models.flatMap((model) =>
        model.at[at].bins.map(([confidence, right, rows]) => ({ model: model.name, confidence, right, rows }))
      );
    const axis = (field, title) => ({
      field, title, type: "quantitative", scale: { domain: [0, 1] }, axis: { format: ".0%", tickCount: 5 },
    });
    const encoding = {
      x: axis("confidence", "confidence"), y: axis("right", "right"),
      color: { field: "model", type: "nominal", scale: colour, legend: legend(names, stroke) },
    };
    const dashes = { field: "model", type: "nominal", scale: dash, legend: legend(names, stroke) };
    const tooltip = [
      { field: "model" }, { field: "rows", title: "answers" },
      { field: "confidence", format: ".3f" }, { field: "right", format: ".3f" },
    ];
    const layer = [
      {
        data: { values: [{ confidence: 0, right: 0 }, { confidence: 1, right: 1 }] },
        mark: { type: "line", color: "currentColor", opacity: 0.35, strokeWidth: 1 },
        encoding: { x: encoding.x, y: encoding.y },
      },
      {
        data: { name: "bins" }, encoding,
        layer: [
          { mark: { type: "line", strokeWidth: 2 }, encoding: { strokeDash: dashes } },
          {
            mark: { type: "point", filled: true, opacity: 0.8 },
            encoding: { size: { field: "rows", type: "quantitative", legend: null, scale: { range: [20, 220] } }, tooltip },
          },
        ],
      },
    ];
    let drawn = nearest(softlabels.temperature);
    const plot = chart(place(`${name}-calibration`), { layer, height: 300 }, { bins: rowsAt(drawn) });
    const said = root.querySelector(`[data-calibration="${name}"]`);
    onTemperature((T) => {
      const at = nearest(T);
      const errors = found.models.flatMap((model, number) => [
        number ? ", " : "", `${model.name} `,
        element("span", { "data-ece": model.at[at].ece.toFixed(4), "data-model": model.name }, model.at[at].ece.toFixed(3)),
      ]);
      const near = found.grid.length > 1 ? ` (the nearest of ${found.grid.length} that were counted)` : "";
      said.dataset.at = String(found.grid[at]);
      said.replaceChildren(
        `At T = ${found.grid[at]}${near} the expected calibration error (ECE, 15 bins) is: `,
        ...errors, "."
      );
      if (at !== drawn) plot.update("bins", rowsAt((drawn = at)));
    });
  }

  function drawClasses(name, found) {
    const names = unique(found.points.map((point) => point.model));
    const { colour } = styles(names, new Map(found.points.map((point) => [point.model, point.kind])));
    const points = found.points.map((point) => ({ ...point, labelled: found.labelled[point.place] }));
    const encoding = {
      y: { field: "class", type: "nominal", title: null, sort: { field: "place", op: "min" }, scale: { padding: 0.5 } },
      x: { field: "wrong", type: "quantitative", title: "wrong", axis: { format: ".0%", tickCount: 8 }, scale: { nice: true } },
      yOffset: { field: "model", type: "nominal", scale: { domain: names } }, // those that are equal do not hide each other
      color: { field: "model", type: "nominal", scale: colour, legend: legend(names) },
      shape: { field: "model", type: "nominal", scale: { domain: names }, legend: legend(names) },
      tooltip: [
        { field: "class" }, { field: "model" }, { field: "wrong", format: ".1%" }, { field: "labelled", title: "labelled rows" },
      ],
    };
    const height = 30 + 26 * found.shown;
    const mark = { type: "point", filled: true, size: 60, opacity: 0.9 };
    return chart(place(`${name}-classes`), { data: { name: "points" }, height, mark, encoding }, { points });
  }

  // Which run is shown; the plots of the others are drawn once they are.
  function choice() {
    const parts = [...root.querySelectorAll(".run")];
    if (parts.length < 2) return;
    const options = [
      ...parts.map((part, at) => element("option", { value: String(at) }, part.dataset.run)),
      element("option", { value: "" }, "all, one below the other"),
    ];
    const select = element("select", { id: "run-choice" }, options);
    const show = () => parts.forEach((part, at) => (part.hidden = select.value !== "" && select.value !== String(at)));
    select.addEventListener("change", show);
    parts[0].before(element("p", {}, element("label", { for: "run-choice" }, "Run "), select));
    show();
  }

  for (const [number, run] of data.runs.entries()) {
    run.curves.forEach((panel, at) => drawCurves(`run-${number}`, panel, at));
    for (const target of run.targets) {
      target.sweep.forEach((panel, at) => drawSweep(target.place, panel, at));
      if (target.calibration) drawCalibration(target.place, target.calibration);
      if (target.classes) drawClasses(target.place, target.classes);
    }
  }
  choice();
};
