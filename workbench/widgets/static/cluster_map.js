// The pool of a selector: the map, its arms, what is selected, and the rounds under the slider.
const MOST_NUMBERS = 40;
const CARDS = 4;

class ClusterMapView extends ScrubView {
  get noun() { return "Round"; }

  markedStep(round) { return round.choice; }

  build(host) {
    this.part = "round";
    this.poolKey = null;
    this.choice = null;
    this.hidden = new Set();
    this.chosen = new Set();
    this.mask = null;
    this.texts = new Texts((rows) => this.tell({ kind: "read", rows: [].concat(rows) }));
    super.build(host);
    const area = node("div", { class: "wb-charts wb-step wb-pool" });
    const chart = node("section", { class: "wb-chart" }, this.buildHead());
    area.append(chart);
    this.map = new PointMap(chart, {
      point: () => this.drawTip(), brush: (mask) => this.brush(mask),
    });
    this.keys = node("div", { class: "wb-legend wb-map-key" });
    chart.append(this.keys);
    this.table = new ArmTable(area, { choose: (c) => this.toggle(c) });
    this.stage = node("div", { class: "wb-said", role: "status" });
    const scrub = this.buildScrub("No rounds yet", "Follow the newest round");
    this.picked = this.buildPicked();
    this.area.before(this.form, scrub, this.stage, area, this.picked);
    this.charts.push({ set: () => {}, draw: () => this.map.draw() });
    this.themes = new MutationObserver(() => this.pool && this.paint());
    this.themes.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  }

  buildHead() {
    const option = ([value, name]) => node("option", { value }, name);
    this.way = node("select", { "aria-label": "Colour of the points" },
      ...Object.entries(COLOURINGS).map(option));
    this.way.addEventListener("change", () => this.paint());
    this.which = node("select", { "aria-label": "Choice shown", hidden: "" });
    this.which.addEventListener("change", () => {
      this.choice = this.which.value === "" ? null : Number(this.which.value);
      this.goLive();
    });
    const button = (name, title, act) => {
      const made = node("button", { type: "button", class: "wb-button wb-small", title }, name);
      made.addEventListener("click", act);
      return made;
    };
    this.lasso = button("Lasso", "Drag to select rows; also with Shift and drag", () => {
      this.map.lassoing = !this.map.lassoing;
      this.lasso.setAttribute("aria-pressed", this.map.lassoing);
    });
    this.lasso.setAttribute("aria-pressed", "false");
    return node("div", { class: "wb-chart-title wb-map-head" }, node("span", {}, "Pool"),
      node("label", { class: "wb-unit" }, "coloured by ", this.way), this.which,
      node("span", { class: "wb-map-tools" }, this.lasso,
        button("−", "Zoom out (key −)", () => this.pool && this.map.zoomBy(1 / ZOOM_STEP)),
        button("+", "Zoom in (key +)", () => this.pool && this.map.zoomBy(ZOOM_STEP)),
        button("Whole", "Show the whole map (key 0)", () => this.pool && this.map.whole())));
  }

  buildPicked() {
    this.pickedText = node("span", { role: "status" });
    this.clear = node("button", { type: "button", class: "wb-button wb-small" }, "Clear");
    this.clear.addEventListener("click", () => this.brush(null));
    this.cards = node("ol", { class: "wb-texts wb-picked-texts" });
    return node("section", { class: "wb-picked", hidden: "" },
      node("div", { class: "wb-row-head" }, this.pickedText, this.clear), this.cards);
  }

  // --- messages ---

  wants() { return { ...super.wants(), choice: this.choice, pool: this.poolKey }; }

  draw(frame) {
    if (frame.pool) this.takePool(frame.pool, frame.buffers);
    super.draw(frame);
    // Following the newest round again changes what is lit, not the round.
    if (this.live !== this.paintedLive) this.paint();
    this.drawChoices(frame);
    setText(this.stage, frame.stage ?? "");
    this.stage.hidden = !frame.stage && this.pool !== undefined;
    if (!frame.stage && !this.pool) setText(this.stage, this.nothing);
    for (const told of frame.read ?? []) this.texts.keep(told.row, told);
    if (!frame.read) return;
    this.drawTip();
    this.drawCards();
  }

