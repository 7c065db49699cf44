// The samples of a step: points, histograms, and the rows as text, with a slider over the steps.
const KEPT_TEXTS = 2000;
const READ_AGAIN_MS = 1000;
const OWN_KEYS = /^(Arrow(Left|Right|Up|Down)|Home|End|PageUp|PageDown)$/;

class SampleWeightsView extends PanelView {
  build(host) {
    this.live = true;
    this.step = null;
    this.key = null;
    this.hidden = new Set();
    this.texts = new Map();
    super.build(host);
    const area = node("div", { class: "wb-charts wb-step" });
    this.cloud = new Cloud(area, {
      hidden: this.hidden, read: (sample) => this.read(sample),
    });
    const bars = node("div", { class: "wb-bars" });
    area.append(bars);
    this.bars = [new Bars(bars, { hidden: this.hidden }),
      new Bars(bars, { hidden: this.hidden, zero: true })];
    this.charts.push(this.cloud, ...this.bars);
    this.domainKeys = node("div", { class: "wb-legend" });
    this.area.before(this.form, this.buildScrub(), this.domainKeys, area, this.buildRows());
    // The notebook takes arrow keys for itself, also those of a focused slider.
    this.root.addEventListener("keydown", (event) => {
      if (OWN_KEYS.test(event.key)) event.stopPropagation();
    });
    this.themes = new MutationObserver(() => this.cloud.samples && this.cloud.paint());
    this.themes.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  }

  buildScrub() {
    this.slider = node("input", {
      type: "range", class: "wb-slider", min: 0, max: 0, step: 1, value: 0, disabled: "",
      "aria-label": "Step shown",
    });
    this.slider.addEventListener("input", () => this.hold(Number(this.slider.value)));
    this.stepText = node("span", { class: "wb-steps wb-shown-step" }, "No rows yet");
    this.follow = node("button", {
      type: "button", class: "wb-button", "aria-pressed": "true",
      title: "Follow the newest step of the ledger",
    }, "Live");
    this.follow.addEventListener("click", () => {
      if (this.live) return this.hold(Number(this.slider.value));
      this.live = true;
      this.ask();
    });
    this.facts = node("div", { class: "wb-facts" });
    return node("div", { class: "wb-scrub" },
      node("label", { class: "wb-scrub-line" }, this.stepText, this.slider), this.follow,
      this.facts);
  }

  buildRows() {
    this.lists = {};
    const column = (side, title) => {
      this.lists[side] = node("ol", { class: "wb-texts", "aria-label": title });
      return node("section", { class: "wb-chart" },
        node("div", { class: "wb-chart-title" }, title), this.lists[side]);
    };
    this.missing = node("div", { class: "wb-said", hidden: "" });
    return node("div", {}, this.missing, node("div", { class: "wb-charts" },
      column("heaviest", "Heaviest rows"), column("lightest", "Lightest rows")));
  }

  // --- messages ---

  wants() {
    return { ...super.wants(), step: this.live ? null : this.step, key: this.key };
  }

  hold(step) {
    this.live = false;
    this.step = step;
    this.drawScrub();
    this.ask();
  }

  // A slider moves faster than frames are drawn: the next one is asked for after the last.
  ask() {
    if (this.waiting) this.again = true;
    else this.next();
  }

  next() {
    this.waiting = true;
    this.again = false;
    super.next();
  }

  read(sample) {
    const known = this.texts.get(sample);
    if (known) return known;
    this.unread = sample;
    if (!this.readAt || performance.now() - this.readAt > READ_AGAIN_MS) {
      this.readAt = performance.now();
      this.tell({ kind: "read", sample });
    }
    return null;
  }

  keep(told) {
    this.readAt = null;
    if (this.texts.size >= KEPT_TEXTS) this.texts.clear();
    this.texts.set(told.sample, told);
    this.cloud.drawTip();
  }

  // --- drawing ---

  draw(frame) {
    super.draw(frame);
    if (frame.answers === "next") this.waiting = false;
    if (frame.recorded) {
      this.recorded = frame.recorded;
      if (frame.samples) this.drawSamples(frame.samples);
      this.drawScrub();
    }
    if (frame.read) this.keep(frame.read);
    if (this.again) this.next();
  }

