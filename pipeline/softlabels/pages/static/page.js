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

  // Numbers of 16 bits as float32, which browsers have no arrays for everywhere.
  function halves(bits) {
    return Float32Array.from(bits, (each) => {
      const power = (each >> 10) & 31, part = each & 1023, sign = each >> 15 ? -1 : 1;
      if (power === 31) return part ? NaN : sign * Infinity;
      return sign * (power ? 2 ** (power - 15) * (1 + part / 1024) : 2 ** -14 * (part / 1024));
    });
  }

  // {"dtype", "shape", "base64"} -> typed array, with its shape
  function numbers(packed) {
    const text = atob(packed.base64), bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at); // Uint8Array.from takes ten times as long
    const found = packed.dtype === "float16" ? halves(new Uint16Array(bytes.buffer)) : new DTYPES[packed.dtype](bytes.buffer);
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
    const found = new Float64Array(logits.length);
    let most = -Infinity, sum = 0;
    for (let k = 0; k < found.length; k++) {
      found[k] = logits[k] / T;
      if (found[k] > most) most = found[k];
    }
    for (let k = 0; k < found.length; k++) sum += Math.exp(found[k] - most);
    const shift = most + Math.log(sum);
    for (let k = 0; k < found.length; k++) found[k] -= shift;
    return found;
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

  // Plots that are not drawn yet: place -> what draws it. One is drawn when it comes near the window, the others when the browser
  // has nothing else to do, and all before they are printed.
  const later = new Map();
  const near = new IntersectionObserver(
    (seen) => seen.forEach(({ target, isIntersecting }) => isIntersecting && later.get(target)?.()),
    { rootMargin: "100% 0px" }
  );
  const hasWidth = (place) => place.offsetWidth > 0; // a plot that is not shown has none, and is drawn once it is
  let rest = null; // of the drawing when there is nothing else to do, which begins after the first plots
  const appears = new ResizeObserver(() => rest && drawRest());

  // A place for a Vega-Lite specification in `root`. `data`: name -> rows, for {"data": {"name": NAME}}.
  // Gives {update(name, rows)}.
  function chart(root, spec, data) {
    const place = element("div", { class: "chart undrawn" });
    const datasets = named({ ...(spec.datasets || {}), ...(data || {}) });
    const changed = new Set(); // while it was drawn
    let view = null;
    async function embed() {
      const full = {
        $schema: "https://vega.github.io/schema/vega-lite/v6.json", // a name: nothing is fetched
        width: "container", height: 220, autosize: { type: "fit-x", contains: "padding" }, ...named(spec),
        datasets: { ...datasets },
      };
      const made = await vegaEmbed(place, full, {
        mode: "vega-lite", ast: true, actions: false, renderer: "svg", config: CONFIG, tooltip: { theme: "page" },
      });
      view = made.view;
      for (const name of changed) view.data(name, datasets[name]);
      if (changed.size) await view.runAsync();
      place.classList.remove("undrawn");
      place.querySelector("svg")?.setAttribute("aria-hidden", "true"); // its place has the label
    }
    function draw() {
      later.delete(place);
      near.unobserve(place);
      appears.unobserve(place);
      return embed().catch((error) => broken(root, error));
    }
    root.append(place);
    later.set(place, draw);
    near.observe(place);
    appears.observe(place);
    return {
      update(name, rows) {
        datasets[name] = named(rows);
        if (view) view.data(name, datasets[name]).runAsync();
        else changed.add(name);
      },
    };
  }

  const idle = () => new Promise((done) => (window.requestIdleCallback || setTimeout)(done));

  // In the order of the page: those that the window shows, or all that have a place.
  async function drawPlots(all) {
    const seen = (place) => place.getBoundingClientRect().top < innerHeight && place.getBoundingClientRect().bottom > 0;
    const next = () => [...later].find(([place]) => hasWidth(place) && (all || seen(place)));
    for (let found = next(); found; found = next()) {
      if (all) await idle();
      await later.get(found[0])?.();
    }
  }

  const drawRest = () => (rest = Promise.resolve(rest).then(() => drawPlots(true)));

  function broken(root, error) {
    root.append(element("p", { class: "broken" }, `This part could not be drawn: ${error.message}`));
    console.error(error);
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

  // At the end of the page: the bar, then each section by its script, in the order of the page: those that the window shows, and
  // their plots, and the others when the browser has nothing else to do; all of them before they are printed. The root says
  // `data-ready` once what the window shows is drawn, and `data-drawn` once everything is.
  async function begin() {
    bar();
    const left = new Set(document.querySelectorAll("section[data-script]"));
    const drawn = (root) => left.delete(root) && draw(root);
    addEventListener("beforeprint", () => {
      left.forEach(drawn);
      later.forEach((draw, place) => hasWidth(place) && draw());
    });
    const first = () => [...left].slice(0, 1).filter((root) => root.getBoundingClientRect().top < innerHeight);
    for (let [root] = first(); root; [root] = first()) drawn(root);
    await drawPlots(false);
    document.documentElement.dataset.ready = "yes";
    for (const root of [...left]) {
      await idle();
      drawn(root);
    }
    await drawRest();
    document.documentElement.dataset.drawn = "yes";
  }

  function draw(root) {
    try {
      const data = JSON.parse(document.getElementById(`data-${root.id}`).textContent);
      sections[root.dataset.script](root, data);
    } catch (error) {
      broken(root, error);
    }
  }

  return {
    sections, parts, numbers, element, chart, onTemperature, logSoftmax, within, weightsAt, begin, COLOURS,
    get temperature() {
      return temperature;
    },
  };
})();