  get nothing() {
    return this.poolKey ? "The run's selector has no map: it places no rows."
      : "No pool yet: it appears when the selector begins to choose.";
  }

  takePool(pool, buffers) {
    this.poolKey = pool.key;
    const step = pool.key.split(".")[0], other = this.pool?.step !== step;
    if (!pool.rows) return;
    const [x, y, influence, cluster, scored, domain, accepted] = (buffers ?? []).map(
      (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    this.pool = {
      ...pool, step,
      columns: {
        x: new Float32Array(x), y: new Float32Array(y), influence: new Float32Array(influence),
        cluster: new Int32Array(cluster), scored: new Int32Array(scored),
        domain: new Uint16Array(domain), accepted: new Uint8Array(accepted),
      },
    };
    if (other) {
      this.texts.clear();
      this.round = null;
      [this.mask, this.chosen] = [null, new Set()];
    }
    this.map.set(this.pool);
    this.paint();
  }

  // --- selecting ---

  brush(mask) {
    this.mask = mask?.some(Boolean) ? mask : null;
    this.chosen.clear();
    this.paint();
  }

  toggle(c) {
    if (!this.chosen.delete(c)) this.chosen.add(c);
    this.paint();
  }

  get rowsPicked() {
    const { cluster } = this.pool.columns, found = [];
    if (!this.mask && !this.chosen.size) return found;
    for (let i = 0; i < this.pool.rows; i++) {
      if (this.chosen.size ? this.chosen.has(cluster[i]) : this.mask[i]) found.push(i);
    }
    return found;
  }

  // --- drawing ---

  drawStep(round) {
    this.round = round;
    this.drawFacts(round.facts);
    this.paint();
  }

  drawChoices({ choices, choice }) {
    if (!choices) return;
    this.which.hidden = choices.length < 2;
    const names = choices.join();
    if (names !== this.choiceNames) {
      this.choiceNames = names;
      this.which.replaceChildren(node("option", { value: "" }, "newest choice"),
        ...choices.map((step) => node("option", { value: step }, `choice before step ${thousands(step)}`)));
    }
    this.which.value = this.choice ?? "";
    this.root.dataset.choice = choice ?? "";
  }

  // At the end of a finished choice nothing is lit: the picture is that of the whole choice.
  get litArms() {
    return new Set(this.round && !(this.live && this.round.last) ? this.round.clusters : []);
  }

  paint() {
    const { pool } = this;
    if (!pool) return;
    this.paintedLive = this.live;
    const { columns, rows } = pool, picked = this.rowsPicked, lit = this.litArms;
    const level = new Uint8Array(rows).fill(picked.length ? FADED : PLAIN);
    for (const i of picked) level[i] = PLAIN;
    if (lit.size) {
      const rest = picked.length ? null : FADED;
      for (let i = 0; i < rows; i++) {
        if (lit.has(columns.cluster[i])) level[i] = picked.length && !level[i] ? FADED : LIT;
        else if (rest !== null) level[i] = rest;
      }
    }
    const looks = looksOf(this.way.value, pool, this.round);
    this.map.dress({ ...looks, level, hidden: this.hidden, labels: this.labels(lit) });
    this.drawKey(looks);
    this.table.quiet = !lit.size;
    this.table.set({
      arms: pool.arms, round: this.round, chosen: this.chosen, inside: this.insideOf(),
    });
    this.drawPicked(picked);
    Object.assign(this.root.dataset, {
      rows, picked: picked.length, lit: lit.size, way: this.way.value, pool: this.poolKey,
    });
  }

  insideOf() {
    if (!this.mask) return null;
    const inside = new Array(this.pool.arms.rows.length).fill(0);
    this.mask.forEach((is, i) => { if (is) inside[this.pool.columns.cluster[i]]++; });
    return inside;
  }

  labels(lit) {
    const { arms, domains } = this.pool;
    const number = (c, ring) => ({ x: arms.x[c], y: arms.y[c], text: String(c), ring });
    const named = [...lit, ...this.chosen].filter((c) => arms.rows[c] > 0);
    if (named.length) return [...new Set(named)].map((c) => number(c, true));
    if (this.way.value === "domain") {
      return domains.filter((_, k) => !this.hidden.has(k))
        .map(({ name, at }) => ({ x: at[0], y: at[1], text: name }));
    }
    if (this.way.value !== "cluster") return [];
    return arms.rows.map((_, c) => c).filter((c) => arms.rows[c] > 0)
      .sort((a, b) => arms.rows[b] - arms.rows[a]).slice(0, MOST_NUMBERS).map((c) => number(c));
  }

  drawKey(looks) {
    const way = this.way.value, shown = [way, this.poolKey, looks.most, looks.growing].join();
    if (shown === this.keyShown) return;
    this.keyShown = shown;
    if (way !== "domain") return this.keys.replaceChildren(...keyOf(way, this.pool, looks));
    this.keys.replaceChildren(...this.pool.domains.map((domain, k) => {
      const button = node("button", {
        type: "button", class: "wb-key", "aria-pressed": !this.hidden.has(k),
        title: `Show or hide the rows of ${domain.name}`,
      }, node("svg", { width: 12, height: 12, "aria-hidden": "true" }, symbol(domain, 6, 6)),
      node("span", {}, domain.name));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(k)) this.hidden.add(k);
        button.setAttribute("aria-pressed", !this.hidden.has(k));
        this.paint();
      });
      return button;
    }));
  }

  drawTip() {
    const i = this.map.at;
    if (i === null || !this.pool) return this.map.showTip([]);
    const told = this.texts.get(i);
    const text = told ? excerpt(told.text) ?? "The text is not on this machine" : "…";
    this.map.showTip([this.rowHead(i), node("div", { class: "wb-excerpt" }, text),
      node("div", { class: "wb-tip-step" }, told ? `sample ${told.sample}` : "")]);
  }

  rowHead(i) {
    const { columns, domains } = this.pool, value = columns.influence[i];
    const domain = domains[columns.domain[i]];
    const score = Number.isNaN(value) ? "not scored" : `influence ${+value.toPrecision(3)}`;
    return node("div", { class: "wb-row-head" },
      node("svg", { width: 12, height: 12, "aria-hidden": "true" }, symbol(domain, 6, 6)),
      node("span", { class: "wb-row-domain" }, domain.name),
      node("span", { class: "wb-row-number" }, `arm ${columns.cluster[i]}`),
      node("span", { class: "wb-row-number" }, score + (columns.accepted[i] ? ", accepted" : "")));
  }

  drawPicked(picked) {
    this.picked.hidden = !picked.length;
    const counts = new Map();
    for (const i of picked) {
      const name = this.pool.domains[this.pool.columns.domain[i]].name;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const parts = [...counts].sort((a, b) => b[1] - a[1]).map(([name, n]) => `${name} ${thousands(n)}`);
    const what = this.chosen.size ? `in ${this.chosen.size === 1 ? "arm" : "arms"} ` +
      [...this.chosen].sort((a, b) => a - b).join(", ") : "in the lasso";
    setText(this.pickedText, picked.length
      ? `${thousands(picked.length)} rows ${what}: ${parts.join(", ")}` : "");
    // Spread over the selection, those with a score first.
    const scored = picked.filter((i) => !Number.isNaN(this.pool.columns.influence[i]));
    const from = scored.length >= CARDS ? scored : picked;
    const few = Math.min(CARDS, from.length);
    this.wanted = Array.from({ length: few }, (_, n) => from[Math.floor((n * from.length) / few)]);
    this.drawCards();
  }

  drawCards() {
    const unknown = this.wanted?.filter((i) => !this.texts.known.has(i)) ?? [];
    if (unknown.length) this.texts.get(unknown);
    const shown = (this.wanted ?? []).map((i) => [i, this.texts.known.get(i)]);
    const key = shown.map(([i, told]) => `${i}${Boolean(told)}`).join();
    if (key === this.cardsShown) return;
    this.cardsShown = key;
    this.cards.replaceChildren(...shown.map(([i, told]) => node("li", { class: "wb-card" },
      this.rowHead(i),
      node("div", { class: "wb-text", tabindex: 0, "aria-label": "Text of a selected row" },
        told ? told.text ?? "The text is not on this machine" : "…"))));
  }

  close() {
    this.themes.disconnect();
    super.close();
  }
}

export default {
  render({ model, el }) {
    const view = new ClusterMapView(model, el);
    return () => view.close();
  },
};
