// The samples of a step: points, histograms, and the rows as text.
class SampleWeightsView extends ScrubView {
  build(host) {
    this.part = "samples";
    this.hidden = new Set();
    this.texts = new Texts((sample) => this.tell({ kind: "read", sample }));
    super.build(host);
    const area = node("div", { class: "wb-charts wb-step" });
    this.cloud = new Cloud(area, {
      hidden: this.hidden, read: (sample) => this.texts.get(sample),
    });
    const bars = node("div", { class: "wb-bars" });
    area.append(bars);
    this.bars = [new Bars(bars, { hidden: this.hidden }),
      new Bars(bars, { hidden: this.hidden, zero: true })];
    this.charts.push(this.cloud, ...this.bars);
    this.domainKeys = node("div", { class: "wb-legend" });
    const scrub = this.buildScrub("No rows yet", "Follow the newest step of the ledger");
    this.area.before(this.form, scrub, this.domainKeys, area, this.buildRows());
    this.themes = new MutationObserver(() => this.cloud.samples && this.cloud.paint());
    this.themes.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
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

  // --- drawing ---

  draw(frame) {
    super.draw(frame);
    if (!frame.read) return;
    this.texts.keep(frame.read.sample, frame.read);
    this.cloud.drawTip();
  }

  drawStep(samples) {
    this.root.dataset.rows = samples.rows;
    this.samples = samples;
    this.cloud.set(samples);
    this.bars.forEach((bars, i) => bars.set(samples.histograms[i], samples.domains));
    this.drawFacts(this.factsOf(samples));
    this.drawKeys(samples.domains);
    this.missing.hidden = !samples.missing;
    if (samples.missing) {
      setText(this.missing, `${samples.missing.problem} — ${samples.missing.remedy}`);
    }
    for (const [side, list] of Object.entries(this.lists)) {
      list.replaceChildren(...samples[side].map((row) => this.card(row)));
    }
  }

  factsOf(samples) {
    const heaviest = samples.heaviest[0]?.weight;
    return [
      ["Strategy", samples.policy],
      ["Temperature", samples.temperature === null ? null : String(+samples.temperature.toFixed(3))],
      ["Effective rows", `${samples.effective_rows.toFixed(1)} of ${samples.rows}`],
      ["Largest weight", heaviest?.toFixed(2)],
      ["Correlation with loss", samples.correlation?.toFixed(2)],
      ["Without a finite loss", samples.left_out || null],
    ];
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
