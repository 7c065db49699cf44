// The mixture of a step: where it is on the simplex, and its share, reward and signal per domain.
const PATH_HEIGHT = 350;
const PATH_PAD = 40;
const MOST_ZOOM = 8;
const LETTER_PX = 6.6;
const WEAK = 1;

const percent = (share) => `${(100 * share).toFixed(1)} %`;

class Simplex {
  constructor(host) {
    this.drawing = node("svg", { height: PATH_HEIGHT, role: "img", class: "wb-drawing" });
    this.plot = node("div", { class: "wb-plot" }, this.drawing);
    this.unit = node("span", { class: "wb-unit" });
    this.closer = node("button", {
      type: "button", class: "wb-button wb-closer", "aria-pressed": "false",
      title: "Enlarge the middle until the path fills the drawing",
    }, "Zoom");
    this.closer.addEventListener("click", () => {
      this.closer.setAttribute("aria-pressed", this.closer.ariaPressed !== "true");
      this.draw();
    });
    host.append(node("section", { class: "wb-chart" },
      node("div", { class: "wb-chart-title" }, node("span", {}, "Path of the mixture"), this.unit,
        this.closer),
      this.plot, node("div", { class: "wb-said wb-path-key" },
        "Square: start. Line and dot: asked for, smoothed over the steps nearby. " +
        "Ring: asked for at this step.")));
  }

  set(path, mixture) {
    [this.path, this.mixture] = [path, mixture];
    this.draw();
  }

  draw() {
    const width = Math.max(220, this.plot.clientWidth);
    this.drawing.setAttribute("width", width);
    if (!this.path) {
      return this.drawing.replaceChildren(node("text", {
        x: width / 2, y: PATH_HEIGHT / 2, "text-anchor": "middle", class: "wb-empty",
      }, "Appears with the first recorded steps"));
    }
    const zoom = this.closer.ariaPressed === "true" ? this.zoom() : 1;
    setText(this.unit, zoom > 1 ? `${zoom} times enlarged, +: uniform`
      : "corner: one domain alone, +: uniform");
    // Names stay where their corners were: they say in which direction these are.
    this.whole = this.scaled(width, 1);
    this.enlarged = zoom > 1;
    this.scale = this.scaled(width, zoom);
    this.drawing.replaceChildren(...this.frame(), ...this.way(), ...this.labels());
    this.drawing.setAttribute("aria-label", `Mixture asked for at step ${this.mixture.step}: ` +
      this.path.domains.map(({ name }, k) => `${name} ${this.share(k)}`).join(", "));
  }

  share(k) { return percent(this.mixture.asked[k] ?? 0); }

  // In steps of a half, so that a growing path seldom changes it.
  zoom() {
    const farthest = Math.max(...this.path.points.map(([x, y]) => Math.hypot(x, y)));
    return Math.max(1, Math.min(MOST_ZOOM, Math.floor((2 * 0.8) / farthest) / 2));
  }

  // As large as height and the names at the corners leave room for.
  scaled(width, zoom) {
    const { corners, domains } = this.path;
    const room = corners.map(([x], k) => Math.abs(x) < 0.2 ? Infinity
      : (width / 2 - 12 - LETTER_PX * Math.max(domains[k].name.length, 6)) / Math.abs(x));
    const ys = corners.map(([, y]) => y), [low, high] = [Math.min(...ys), Math.max(...ys)];
    const radius = Math.max(50, Math.min((PATH_HEIGHT - 2 * PATH_PAD) / (high - low || 2), ...room));
    const middle = PATH_HEIGHT / 2 + radius * ((low + high) / 2);
    return ([x, y]) => [width / 2 + zoom * radius * x, middle - zoom * radius * y];
  }

  frame() {
    const { corners } = this.path, at = corners.map(this.scale), [x, y] = this.scale([0, 0]);
    const line = (from, to) => node("line", {
      x1: from[0], y1: from[1], x2: to[0], y2: to[1], class: "wb-grid",
    });
    const grid = corners.length === 3 ? this.quarters().map(([from, to]) => line(from, to))
      : at.map((corner) => line([x, y], corner));
    return [...grid,
      node("path", { d: `M${at.map((point) => point.join()).join("L")}z`, class: "wb-outline" }),
      node("path", { d: `M${x - 5},${y}h10M${x},${y - 5}v10`, class: "wb-outline" })];
  }

  // Lines of equal share of each domain, every quarter: they can be read off with three domains.
  quarters() {
    const lines = [];
    for (let k = 0; k < 3; k++) {
      const [top, left, right] = [0, 1, 2].map((i) => this.path.corners[(k + i) % 3]);
      for (const share of [0.25, 0.5, 0.75]) {
        const towards = (end) => this.scale(end.map((v, i) => share * top[i] + (1 - share) * v));
        lines.push([towards(left), towards(right)]);
      }
    }
    return lines;
  }

  way() {
    const { points } = this.path, so = this.soFar();
    const line = { colour: "#0072B2", dash: "solid", marker: "square" };
    const place = (point) => this.scale(point).map((v) => v.toFixed(1)).join();
    const path = (list) => `M${list.map(place).join("L")}`;
    const [x, y] = this.scale(so.at(-1)), [ownX, ownY] = this.scale(this.own());
    return [
      stroke("path", { ...line, faint: true }, { d: path(points) }),
      stroke("path", line, { d: path(so) }),
      symbol(line, ...this.scale(points[0])),
      node("line", { x1: x, y1: y, x2: ownX, y2: ownY, class: "wb-hair" }),
      node("circle", { cx: ownX, cy: ownY, r: 6, class: "wb-ring" }),
      node("circle", { cx: x, cy: y, r: 5, class: "wb-symbol wb-here" }),
    ];
  }

