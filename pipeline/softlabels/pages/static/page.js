"use strict";
// What every section's script uses. Texts of the store reach the page by textContent alone.
const softlabels = (() => {
  const sections = {}, parts = {};
  const listeners = [];
  const DTYPES = { float32: Float32Array, uint8: Uint8Array, uint16: Uint16Array, int32: Int32Array };
  // Okabe and Ito's colours, which colour-blind readers tell apart; black and yellow vanish in one of the two modes.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
  let temperature = 1;
  let waiting = false;

  // {"dtype", "shape", "base64"} -> typed array, with its shape
  function numbers(packed) {
    const bytes = Uint8Array.from(atob(packed.base64), (each) => each.charCodeAt(0));
    const found = new DTYPES[packed.dtype](bytes.buffer);
    found.shape = packed.shape;
    return found;
  }

  // An element with attributes; children are elements or texts. "on..." attributes are functions.
  function element(tag, attributes, ...children) {
    const svg = tag.startsWith("svg:");
    const found = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
      else if (value === true) found.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) found.setAttribute(name, String(value));
    }
    for (const child of children.flat()) {
      if (child === null || child === undefined) continue;
      found.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
    return found;
  }

  // log softmax(logits / T), in float64; -Infinity stays
  function logSoftmax(logits, T) {
    const found = Float64Array.from(logits, (z) => z / T);
    let most = -Infinity;
    for (const z of found) if (z > most) most = z;
    let sum = 0;
    for (const z of found) sum += Math.exp(z - most);
    const shift = most + Math.log(sum);
    return found.map((z) => z - shift);
  }

  // T, or the end next to it of what an ascending list spans.
  const within = (T, list) => Math.min(list[list.length - 1], Math.max(list[0], T));

  // What each of some nodes, Chebyshev's in log T, counts for at T: the barycentric formula. Beyond them the end counts.
  function weightsAt(T, nodes) {
    const x = Math.log(within(T, nodes));
    const exact = nodes.findIndex((node) => Math.abs(x - Math.log(node)) < 1e-9);
    if (exact >= 0) return nodes.map((_, j) => (j === exact ? 1 : 0));
    const last = nodes.length - 1;
    const parts = nodes.map((node, j) => ((j % 2 ? -1 : 1) * (j === 0 || j === last ? 0.5 : 1)) / (x - Math.log(node)));
    const sum = parts.reduce((a, b) => a + b, 0);
    return parts.map((part) => part / sum);
  }

  // Colours are those of the page's text, so that a plot follows light, dark and print without being drawn again.
  const CONFIG = {
    background: "transparent",
    font: "system-ui, sans-serif",
    axis: {
      labelColor: "currentColor", titleColor: "currentColor", domainColor: "currentColor", tickColor: "currentColor",
      gridColor: "currentColor", gridOpacity: 0.12, domainOpacity: 0.4, tickOpacity: 0.4,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelLimit: 160,
    },
    axisX: { labelFlush: false, labelSeparation: 6 },
    header: { labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 12, titleFontWeight: "normal" },
    legend: {
      labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 12, titleFontSize: 12,
      titleFontWeight: "normal", orient: "bottom", columns: 3, labelLimit: 160, symbolStrokeWidth: 2, symbolOpacity: 1,
    },
    title: { color: "currentColor", fontWeight: "normal", fontSize: 12, anchor: "start" },
    text: { color: "currentColor", fontSize: 12 },
    rule: { color: "currentColor" },
    view: { stroke: null },
    range: { category: COLOURS },
  };

  // Vega looks groups up by their names in plain objects: a class called "constructor" gets a mark that is not seen.
  function named(value) {
    if (typeof value === "string") return value in {} ? value + "\u200b" : value;
    if (Array.isArray(value)) return value.map(named);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, named(each)]));
  }

  // Draw a Vega-Lite specification in `root`. `data`: name -> rows, for {"data": {"name": NAME}}.
  // The promise gives {update(name, rows), view}.
  async function chart(root, spec, data) {
    const place = element("div", { class: "chart" });
    root.append(place);
    const full = {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json", // a name: nothing is fetched
      width: "container", height: 220, autosize: { type: "fit-x", contains: "padding" },
      ...named(spec),
      datasets: named({ ...(spec.datasets || {}), ...(data || {}) }),
    };
    const { view } = await vegaEmbed(place, full, {
      mode: "vega-lite", ast: true, actions: false, renderer: "svg", config: CONFIG, tooltip: { theme: "page" },
    });
    const drawn = place.querySelector("svg");
    if (drawn) drawn.setAttribute("aria-hidden", "true"); // its place has the label
    return {
      view,
      update(name, rows) {
        view.data(name, named(rows));
        return view.runAsync();
      },
    };
  }

  // `listener` is called with T now, and with each new one, at most once a frame.
  function onTemperature(listener) {
    listeners.push(listener);
    listener(temperature);
  }

  function tell() {
    waiting = false;
    document.documentElement.dataset.temperature = String(temperature);
    for (const listener of listeners) listener(temperature);
  }

  function bar() {
    const range = document.getElementById("temperature");
    if (!range) return;
    const number = document.getElementById("temperature-number");
    const { least, most, at } = Object.fromEntries(
      ["least", "most", "at"].map((name) => [name, Number(range.dataset[name])])
    );
    const steps = Number(range.max);
    const round = (T) => Number(T.toPrecision(3));
    const placed = (T) => (most > least ? (steps * Math.log(T / least)) / Math.log(most / least) : 0);

    function set(T, from) {
      temperature = Math.min(most, Math.max(least, T));
      if (from !== range) range.value = String(Math.round(placed(temperature)));
      if (from !== number) number.value = String(temperature);
      range.setAttribute("aria-valuetext", `T = ${temperature}`);
      if (!waiting) {
        waiting = true;
        requestAnimationFrame(tell);
      }
    }

    temperature = at;
    document.documentElement.dataset.temperature = String(at);
    range.value = String(Math.round(placed(at)));
    number.value = String(at);
    range.setAttribute("aria-valuetext", `T = ${at}`);
    range.addEventListener("input", () => {
      set(round(least * Math.pow(most / least, Number(range.value) / steps)), range);
    });
    number.addEventListener("input", () => {
      const T = Number(number.value);
      if (T >= least && T <= most) set(T, number);
    });
    number.addEventListener("change", () => set(Number(number.value) || temperature, null));
    document.getElementById("temperature-bar").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => {
      if (range.disabled || (event.altKey || event.ctrlKey || event.metaKey) && !event.getModifierState("AltGraph")) return;
      if (event.target.closest("textarea, select, input:not([type=range])")) return;
      const step = { "[": -1, "]": 1 }[event.key];
      if (step) set(round(temperature * Math.pow(most / least, step / 20)), null);
    });
  }

  // At the end of the page: the bar, then each section by its script. The root says `data-drawn` once all are there.
  async function begin() {
    bar();
    await Promise.all([...document.querySelectorAll("section[data-script]")].map(draw));
    document.documentElement.dataset.drawn = "yes";
  }

  async function draw(root) {
    try {
      const data = JSON.parse(document.getElementById(`data-${root.id}`).textContent);
      await sections[root.dataset.script](root, data);
    } catch (error) {
      root.append(element("p", { class: "broken" }, `This part could not be drawn: ${error.message}`));
      console.error(error);
    }
  }

  return {
    sections, parts, numbers, element, chart, onTemperature, logSoftmax, within, weightsAt, begin, COLOURS,
    get temperature() {
      return temperature;
    },
  };
})();
