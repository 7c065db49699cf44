// A map of many points on a canvas, to zoom, move and draw a lasso on.  Many points are written as
// pixels (measured by benchmarks/cluster_map.py); few get shapes.  What follows the pointer is drawn
// on a second canvas, so that pointing paints no points.
const MAP_HEIGHT = 440;
const NEAR_PX = 14;
const MOST_SHAPES = 5000;
const ZOOM_STEP = 1.5;
const MOST_ZOOM_IN = 400;
const STRIDE = 7919;
const [FADED, PLAIN, LIT, UNSEEN] = [0, 1, 2, 3];

class PointMap {
  constructor(host, { point, brush }) {
    this.told = { point, brush };
    this.pool = null;
    this.at = null;
    this.lasso = null;
    this.canvas = node("canvas", { class: "wb-points" });
    this.over = node("canvas", {
      class: "wb-points wb-over", tabindex: 0, role: "application",
      "aria-label": "Map of the pool. Plus, minus and 0 zoom, arrow keys move and read the row in " +
        "the middle, drag with Shift or the lasso button selects, Escape clears.",
    });
    this.tip = node("div", { class: "wb-tip wb-sample-tip", "aria-live": "polite", hidden: "" });
    this.plot = node("div", { class: "wb-plot wb-map" }, this.canvas, this.over, this.tip);
    host.append(this.plot);
    const on = (name, act) => this.over.addEventListener(name, act.bind(this));
    on("pointerdown", this.press);
    on("pointermove", this.drag);
    on("pointerup", this.release);
    on("pointercancel", this.release);
    on("pointerleave", () => this.choose(null));
    on("blur", () => this.choose(null));
    on("keydown", this.key);
    this.over.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  // --- what is shown ---

  set(pool) {
    const moved = pool.rows !== this.pool?.rows;
    this.pool = pool;
    const [x0, x1] = this.span(pool.columns.x), [y0, y1] = this.span(pool.columns.y);
    this.middle = [(x0 + x1) / 2, (y0 + y1) / 2];
    this.size = [x1 - x0 || 1, y1 - y0 || 1];
    if (moved || !this.view) this.view = { zoom: 1, x: this.middle[0], y: this.middle[1] };
    this.at = null;
  }

  span(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }

  // `level` of each row is FADED, PLAIN or LIT; `labels` are {x, y, text, ring}.
  dress({ looks, of, level, hidden, labels }) {
    Object.assign(this, { looks, of, level, hidden, labels });
    this.draw();
  }

  get scale() {
    const [w, h] = this.pixels;
    return 0.92 * this.view.zoom * Math.min(w / this.size[0], h / this.size[1]);
  }

  place(x, y) {
    const [w, h] = this.pixels, k = this.scale;
    return [w / 2 + (x - this.view.x) * k, h / 2 - (y - this.view.y) * k];
  }

  draw() {
    const width = Math.max(220, this.plot.clientWidth), ratio = window.devicePixelRatio || 1;
    this.pixels = [width, MAP_HEIGHT];
    for (const canvas of [this.canvas, this.over]) {
      const [w, h] = [Math.round(width * ratio), Math.round(MAP_HEIGHT * ratio)];
      if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
      canvas.style.width = `${width}px`;
      canvas.style.height = `${MAP_HEIGHT}px`;
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.pool || !this.looks) return;
    const seen = this.visible(ratio);
    if (seen.length <= MOST_SHAPES) this.drawShapes(pen, seen, ratio);
    else this.drawPixels(pen, seen, ratio);
    this.drawLabels(pen, ratio);
    this.drawOver();
    this.plot.dataset.drawn = seen.length;
    this.plot.dataset.zoom = this.view.zoom.toFixed(3);
  }

  // Rows on the canvas, faded ones first; in an order that lets no domain cover the others.
  visible(ratio) {
    const { rows } = this.pool;
    if (this.px?.length !== rows) {
      [this.px, this.py] = [new Float32Array(rows), new Float32Array(rows)];
      [this.rank, this.seen] = [new Uint8Array(rows), new Int32Array(rows)];
    }
    const [faded, plain, lit] = this.rankRows(ratio), starts = [0, faded, faded + plain];
    const stride = rows % STRIDE ? STRIDE : 1;
    for (let n = 0, i = 0; n < rows; n++, i = (i + stride) % rows) {
      if (this.rank[i] !== UNSEEN) this.seen[starts[this.rank[i]]++] = i;
    }
    return this.seen.subarray(0, faded + plain + lit);
  }

  // Place of every row in pixels, and its level or UNSEEN; how many there are of each level.
  rankRows(ratio) {
    const { x, y, domain } = this.pool.columns, { px, py, rank, of, level } = this;
    const k = this.scale * ratio, [w, h] = [this.canvas.width, this.canvas.height];
    const left = w / 2 - this.view.x * k, top = h / 2 + this.view.y * k, counts = [0, 0, 0];
    const faint = this.looks.map((look) => Boolean(look.faint)), some = this.hidden.size > 0;
    for (let i = 0; i < px.length; i++) {
      const sx = px[i] = left + x[i] * k, sy = py[i] = top - y[i] * k;
      const out = sx < -8 || sy < -8 || sx > w + 8 || sy > h + 8;
      rank[i] = out || (some && this.hidden.has(domain[i])) ? UNSEEN
        : level[i] === PLAIN && faint[of[i]] ? FADED : level[i];
      if (rank[i] !== UNSEEN) counts[rank[i]]++;
    }
    return counts;
  }

  drawPixels(pen, seen, ratio) {
    const [w, h] = [this.canvas.width, this.canvas.height];
    const image = pen.createImageData(w, h), pixels = new Uint32Array(image.data.buffer);
    const alpha = [70, 225, 255];
    const packed = this.looks.map(({ colour, faint }) => {
      const [r, g, b] = isDark() ? shown(colour).match(/\d+/g).map(Number) : channels(colour);
      return alpha.map((a) => ((faint && a < 255 ? 90 : a) << 24 | b << 16 | g << 8 | r) >>> 0);
    });
    const wide = Math.max(1, Math.round((seen.length > 50000 ? 1.6 : 2.6) * ratio));
    for (const i of seen) {
      const level = this.level[i], size = wide + (level === LIT ? 2 : 0), colour = packed[this.of[i]][level];
      const x0 = Math.max(0, (this.px[i] - size / 2) | 0), y0 = Math.max(0, (this.py[i] - size / 2) | 0);
      const x1 = Math.min(w, x0 + size), y1 = Math.min(h, y0 + size);
      for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) pixels[y * w + x] = colour;
    }
    pen.putImageData(image, 0, 0);
  }