  // The way up to the step shown, its end between two points of the path.
  soFar() {
    const { x, points } = this.path, { step } = this.mixture;
    const after = x.findIndex((value) => value > step);
    if (after < 0) return points;
    if (after === 0) return points.slice(0, 1);
    const part = (step - x[after - 1]) / (x[after] - x[after - 1]);
    const end = points[after].map((v, i) => part * v + (1 - part) * points[after - 1][i]);
    return [...points.slice(0, after), end];
  }

  own() {
    const { asked } = this.mixture;
    return [0, 1].map((i) => this.path.corners.reduce(
      (sum, corner, k) => sum + (asked[k] ?? 0) * corner[i], 0));
  }

  labels() {
    return this.path.domains.flatMap((domain, k) => {
      const corner = this.path.corners[k], [x, y] = this.whole(corner);
      const side = Math.abs(corner[0]) < 0.2 ? 0 : Math.sign(corner[0]);
      const dy = side ? -1 : corner[1] > 0 ? -23 : 20, anchor = ["end", "middle", "start"][side + 1];
      const text = (value, line, style) => node("text", {
        x: x + 9 * side, y: y + dy + 13 * line, "text-anchor": anchor, class: style,
      }, value);
      return [...(this.enlarged ? [] : [symbol(domain, x, y)]), text(domain.name, 0, "wb-corner"),
        text(this.share(k), 1, null)];
    });
  }
}

class DomainTable {
  constructor(host) {
    this.body = node("tbody");
    this.until = node("span", {});
    const heads = [
      ["Domain", ""], ["Share", "Bar: in effect. Mark: asked for"],
      ["In effect", "Share of the rows after the floor and guaranteed rows"],
      ["Asked for", "Share that the mixer proposed"], ["Reward", "Running mean of the reward"],
      ["Signal\u00a0/ noise", "▼ below 1: the reward is mostly noise"],
    ].map(([name, title]) => node("th", { scope: "col", title },
      name, ...(name === "Share" ? [" ", this.until] : [])));
    this.until.className = "wb-unit";
    this.table = node("table", { class: "wb-domains" },
      node("thead", {}, node("tr", {}, ...heads)), this.body);
    host.append(node("section", { class: "wb-chart" },
      node("div", { class: "wb-chart-title" }, node("span", {}, "Mixture of the step"),
        node("span", { class: "wb-unit" }, "bar: in effect, mark: asked for")),
      this.table));
  }

  set({ domains, top }, mixture) {
    const names = domains.map((domain) => domain.name).join();
    if (names !== this.names) {
      this.names = names;
      this.rows = domains.map((domain) => this.row(domain));
      this.body.replaceChildren(...this.rows.map((row) => row.root));
    }
    setText(this.until, `0 to ${Math.round(100 * top)} %`);
    this.rows.forEach((row, k) => {
      const [asked, used] = [mixture.asked[k], mixture.used[k]];
      const [reward, ratio] = [mixture.reward[k], mixture.ratio[k]];
      row.bar.style.width = `${(100 * (used ?? 0)) / top}%`;
      row.mark.style.left = `${(100 * (asked ?? 0)) / top}%`;
      setText(row.used, used === null ? "–" : percent(used));
      setText(row.asked, asked === null ? "–" : percent(asked));
      setText(row.reward, reward === null ? "–" : reward.toFixed(2));
      const weak = ratio !== null && ratio < WEAK;
      setText(row.ratio, ratio === null ? "–" : `${weak ? "▼ " : ""}${ratio.toFixed(2)}`);
      row.ratio.classList.toggle("wb-weak", weak);
    });
  }

  row(domain) {
    const mark = node("svg", { width: 12, height: 12, "aria-hidden": "true" },
      symbol(domain, 6, 6));
    const cells = Object.fromEntries(
      ["used", "asked", "reward", "ratio"].map((name) => [name, node("td")]));
    const bar = node("div", { class: "wb-fill", style: `--wb-colour: ${domain.colour}` });
    const asked = node("div", { class: "wb-asked" });
    const root = node("tr", {},
      node("th", { scope: "row" }, mark, node("span", {}, domain.name)),
      node("td", { class: "wb-share", "aria-hidden": "true" },
        node("div", { class: "wb-share-bar" }, bar, asked)),
      ...Object.values(cells));
    return { root, bar, mark: asked, ...cells };
  }
}

class PolicyView extends ScrubView {
  build(host) {
    this.part = "mixture";
    super.build(host);
    const area = node("div", { class: "wb-charts wb-step" });
    this.simplex = new Simplex(area);
    this.table = new DomainTable(area);
    this.charts.push(this.simplex);
    this.missing = node("div", { class: "wb-said", hidden: "" });
    const scrub = this.buildScrub("No steps yet", "Follow the newest step");
    this.area.before(this.form, scrub, this.missing, area);
  }

  draw(frame) {
    if (frame.path) this.path = frame.path;
    super.draw(frame);
  }

  drawStep(mixture) {
    this.simplex.set(this.path, mixture);
    this.table.set(this.path, mixture);
    this.drawFacts(mixture.facts);
    setText(this.missing, mixture.missing);
    this.missing.hidden = !mixture.missing;
  }
}

export default {
  render({ model, el }) {
    const view = new PolicyView(model, el);
    return () => view.close();
  },
};
