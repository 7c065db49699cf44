// Points and histograms of one step.  Axes are SVG in the theme's colours; the points are a canvas,
// which stays smooth with thousands of them.
const CLOUD_HEIGHT = 372;
const BARS_HEIGHT = 171;
const REACH_PX = 16;
const POINT_SIZE = 1.25;
const SHRINK = 0.75;

// A range that grows at once and shrinks only when the data leaves much of it empty, so that the
// axes stand still while steps go by.
class Range {
  constructor({ zero = false } = {}) { this.zero = zero; }

  over(values) {
    let [low, high] = extent([values]);
    if (!(high >= low)) [low, high] = [0, 1];
    if (this.zero) low = 0;
    const pad = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.5;
    const [from, to] = [this.zero ? 0 : low - pad, high + pad];
    const fits = this.ends && from >= this.ends[0] && to <= this.ends[1]
      && to - from > SHRINK * (this.ends[1] - this.ends[0]);
    if (!fits) this.ends = [from, to];
    return this.ends;
  }
}

function scaleOf([x0, x1], [y0, y1], width, height) {
  const w = width - MARGIN.left - MARGIN.right, h = height - MARGIN.top - MARGIN.bottom;
  return {
    x0, x1, y0, y1, width, height,
    x: (value) => MARGIN.left + ((value - x0) / (x1 - x0)) * w,
    y: (value) => MARGIN.top + (1 - (value - y0) / (y1 - y0)) * h,
    value: (pixel) => x0 + ((pixel - MARGIN.left) / w) * (x1 - x0),
  };
}

function axes(scale, xLabel) {
  const { width, height } = scale, bottom = height - MARGIN.bottom, parts = [];
  const y = niceTicks(scale.y0, scale.y1, height / 45);
  for (const tick of y.ticks) {
    const at = scale.y(tick);
    parts.push(
      node("line", {
        x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at, class: "wb-grid",
      }),
      node("text", { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }, tick.toFixed(y.digits)),
    );
  }
  const x = niceTicks(scale.x0, scale.x1, Math.max(2, width / 90));
  for (const tick of x.ticks) {
    const at = scale.x(tick);
    parts.push(
      node("line", { x1: at, x2: at, y1: bottom, y2: bottom + 4, class: "wb-axis" }),
      node("text", { x: at, y: bottom + 16, "text-anchor": "middle" }, tick.toFixed(x.digits)),
    );
  }
  parts.push(
    node("line", {
      x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom, class: "wb-axis",
    }),
    node("text", {
      x: width - MARGIN.right, y: height - 4, "text-anchor": "end", class: "wb-axis-label",
    }, xLabel),
  );
  return parts;
}

const isDark = () => document.body.dataset.jpThemeLight === "false";

// As `panel.css` shows lines on dark pages: a fifth of white in each colour.
function shown(colour) {
  if (!isDark()) return colour;
  const parts = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return `rgb(${parts.map((part) => Math.round(0.8 * part + 51)).join()})`;
}

function place(tip, plot, x, y) {
  const right = x < plot.clientWidth / 2;
  tip.style.left = right ? `${x + 12}px` : "";
  tip.style.right = right ? "" : `${plot.clientWidth - x + 12}px`;
  tip.style.top = `${y}px`;
}