  drawShapes(pen, seen, ratio) {
    const paths = this.looks.map(({ marker }) => new Path2D(SHAPES[marker]));
    const colours = this.looks.map(({ colour }) => shown(colour));
    const base = ratio * (seen.length > 1500 ? 0.8 : 1.1);
    for (const i of seen) {
      const look = this.of[i], level = this.level[i];
      const size = base * (level === LIT ? 1.5 : this.looks[look].faint ? 0.7 : 1);
      pen.globalAlpha = level === FADED ? 0.22 : this.looks[look].faint && level === PLAIN ? 0.4 : 0.85;
      pen.setTransform(size, 0, 0, size, this.px[i], this.py[i]);
      pen.fillStyle = colours[look];
      pen.fill(paths[look]);
    }
    pen.globalAlpha = 1;
  }

  drawLabels(pen, ratio) {
    const style = getComputedStyle(this.plot);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = `600 12px ${style.fontFamily}`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    const [ink, paper] = [style.color, style.getPropertyValue("--wb-paper")], taken = [];
    for (const { x, y, text, ring } of this.labels) {
      const [sx, sy] = this.place(x, y);
      if (sx < 0 || sy < 0 || sx > this.pixels[0] || sy > this.pixels[1]) continue;
      if (ring) {
        pen.strokeStyle = ink;
        pen.lineWidth = 2;
        pen.beginPath();
        pen.arc(sx, sy, 15, 0, 2 * Math.PI);
        pen.stroke();
      }
      const half = pen.measureText(text).width / 2 + 2;
      const ty = ring ? sy - 24 : sy;
      if (taken.some((t) => Math.abs(t[0] - sx) < t[2] + half && Math.abs(t[1] - ty) < 14)) continue;
      taken.push([sx, ty, half]);
      const tx = Math.min(this.pixels[0] - half - 2, Math.max(half + 2, sx));
      pen.strokeStyle = paper;
      pen.lineWidth = 4;
      pen.strokeText(text, tx, ty);
      pen.fillStyle = ink;
      pen.fillText(text, tx, ty);
    }
  }

