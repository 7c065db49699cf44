// Losses with their intervals, a row each, redrawn whenever the kernel has computed new ones.
const ROW = 30, AXIS = 40, NAME_PART = 0.22, TOLD = 170;

class Intervals {
  constructor(host) {
    this.drawing = node("svg", { class: "wb-drawing", role: "img" });
    host.append(this.drawing);
    this.host = host;
  }

  draw(data) {
    const width = Math.max(420, this.host.clientWidth), bottom = 8 + ROW * data.rows.length;
    const left = Math.max(90, width * NAME_PART), right = width - TOLD;
    const [low, high] = data.range;
    this.x = (value) => left + ((value - low) / (high - low)) * (right - left);
    this.drawing.setAttribute("width", width);
    this.drawing.setAttribute("height", bottom + AXIS);
    this.drawing.setAttribute("aria-label", `${data.title}: ` +
      data.rows.map((row) => `${row.name} ${row.told}`).join(", "));
    this.drawing.replaceChildren(...this.axis(data, left, right, bottom),
      ...data.rows.flatMap((row, i) => this.row(row, 8 + ROW * (i + 0.5), data, left, right)));
  }

  axis(data, left, right, bottom) {
    const [low, high] = data.range;
    const { ticks, digits } = niceTicks(low, high, Math.max(2, (right - left) / 60));
    return [
      ...ticks.flatMap((tick) => [
        node("line", {
          x1: this.x(tick), x2: this.x(tick), y1: 4, y2: bottom, class: tick ? "wb-grid" : "wb-axis",
        }),
        node("text", { x: this.x(tick), y: bottom + 15, "text-anchor": "middle" },
          `${tick > 0 ? "+" : ""}${tick.toFixed(digits)}`),
      ]),
      node("text", { x: right, y: bottom + 33, "text-anchor": "end" }, data.x_label),
    ];
  }

  row(row, y, data, left, right) {
    const style = `--wb-colour: ${data.colour}`, end = { y1: y - 5, y2: y + 5 };
    const whisker = (attributes) => node("line", {
      class: "wb-line wb-whisker", style, y1: y, y2: y, ...attributes,
    });
    const name = node("text", { x: left - 10, y: y + 4, "text-anchor": "end", class: "wb-row-name" });
    const most = Math.floor((left - 14) / 7);
    name.append(row.name.length > most ? `${row.name.slice(0, most - 1)}…` : row.name,
      node("title", {}, row.name));
    return [
      name,
      ...row.seen.map((value) => node("circle", {
        cx: this.x(value), cy: y, r: 2.5, class: "wb-seen",
      })),
      whisker({ x1: this.x(row.low), x2: this.x(row.high), "stroke-dasharray": data.dash }),
      whisker({ x1: this.x(row.low), x2: this.x(row.low), ...end }),
      whisker({ x1: this.x(row.high), x2: this.x(row.high), ...end }),
      node("path", {
        d: SHAPES[data.marker], class: "wb-symbol", style,
        transform: `translate(${this.x(row.at)},${y}) scale(1.6)`,
      }),
      node("text", { x: right + 14, y: y + 4, class: "wb-told" }, row.told),
    ];
  }
}

function render({ model, el }) {
  const heading = node("div", { class: "wb-chart-title" });
  const area = node("div", { class: "wb-intervals" });
  el.append(node("div", { class: "wb-panel" }, heading, area));
  const chart = new Intervals(area);
  const draw = () => {
    const data = model.get("chart");
    heading.replaceChildren(node("span", {}, data.title),
      node("span", { class: "wb-unit" }, data.unit));
    chart.draw(data);
  };
  const observer = new ResizeObserver(draw);
  model.on("change:chart", draw);
  observer.observe(area);
  return () => {
    observer.disconnect();
    model.off("change:chart", draw);
  };
}

export default { render };
