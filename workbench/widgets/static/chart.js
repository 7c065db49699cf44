// A line chart in SVG; with `log`, values are logarithms to base 10.  Text and grid take their colours from the theme through CSS, so switching
// between light and dark needs no redraw.
const MARGIN = { top: 10, right: 14, bottom: 34, left: 44 };
const HEIGHT = 232;
const MOST_MARKERS = 40;

function node(tag, attributes = {}, ...children) {
  const drawn = ["svg", "g", "path", "line", "text", "circle", "rect"].includes(tag);
  const made = drawn
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function niceTicks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const thousands = (value) => Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");

function extent(lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) {
    for (const value of list) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return [low, high];
}

// Names of Plotly's dashes and symbols, so that the figures drawn afterwards look the same.
const DASHES = {
  solid: null, dash: "7 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "11 4",
  longdashdot: "11 3 2 3",
};
const SHAPES = {
  circle: "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0z",
  square: "M-2.7,-2.7h5.4v5.4h-5.4z",
  diamond: "M0,-3.8l3.8,3.8l-3.8,3.8l-3.8,-3.8z",
  "triangle-up": "M0,-3.6l3.6,6.2h-7.2z",
  "triangle-down": "M0,3.6l3.6,-6.2h-7.2z",
  cross: "M-1.2,-3.5h2.4v2.3h2.3v2.4h-2.3v2.3h-2.4v-2.3h-2.3v-2.4h2.3z",
  x: "M-3.4,-1.9l1.5,-1.5l1.9,1.9l1.9,-1.9l1.5,1.5l-1.9,1.9l1.9,1.9l-1.5,1.5l-1.9,-1.9" +
    "l-1.9,1.9l-1.5,-1.5l1.9,-1.9z",
  star: "M0,-4.2l1.2,2.8h3l-2.4,2l0.9,3l-2.7,-1.8l-2.7,1.8l0.9,-3l-2.4,-2h3z",
};

// The theme decides how a line's colour is shown, so only the colour's name is set here.
function stroke(tag, line, attributes) {
  return node(tag, {
    class: line.faint ? "wb-line wb-faint" : "wb-line", style: `--wb-colour: ${line.colour}`,
    "stroke-dasharray": DASHES[line.dash], ...attributes,
  });
}

function symbol(line, x, y) {
  return node("path", {
    d: SHAPES[line.marker], class: "wb-symbol", style: `--wb-colour: ${line.colour}`,
    transform: `translate(${x},${y})`,
  });
}

function sample(line) {
  const drawing = node("svg", { width: 24, height: 10, "aria-hidden": "true" },
    stroke("line", line, { x1: 0, x2: 24, y1: 5, y2: 5 }));
  if (line.marker) drawing.append(symbol(line, 12, 5));
  return drawing;
}

class Chart {
  constructor(host) {
    this.data = null;
    this.hidden = new Set();
    this.group = null;
    this.cursor = null;
    this.choice = node("select", { class: "wb-group", "aria-label": "Domain shown" });
    this.choice.addEventListener("change", () => { this.group = this.choice.value; this.draw(); });
    this.heading = node("div", { class: "wb-chart-title" });
    this.legend = node("div", { class: "wb-legend" });
    this.drawing = node("svg", {
      height: HEIGHT, tabindex: 0, role: "img", class: "wb-drawing",
    });
    this.tip = node("div", { class: "wb-tip", "aria-live": "polite", hidden: "" });
    this.plot = node("div", { class: "wb-plot" }, this.drawing, this.tip);
    this.root = node("section", { class: "wb-chart" }, this.heading, this.plot, this.legend);
    host.append(this.root);
    this.drawing.addEventListener("pointermove", (event) => this.point(event));
    this.drawing.addEventListener("pointerleave", () => this.move(null));
    this.drawing.addEventListener("blur", () => this.move(null));
    this.drawing.addEventListener("keydown", (event) => this.key(event));
  }

  set(data) {
    this.data = data;
    const groups = [...new Set(data.lines.map((line) => line.group).filter(Boolean))];
    if (groups.join() !== this.groups?.join()) {
      this.groups = groups;
      this.choice.replaceChildren(...groups.map((g) => node("option", { value: g }, g)));
      if (!groups.includes(this.group)) this.group = groups[0] ?? null;
    }
    this.draw();
  }

  get lines() {
    return this.data.lines.filter((line) => !line.group || line.group === this.group);
  }

  told(value, digits) {
    return this.data.log ? String(+(10 ** value).toPrecision(2)) : value.toFixed(digits);
  }

  // A faint line behind one of the same name is listed and read with it.
  get listed() {
    const bold = new Set(this.lines.filter((line) => !line.faint).map((line) => line.name));
    return this.lines.filter((line) => !line.faint || !bold.has(line.name));
  }

  get shown() { return this.lines.filter((line) => !this.hidden.has(line.name)); }

  draw() {
    const data = this.data;
    if (!data) return;
    this.heading.replaceChildren(
      node("span", {}, data.title), node("span", { class: "wb-unit" }, data.unit),
      ...(this.groups.length ? [this.choice] : []),
    );
    this.drawLegend();
    const width = Math.max(220, this.plot.clientWidth);
    this.drawing.setAttribute("width", width);
    this.drawing.replaceChildren();
    if (!this.shown.some((line) => line.x.length)) {
      this.scale = null;
      const text = this.lines.length ? "Every line is hidden" : data.empty;
      this.drawing.append(node("text", {
        x: width / 2, y: HEIGHT / 2, "text-anchor": "middle", class: "wb-empty",
      }, text));
      return this.drawing.setAttribute("aria-label", `${data.title}: ${text}`);
    }
    this.scale = this.scaled(width);
    this.drawAxes(width);
    this.drawMarks();
    for (const line of this.shown) this.drawLine(line);
    this.drawCursor();
    const last = this.shown.filter((line) => !line.faint && line.y.at(-1) !== null)
      .map((line) => `${line.name} ${this.told(line.y.at(-1), 4)}`);
    this.drawing.setAttribute("aria-label",
      `${data.title} in ${data.unit}, last values: ${last.join(", ")}. Arrow keys read values.`);
  }

  scaled(width) {
    const x0 = 0, x1 = this.data.x_end;
    let [y0, y1] = extent(this.shown.map((line) => line.y));
    if (!(y1 >= y0)) [y0, y1] = [0, 1];
    const pad = (y1 - y0) * 0.06 || Math.abs(y1) * 0.05 || 1;
    [y0, y1] = [y0 - pad, y1 + pad];
    const right = Math.max(x1, x0 + 1);
    const inner = { w: width - MARGIN.left - MARGIN.right, h: HEIGHT - MARGIN.top - MARGIN.bottom };
    return {
      x0, x1: right, y0, y1,
      x: (value) => MARGIN.left + ((value - x0) / (right - x0)) * inner.w,
      y: (value) => MARGIN.top + (1 - (value - y0) / (y1 - y0)) * inner.h,
      step: (pixel) => x0 + ((pixel - MARGIN.left) / inner.w) * (right - x0),
    };
  }

  drawAxes(width) {
    const s = this.scale, bottom = HEIGHT - MARGIN.bottom;
    const y = niceTicks(s.y0, s.y1, 7);
    for (const tick of y.ticks) {
      const at = s.y(tick);
      this.drawing.append(
        node("line", {
          x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at, class: "wb-grid",
        }),
        node("text", { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" },
          this.told(tick, y.digits)),
      );
    }
    const x = niceTicks(s.x0, s.x1, Math.max(2, width / 90));
    for (const tick of x.ticks.filter(Number.isInteger)) {
      this.drawing.append(
        node("line", { x1: s.x(tick), x2: s.x(tick), y1: bottom, y2: bottom + 4, class: "wb-axis" }),
        node("text", { x: s.x(tick), y: bottom + 16, "text-anchor": "middle" }, thousands(tick)),
      );
    }
    this.drawing.append(
      node("line", {
        x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom, class: "wb-axis",
      }),
      node("text", {
        x: width - MARGIN.right, y: HEIGHT - 4, "text-anchor": "end", class: "wb-axis-label",
      }, this.data.x_label),
    );
  }

  drawMarks() {
    const { rule } = this.data, { x0, x1, y0, y1 } = this.scale;
    if (rule >= y0 && rule <= y1) {
      const y = this.scale.y(rule);
      this.drawing.append(node("line", {
        x1: this.scale.x(x0), x2: this.scale.x(x1), y1: y, y2: y, class: "wb-mark",
      }));
    }
    if (this.at !== undefined) {
      const x = this.scale.x(this.at);
      this.drawing.append(node("line", {
        x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "wb-at",
      }));
    }
    const byStep = new Map();
    for (const { step, text } of this.data.marks) {
      byStep.set(step, [...(byStep.get(step) ?? []), text]);
    }
    let row = 0;
    for (const [step, texts] of byStep) {
      const at = this.scale.x(step);
      const left = at > this.scale.x(this.scale.x1) - 110;
      this.drawing.append(
        node("line", { x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "wb-mark" }),
        node("text", {
          x: at + (left ? -4 : 4), y: MARGIN.top + 9 + 13 * (row++ % 3), class: "wb-mark-text",
          "text-anchor": left ? "end" : "start",
        }, texts.join("; ")),
      );
    }
  }

  drawLine(line) {
    const { x, y } = this.scale;
    let path = "", pen = "M";
    for (let i = 0; i < line.x.length; i++) {
      if (line.y[i] === null) { pen = "M"; continue; }
      path += `${pen}${x(line.x[i]).toFixed(1)},${y(line.y[i]).toFixed(1)}`;
      pen = "L";
    }
    this.drawing.append(stroke("path", line, { d: path }));
    if (!line.marker) return;
    const every = Math.ceil(line.x.length / MOST_MARKERS);
    for (let i = 0; i < line.x.length; i += every) {
      if (line.y[i] === null) continue;
      this.drawing.append(symbol(line, x(line.x[i]).toFixed(1), y(line.y[i]).toFixed(1)));
    }
  }

  drawLegend() {
    // Rebuilt only when the lines change, so that a focused button keeps the focus.
    const lines = this.listed, names = lines.map((line) => line.name).join();
    if (names !== this.legendNames) {
      this.legendNames = names;
      this.entries = lines.map((line) => this.legendEntry(line));
      this.legend.replaceChildren(...this.entries.map((entry) => entry.button));
    }
    lines.forEach((line, i) => {
      const value = line.y.at(-1);
      this.entries[i].value.textContent = line.faint || value == null ? "" : this.told(value, 2);
      this.entries[i].button.setAttribute("aria-pressed", !this.hidden.has(line.name));
    });
  }

  legendEntry(line) {
    const value = node("span", { class: "wb-value" });
    const button = node("button", {
      type: "button", class: "wb-key", title: `Show or hide ${line.name}`,
    }, sample(line), node("span", {}, line.name), value);
    button.addEventListener("click", () => {
      if (!this.hidden.delete(line.name)) this.hidden.add(line.name);
      this.draw();
    });
    return { button, value };
  }

  point(event) {
    if (this.scale) this.move(this.scale.step(event.offsetX));
  }

  key(event) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") return this.move(null);
    if (!direction) return;
    // The notebook would take the arrow keys for itself.
    event.stopPropagation();
    if (!this.scale) return;
    event.preventDefault();
    const { x0, x1 } = this.scale;
    this.move((this.cursor ?? x1) + (direction * (x1 - x0)) / 50);
  }

  move(step) {
    const { x0, x1 } = this.scale ?? {};
    this.cursor = step === null ? null : Math.min(x1, Math.max(x0, step));
    this.drawCursor();
  }

  drawCursor() {
    this.hair?.remove();
    this.tip.hidden = this.cursor === null || !this.scale;
    if (this.tip.hidden) return;
    const nearest = (line) => {
      let low = 0, high = line.x.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (line.x[middle] < this.cursor) low = middle + 1; else high = middle;
      }
      const before = Math.max(0, low - 1);
      return this.cursor - line.x[before] < line.x[low] - this.cursor ? before : low;
    };
    const found = this.listed
      .filter((line) => line.x.length && !this.hidden.has(line.name))
      .map((line) => ({ line, i: nearest(line) }));
    const step = found[0].line.x[found[0].i], at = this.scale.x(step);
    this.hair = node("line", {
      x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "wb-hair",
    });
    this.drawing.append(this.hair);
    this.tip.replaceChildren(node("div", { class: "wb-tip-step" }, `step ${thousands(step)}`),
      ...found.map(({ line, i }) => node("div", {}, sample(line),
        node("span", {}, line.name),
        node("span", { class: "wb-value" }, line.y[i] === null ? "–" : this.told(line.y[i], 3)))));
    const right = at < this.plot.clientWidth / 2;
    this.tip.style.left = right ? `${at + 10}px` : "";
    this.tip.style.right = right ? "" : `${this.plot.clientWidth - at + 10}px`;
  }
}