  drawOver() {
    const pen = this.over.getContext("2d"), ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, ...this.pixels);
    pen.strokeStyle = getComputedStyle(this.plot).color;
    pen.lineWidth = 2;
    if (this.at !== null) {
      pen.beginPath();
      pen.arc(this.px[this.at] / ratio, this.py[this.at] / ratio, 8, 0, 2 * Math.PI);
      pen.stroke();
    }
    if (this.lasso) {
      pen.setLineDash([5, 4]);
      pen.beginPath();
      this.lasso.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath();
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  // --- pointing ---

  nearest(x, y, reach) {
    const ratio = window.devicePixelRatio || 1, { rows, columns } = this.pool;
    let found = null, best = (reach * ratio) ** 2;
    for (let i = 0; i < rows; i++) {
      const dx = this.px[i] - x * ratio, dy = this.py[i] - y * ratio, distance = dx * dx + dy * dy;
      if (distance < best && !this.hidden.has(columns.domain[i])) [found, best] = [i, distance];
    }
    return found;
  }

  choose(i) {
    if (i === this.at || !this.looks) return;
    this.at = i;
    this.drawOver();
    this.told.point(i);
  }

  showTip(parts) {
    this.tip.hidden = this.at === null;
    if (this.tip.hidden) return;
    this.tip.replaceChildren(...parts);
    const ratio = window.devicePixelRatio || 1, y = this.py[this.at] / ratio;
    place(this.tip, this.plot, this.px[this.at] / ratio, Math.max(4, Math.min(y, MAP_HEIGHT - 150)));
  }

  press(event) {
    if (!this.looks || event.button) return;
    this.over.setPointerCapture(event.pointerId);
    this.from = [event.offsetX, event.offsetY];
    this.lasso = event.shiftKey || this.lassoing ? [this.from] : null;
  }

  drag(event) {
    if (!this.looks) return;
    const here = [event.offsetX, event.offsetY];
    if (!this.from) return this.choose(this.nearest(...here, NEAR_PX));
    if (this.lasso) {
      this.lasso.push(here);
      return this.drawOver();
    }
    this.moveBy(here[0] - this.from[0], here[1] - this.from[1]);
    this.from = here;
  }

  release() {
    this.from = null;
    const lasso = this.lasso;
    this.lasso = null;
    if (!lasso) return;
    this.drawOver();
    if (lasso.length > 2) this.told.brush(this.inside(lasso));
  }

  // Rows within a closed line: a ray from the row crosses it an odd number of times.
  inside(line) {
    const ratio = window.devicePixelRatio || 1, { rows, columns } = this.pool;
    const mask = new Uint8Array(rows), edge = line.map(([x, y]) => [x * ratio, y * ratio]);
    const [left, right] = this.span(edge.map((p) => p[0])), [top, bottom] = this.span(edge.map((p) => p[1]));
    for (let i = 0; i < rows; i++) {
      const x = this.px[i], y = this.py[i];
      if (x < left || x > right || y < top || y > bottom || this.hidden.has(columns.domain[i])) continue;
      let odd = 0;
      for (let a = 0, b = edge.length - 1; a < edge.length; b = a++) {
        const [ax, ay] = edge[a], [bx, by] = edge[b];
        if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd ^= 1;
      }
      mask[i] = odd;
    }
    return mask;
  }

  // --- moving ---

  moveBy(dx, dy) {
    this.view.x -= dx / this.scale;
    this.view.y += dy / this.scale;
    this.redraw();
  }

  // Keeps the place under the pointer where it is.
  zoomBy(factor, x = this.pixels[0] / 2, y = this.pixels[1] / 2) {
    const zoom = Math.min(MOST_ZOOM_IN, Math.max(0.5, this.view.zoom * factor));
    const [dx, dy] = [x - this.pixels[0] / 2, y - this.pixels[1] / 2], before = this.scale;
    this.view.zoom = zoom;
    this.view.x += dx / before - dx / this.scale;
    this.view.y -= dy / before - dy / this.scale;
    this.redraw();
  }

  whole() {
    this.view = { zoom: 1, x: this.middle[0], y: this.middle[1] };
    this.redraw();
  }

  // However fast the wheel turns, a picture is drawn once a frame.
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  wheel(event) {
    if (!this.looks) return;
    event.preventDefault();
    this.choose(null);
    this.zoomBy(1.0015 ** -event.deltaY, event.offsetX, event.offsetY);
  }

  key(event) {
    if (!this.looks) return;
    const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const zoom = { "+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP }[event.key];
    if (event.key === "Escape") this.told.brush(null);
    else if (event.key === "0") this.whole();
    else if (zoom) this.zoomBy(zoom);
    else if (step) this.moveBy(40 * step[0], 40 * step[1]);
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (!step) return;
    this.draw();
    const [w, h] = this.pixels;
    this.choose(this.nearest(w / 2, h / 2, 60));
  }
}
