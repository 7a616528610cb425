"use strict";
// A split of a store: histograms, classes and pairs of classes at the slider's temperature.
(() => {
  const { element, numbers, chart, onTemperature, within, weightsAt, COLOURS } = softlabels;

  // Two neighbours among the stops, and how much the second counts.
  function between(T, stops) {
    let high = stops.findIndex((stop) => stop >= T);
    if (high < 0) high = stops.length - 1;
    const low = Math.max(0, high - (stops[high] === T ? 0 : 1));
    if (stops[high] === stops[low]) return [high, high, 0];
    const share = Math.log(T / stops[low]) / Math.log(stops[high] / stops[low]);
    return [low, high, Math.min(1, Math.max(0, share))];
  }

  // Rows {x, x2, share, voice} of a histogram, and the mean of each voice.
  function histogramAt(packed, T, stops, voices, total) {
    const [low, high, share] = between(within(T, stops), stops);
    const { bins, most } = packed;
    const rows = [];
    const means = voices.map((voice, w) => {
      const at = (stop, b) => packed.counts[(w * stops.length + stop) * bins + b];
      for (let b = 0; b < bins; b++) {
        const count = (1 - share) * at(low, b) + share * at(high, b);
        rows.push({ x: (b * most) / bins, x2: ((b + 1) * most) / bins, share: count / Math.max(1, total), voice, b });
      }
      if (w) rows.push({ ...rows[rows.length - 1], x: most, x2: most, b: bins }); // the end of the last step
      const mean = (stop) => packed.means[w * stops.length + stop];
      return (1 - share) * mean(low) + share * mean(high);
    });
    return { rows, means };
  }

  function histogramSpec(title, voices, what) {
    const domain = voices;
    const range = ["currentColor", ...voices.slice(1).map((_, m) => COLOURS[m % COLOURS.length])];
    const x = { field: "x", type: "quantitative", title, axis: { grid: false } };
    const y = { field: "share", type: "quantitative", title: `share of ${what}`, axis: { format: "%", tickCount: 4 } };
    const color = { field: "voice", type: "nominal", title: null, scale: { domain, range } };
    const legend = voices.length > 1 ? { ...color, legend: { symbolType: "square", symbolOpacity: 1 } } : { ...color, legend: null };
    const members = {
      transform: [{ filter: { not: { field: "voice", equal: voices[0] } } }],
      mark: { type: "line", interpolate: "step-after", strokeWidth: 1.5 },
      encoding: { x, y, order: { field: "b" } },
    };
    return {
      data: { name: "bins" },
      encoding: { color: legend },
      layer: [
        {
          transform: [{ filter: { field: "voice", equal: voices[0] } }],
          mark: { type: "rect", opacity: 0.35, tooltip: true },
          encoding: {
            x, x2: { field: "x2" }, y, y2: { datum: 0 },
            tooltip: [
              { field: "x", type: "quantitative", title: "from", format: ".3f" },
              { field: "x2", type: "quantitative", title: "to", format: ".3f" },
              { field: "share", type: "quantitative", format: ".2%" },
            ],
          },
        },
        ...(voices.length > 1 ? [members] : []),
      ],
    };
  }

  function histogram(root, name, target, title) {
    const packed = { ...target[name], counts: numbers(target[name].counts), means: numbers(target[name].means) };
    const at = (T) => histogramAt(packed, T, target.stops, target.voices, target.positions);
    const drawn = chart(
      root.querySelector(`[data-plot="${name}"]`),
      histogramSpec(title, target.voices, target.what),
      { bins: at(softlabels.temperature).rows }
    );
    onTemperature((T) => {
      const found = at(T);
      drawn.update("bins", found.rows);
      found.means.forEach((mean, w) => {
        const place = root.querySelector(`[data-mean="${name}-${w}"]`);
        if (place) place.textContent = mean.toFixed(4);
      });
    });
  }

  const mixed = (packed, width, weights, i) => {
    let sum = 0;
    for (let j = 0; j < weights.length; j++) sum += weights[j] * packed[j * width + i];
    return sum;
  };

  function classes(root, target) {
    const { names } = target.classes;
    const mass = numbers(target.classes.mass);
    const hard = target.classes.hard ? numbers(target.classes.hard) : null;
    const rowsAt = (T) => {
      const weights = weightsAt(T, target.nodes);
      return names.map((name, i) => ({
        i, name, hard: hard ? hard[i] : 0, teacher: Math.max(0, mixed(mass, names.length, weights, i)),
      }));
    };
    const y = {
      field: "i", type: "ordinal", title: null, sort: null,
      axis: { labelExpr: "names[datum.value]", ticks: false, domain: false },
    };
    const axis = { format: "%", tickCount: 5, orient: "top" };
    const tooltip = [
      { field: "name", title: "class" },
      ...(hard ? [{ field: "hard", type: "quantitative", format: ".2%", title: "hard labels" }] : []),
      { field: "teacher", type: "quantitative", format: ".2%" },
    ];
    const bars = {
      mark: { type: "bar", color: "currentColor", opacity: 0.25, height: { band: 0.75 } },
      encoding: { y, x: { field: "hard", type: "quantitative", title: null, axis }, tooltip },
    };
    const drawn = chart(
      root.querySelector('[data-plot="classes"]'),
      {
        height: 18 * names.length,
        params: [{ name: "names", value: names }], // a value: in an expression a name would be code
        data: { name: "classes" },
        layer: [
          ...(hard ? [bars] : []),
          {
            mark: { type: "point", filled: true, size: 70, color: COLOURS[0], opacity: 1 },
            encoding: { y, x: { field: "teacher", type: "quantitative", title: null, axis }, tooltip },
          },
        ],
      },
      { classes: rowsAt(softlabels.temperature) }
    );
    onTemperature((T) => drawn.update("classes", rowsAt(T)));
  }

  function squareSpec(names, most, flags) {
    const step = names.length > 20 ? 14 : 26;
    const axis = (orient) => ({
      orient, labelExpr: "names[datum.value]", ticks: false, domain: false, grid: false,
      labelAngle: orient === "top" && names.some((name) => name.length > 3) ? -60 : 0, labelLimit: 110, labelOverlap: false,
    });
    return {
      width: { step }, height: { step }, autosize: "pad",
      params: [{ name: "names", value: names }],
      data: { name: "pairs" },
      mark: { type: "rect", color: COLOURS[0], stroke: "currentColor", strokeOpacity: 0.15, strokeWidth: 0.5 },
      encoding: {
        x: { field: "j", type: "ordinal", title: flags ? null : "other class", axis: axis("top"), scale: { domain: names.map((_, i) => i) } },
        y: { field: "i", type: "ordinal", title: flags ? null : "most probable class", axis: axis("left"), scale: { domain: names.map((_, i) => i) } },
        fillOpacity: { field: "p", type: "quantitative", scale: { type: "sqrt", domain: [0, most], clamp: true }, legend: null },
        tooltip: [
          { field: "first", title: flags ? "class" : "most probable" },
          { field: "second", title: flags ? "and" : "other" },
          { field: "p", type: "quantitative", format: ".4f", title: "mean" },
        ],
      },
    };
  }

  function pairs(root, target) {
    const { ids, names } = target.pairs;
    const flags = target.kind === "sigmoid";
    const list = numbers(target.pairs.pairs);
    const joint = numbers(target.pairs.joint);
    const tops = numbers(target.pairs.tops);
    const place = new Map(ids.map((id, at) => [id, at]));
    const count = list.length / 2;
    const rowsAt = (T) => {
      const weights = weightsAt(T, target.nodes);
      return Array.from({ length: count }, (_, k) => {
        const [i, j] = [place.get(list[2 * k]), place.get(list[2 * k + 1])];
        return { i, j, first: names[i], second: names[j], p: Math.max(0, mixed(joint, count, weights, k)), rows: tops[i] };
      });
    };
    const body = root.querySelector('[data-table="pairs"]');
    onTemperature((T) => {
      const weight = (row) => (flags ? row.p : row.p * row.rows);
      const rows = rowsAt(T).sort((a, b) => weight(b) - weight(a)).slice(0, 10);
      body.replaceChildren(
        ...rows.map((row) => {
          const number = (text) => element("td", { class: "number" }, text);
          if (flags) return element("tr", {}, element("td", {}, `${row.first}, ${row.second}`), number(row.p.toFixed(4)));
          const cells = [element("td", {}, row.first), element("td", {}, row.second)];
          return element("tr", {}, ...cells, number(row.p.toFixed(4)), number(row.rows.toLocaleString("en")));
        })
      );
    });
    const square = root.querySelector('[data-plot="square"]');
    if (!square || !count) return;
    let most = 1e-6; // one scale for all temperatures, so that a move of the slider is seen
    for (const p of joint) if (p > most) most = p;
    const drawn = chart(square, squareSpec(names, most, flags), { pairs: rowsAt(softlabels.temperature) });
    onTemperature((T) => drawn.update("pairs", rowsAt(T)));
  }

  function members(root, target) {
    const place = root.querySelector('[data-mean="apart"]');
    if (!place || !target.apart) return;
    const apart = numbers(target.apart);
    onTemperature((T) => {
      const weights = weightsAt(T, target.nodes);
      place.textContent = Math.max(0, mixed(apart, 1, weights, 0)).toFixed(4);
    });
  }

  function values(root, target) {
    const place = root.querySelector('[data-plot="values"]');
    place.classList.add("grid");
    for (const { name, edges, teacher, hard } of target.outputs) {
      const rows = (of, shares) => shares.map((share, b) => ({ of, x: edges[b], x2: edges[b + 1], share, b }));
      const all = [...rows("teacher", teacher), ...(hard ? rows("hard values", hard) : [])];
      const x = { field: "x", type: "quantitative", title: name, scale: { zero: false }, axis: { grid: false } };
      const y = { field: "share", type: "quantitative", title: "share", axis: { format: "%", tickCount: 3 } };
      const part = element("div", {});
      place.append(part);
      const beside = {
        transform: [{ filter: "datum.of !== 'teacher'" }],
        mark: { type: "line", interpolate: "step-after", strokeWidth: 1.5 },
        encoding: { x, y, order: { field: "b" } },
      };
      const scale = { domain: ["teacher", "hard values"], range: ["currentColor", COLOURS[1]] };
      const color = { field: "of", type: "nominal", title: null, scale, legend: hard ? {} : null };
      chart(part, {
        height: 150,
        data: { name: "bins" },
        encoding: { color },
        layer: [
          { transform: [{ filter: "datum.of === 'teacher'" }], mark: { type: "rect", opacity: 0.35 }, encoding: { x, x2: { field: "x2" }, y, y2: { datum: 0 } } },
          ...(hard ? [beside] : []),
        ],
      }, { bins: all });
    }
  }

  function draw(root, target) {
    if (target.kind === "values") {
      values(root, target);
      return;
    }
    members(root, target);
    histogram(root, "entropy", target, "entropy, nats");
    histogram(root, "top", target, "largest probability");
    classes(root, target);
    pairs(root, target);
  }

  softlabels.sections.store = (root, data) => {
    const blocks = [...root.querySelectorAll("[data-target]")];
    const drawn = new Set();
    const show = (number) => {
      blocks.forEach((block, at) => (block.hidden = at !== number));
      if (drawn.has(number)) return;
      drawn.add(number); // its plots take the width of what is seen
      draw(blocks[number], data.targets[number]);
    };
    const choice = root.querySelector('[data-choice="target"]');
    if (choice) choice.addEventListener("change", () => show(Number(choice.value)));
    show(0);
  };
})();