class Cloud {
  constructor(host, { read, hidden }) {
    this.read = read;
    this.hidden = hidden;
    this.at = null;
    this.ranges = [new Range(), new Range({ zero: true })];
    this.drawing = node("svg", { height: CLOUD_HEIGHT, class: "wb-drawing", "aria-hidden": "true" });
    this.canvas = node("canvas", { class: "wb-cloud", tabindex: 0, role: "img" });
    this.tip = node("div", { class: "wb-tip wb-sample-tip", "aria-live": "polite", hidden: "" });
    this.plot = node("div", { class: "wb-plot" }, this.drawing, this.canvas, this.tip);
    this.root = node("section", { class: "wb-chart" },
      node("div", { class: "wb-chart-title" }, node("span", {}, "Weight against loss"),
        node("span", { class: "wb-unit" }, "one point a row; weights have mean 1")), this.plot);
    host.append(this.root);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.choose(null));
    this.canvas.addEventListener("blur", () => this.choose(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  set(samples) {
    // The pointer stays where it is, but another row is under it now.
    this.samples = samples;
    this.at = null;
    this.order = samples.loss.map((_, i) => i).sort((a, b) => samples.loss[a] - samples.loss[b]);
    this.draw();
  }

  draw() {
    const width = Math.max(220, this.plot.clientWidth);
    this.drawing.setAttribute("width", width);
    if (!this.samples) return this.empty(width);
    const { loss, weight, rows, step } = this.samples;
    this.scale = scaleOf(this.ranges[0].over(loss), this.ranges[1].over(weight),
      width, CLOUD_HEIGHT);
    const one = this.scale.y(1);
    this.drawing.replaceChildren(...axes(this.scale, "loss of the row (nats per token)"),
      node("line", {
        x1: MARGIN.left, x2: width - MARGIN.right, y1: one, y2: one, class: "wb-mark",
      }));
    this.canvas.setAttribute("aria-label", `Weight against loss of ${rows} rows of step ${step}. ` +
      "Arrow keys go through the rows by their loss and read their text.");
    this.paint();
  }

  empty(width) {
    this.drawing.replaceChildren(node("text", {
      x: width / 2, y: CLOUD_HEIGHT / 2, "text-anchor": "middle", class: "wb-empty",
    }, "Appears when the first rows are in the ledger"));
  }

  paint() {
    const { width, height } = this.scale, ratio = window.devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.width = `${width}px`;
    const pen = this.canvas.getContext("2d");
    const { domains, domain, loss, weight } = this.samples;
    const paths = domains.map((each) => new Path2D(SHAPES[each.marker]));
    const colours = domains.map((each) => shown(each.colour));
    const size = POINT_SIZE * ratio;
    pen.globalAlpha = 0.75;
    for (let i = 0; i < loss.length; i++) {
      if (this.hidden.has(domains[domain[i]].name)) continue;
      pen.setTransform(size, 0, 0, size,
        this.scale.x(loss[i]) * ratio, this.scale.y(weight[i]) * ratio);
      pen.fillStyle = colours[domain[i]];
      pen.fill(paths[domain[i]]);
    }
    if (this.at !== null) this.ring(pen, ratio);
    this.drawTip();
  }

  ring(pen, ratio) {
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.globalAlpha = 1;
    pen.strokeStyle = getComputedStyle(this.plot).color;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(...this.position(this.at), 8, 0, 2 * Math.PI);
    pen.stroke();
  }

  position(i) {
    return [this.scale.x(this.samples.loss[i]), this.scale.y(this.samples.weight[i])];
  }

  visible(i) { return !this.hidden.has(this.samples.domains[this.samples.domain[i]].name); }

  point(event) {
    if (!this.samples) return;
    let nearest = null, best = REACH_PX ** 2;
    for (let i = 0; i < this.samples.loss.length; i++) {
      if (!this.visible(i)) continue;
      const [x, y] = this.position(i);
      const distance = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
      if (distance < best) [nearest, best] = [i, distance];
    }
    this.choose(nearest);
  }

  key(event) {
    if (event.key === "Escape") return this.choose(null);
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const order = this.samples && this.order.filter((i) => this.visible(i));
    if (!direction || !order?.length) return;
    event.preventDefault();
    const now = this.at === null ? -1 : order.indexOf(this.at);
    const next = now < 0 ? (direction > 0 ? 0 : order.length - 1) : now + direction;
    this.choose(order[Math.min(order.length - 1, Math.max(0, next))]);
  }

  // The row under the pointer or the keys, or of a card below the plot.
  choose(i) {
    if (i === this.at || !this.samples) return;
    this.at = i;
    this.paint();
  }

  indexOf(sample) { return this.samples.sample.indexOf(sample); }

  drawTip() {
    this.tip.hidden = this.at === null || this.quiet;
    if (this.tip.hidden) return;
    const s = this.samples, i = this.at, told = this.read(s.sample[i]);
    const text = told ? excerpt(told.text) ?? "The text is not on this machine" : "…";
    this.tip.replaceChildren(rowHead(s.domains[s.domain[i]], s.weight[i], s.loss[i]),
      node("div", { class: "wb-excerpt" }, text),
      node("div", { class: "wb-tip-step" }, `sample ${s.sample[i]}`));
    const [x, y] = this.position(i);
    place(this.tip, this.plot, x, Math.min(y, CLOUD_HEIGHT - 150));
  }
}

function excerpt(text, characters = 260) {
  if (text === null) return null;
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > characters ? `${line.slice(0, characters)} …` : line;
}

function rowHead(domain, weight, loss) {
  const mark = node("svg", { width: 12, height: 12, "aria-hidden": "true" },
    symbol({ marker: domain.marker, colour: domain.colour }, 6, 6));
  return node("div", { class: "wb-row-head" }, mark,
    node("span", { class: "wb-row-domain" }, domain.name),
    node("span", { class: "wb-row-number" }, `weight ${weight.toFixed(2)}`),
    node("span", { class: "wb-row-number" }, `loss ${loss.toFixed(2)}`));
}

class Bars {
  constructor(host, { hidden, zero }) {
    this.hidden = hidden;
    this.range = new Range({ zero });
    this.title = node("span", {});
    this.unit = node("span", { class: "wb-unit" });
    this.drawing = node("svg", {
      height: BARS_HEIGHT, tabindex: 0, role: "img", class: "wb-drawing",
    });
    this.tip = node("div", { class: "wb-tip", "aria-live": "polite", hidden: "" });
    this.plot = node("div", { class: "wb-plot" }, this.drawing, this.tip);
    this.root = node("section", { class: "wb-chart" },
      node("div", { class: "wb-chart-title" }, this.title, this.unit), this.plot);
    host.append(this.root);
    this.drawing.addEventListener("pointermove", (event) => this.point(event));
    this.drawing.addEventListener("pointerleave", () => this.choose(null));
    this.drawing.addEventListener("blur", () => this.choose(null));
    this.drawing.addEventListener("keydown", (event) => this.key(event));
  }

  set(data, domains) {
    [this.data, this.domains, this.bin] = [data, domains, null];
    this.draw();
  }

  get visible() {
    return this.domains.map((_, k) => k).filter((k) => !this.hidden.has(this.domains[k].name));
  }

  draw() {
    if (!this.data) return;
    const { edges, counts, title, unit } = this.data;
    this.title.textContent = title;
    this.unit.textContent = unit;
    const width = Math.max(220, this.plot.clientWidth), bins = edges.length - 1;
    const total = Array.from({ length: bins },
      (_, bin) => this.visible.reduce((sum, k) => sum + counts[k][bin], 0));
    this.scale = scaleOf(this.range.over([edges[0], edges[bins]]),
      [0, Math.max(1, ...total) * 1.05], width, BARS_HEIGHT);
    this.drawing.setAttribute("width", width);
    this.drawing.replaceChildren(...axes(this.scale, ""), ...this.layers());
    const most = total.indexOf(Math.max(...total));
    this.drawing.setAttribute("aria-label", `${title}, ${unit}: from ${edges[0].toFixed(2)} to ` +
      `${edges[bins].toFixed(2)}, most rows near ${edges[most].toFixed(2)}. Arrow keys read counts.`);
    this.drawTip();
  }

  // One path a domain, stacked in the order of the key.
  layers() {
    const { edges, counts } = this.data, { x, y } = this.scale;
    const below = new Array(edges.length - 1).fill(0);
    return this.visible.map((k) => {
      let path = "";
      for (let bin = 0; bin < below.length; bin++) {
        if (!counts[k][bin]) continue;
        const left = x(edges[bin]), wide = Math.max(1, x(edges[bin + 1]) - left - 1);
        const [top, bottom] = [y(below[bin] + counts[k][bin]), y(below[bin])];
        path += `M${left.toFixed(1)},${bottom.toFixed(1)}v${(top - bottom).toFixed(1)}` +
          `h${wide.toFixed(1)}v${(bottom - top).toFixed(1)}z`;
        below[bin] += counts[k][bin];
      }
      return node("path", {
        d: path, class: "wb-symbol wb-bin", style: `--wb-colour: ${this.domains[k].colour}`,
      });
    });
  }

  point(event) {
    if (!this.data) return;
    const value = this.scale.value(event.offsetX);
    const bin = this.data.edges.findIndex((edge) => edge > value) - 1;
    this.choose(bin >= 0 ? bin : null);
  }

  key(event) {
    if (event.key === "Escape") return this.choose(null);
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction || !this.data) return;
    event.preventDefault();
    const last = this.data.edges.length - 2;
    this.choose(this.bin === null ? (direction > 0 ? 0 : last)
      : Math.min(last, Math.max(0, this.bin + direction)));
  }

  choose(bin) {
    this.bin = bin;
    this.drawTip();
  }

  drawTip() {
    this.tip.hidden = this.bin === null;
    if (this.tip.hidden) return;
    const { edges, counts } = this.data, bin = this.bin;
    const found = this.visible.filter((k) => counts[k][bin]);
    this.tip.replaceChildren(
      node("div", { class: "wb-tip-step" },
        `${edges[bin].toFixed(2)} to ${edges[bin + 1].toFixed(2)}`),
      ...(found.length ? found.map((k) => node("div", {}, node("span", {}, this.domains[k].name),
        node("span", { class: "wb-value" }, `${counts[k][bin]} rows`)))
        : [node("div", {}, "no rows")]));
    place(this.tip, this.plot, this.scale.x(edges[bin]), 4);
  }
}