  drawScrub() {
    if (!this.recorded) return;
    const [first, last] = this.recorded;
    this.slider.disabled = first === last;
    this.slider.min = first;
    this.slider.max = last;
    if (this.live) this.slider.value = last;
    const step = Number(this.slider.value);
    this.slider.setAttribute("aria-valuetext", `step ${step}${this.live ? ", the newest" : ""}`);
    setText(this.stepText, `Step ${thousands(step)} of ${thousands(first)} to ${thousands(last)}`);
    this.follow.setAttribute("aria-pressed", this.live);
    this.root.dataset.follows = this.live;
  }

  drawSamples(samples) {
    this.key = samples.key;
    this.root.dataset.shown = samples.step;
    this.root.dataset.rows = samples.rows;
    this.samples = samples;
    this.cloud.set(samples);
    this.bars.forEach((bars, i) => bars.set(samples.histograms[i], samples.domains));
    this.drawFacts(samples);
    this.drawKeys(samples.domains);
    this.missing.hidden = !samples.missing;
    if (samples.missing) {
      setText(this.missing, `${samples.missing.problem} — ${samples.missing.remedy}`);
    }
    for (const [side, list] of Object.entries(this.lists)) {
      list.replaceChildren(...samples[side].map((row) => this.card(row)));
    }
    for (const chart of this.charts.slice(0, 2)) {
      chart.at = samples.step;
      chart.draw();
    }
  }

  drawFacts(samples) {
    const heaviest = samples.heaviest[0]?.weight;
    const facts = [
      ["Strategy", samples.policy],
      ["Temperature", samples.temperature === null ? null : String(+samples.temperature.toFixed(3))],
      ["Effective rows", `${samples.effective_rows.toFixed(1)} of ${samples.rows}`],
      ["Largest weight", heaviest?.toFixed(2)],
      ["Correlation with loss", samples.correlation?.toFixed(2)],
      ["Without a finite loss", samples.left_out || null],
    ];
    this.facts.replaceChildren(...facts
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => node("span", { class: "wb-fact" },
        node("span", { class: "wb-tile-label" }, name), node("span", {}, String(value)))));
  }

  drawKeys(domains) {
    const names = domains.map((each) => each.name).join();
    if (names === this.keyNames) return;
    this.keyNames = names;
    this.domainKeys.replaceChildren(...domains.map((domain) => {
      const mark = node("svg", { width: 12, height: 12, "aria-hidden": "true" },
        symbol(domain, 6, 6));
      const button = node("button", {
        type: "button", class: "wb-key", "aria-pressed": "true",
        title: `Show or hide the rows of ${domain.name}`,
      }, mark, node("span", {}, domain.name));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(domain.name)) this.hidden.add(domain.name);
        button.setAttribute("aria-pressed", !this.hidden.has(domain.name));
        [this.cloud, ...this.bars].forEach((plot) => plot.draw());
      });
      return button;
    }));
  }

  card(row) {
    const domain = this.samples.domains[row.domain];
    const text = node("div", {
      class: "wb-text", tabindex: 0, "aria-label": `Text of a row of ${domain.name}`,
    }, row.text ?? "");
    const item = node("li", { class: "wb-card" }, rowHead(domain, row.weight, row.loss),
      ...(row.text === null ? [] : [text]),
      ...(row.origin ? [node("div", { class: "wb-origin", title: row.origin }, row.origin)] : []));
    const mark = (on) => {
      this.cloud.quiet = on;
      this.cloud.choose(on ? this.cloud.indexOf(row.sample) : null);
    };
    for (const [name, on] of
      [["pointerenter", true], ["pointerleave", false], ["focusin", true], ["focusout", false]]) {
      item.addEventListener(name, () => mark(on));
    }
    return item;
  }

  close() {
    this.themes.disconnect();
    super.close();
  }
}

export default {
  render({ model, el }) {
    const view = new SampleWeightsView(model, el);
    return () => view.close();
  },
};
