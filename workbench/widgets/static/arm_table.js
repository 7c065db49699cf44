// The arms of a bandit as a table: sorted by a click on a head, chosen by a click on a row.
const MOST_ROWS = 200;

class ArmTable {
  constructor(host, { choose }) {
    this.told = choose;
    this.sort = { by: "mean", down: true };
    this.rows = new Map();
    this.body = node("tbody");
    this.unit = node("span", { class: "wb-unit" });
    this.more = node("div", { class: "wb-said" });
    const heads = [
      ["cluster", "Arm", "Number of the cluster"], ["mean", "Mean", "Mean influence per token"],
      ["low", "Interval", "Sorted by its lower end"], ["pulls", "Pulls", "Up to the round shown"],
      ["accepted", "Accepted", "Rows accepted up to the round shown"],
      ["inside", "In lasso", "Rows inside the lasso"],
    ];
    this.heads = new Map(heads.map(([by, name, title]) => [by, this.head(by, name, title)]));
    const table = node("table", { class: "wb-domains wb-arms" },
      node("thead", {}, node("tr", {}, ...this.heads.values())), this.body);
    host.append(node("section", { class: "wb-chart" },
      node("div", { class: "wb-chart-title" }, node("span", {}, "Arms"), this.unit),
      node("div", { class: "wb-arm-list" }, table), this.more));
  }

  head(by, name, title) {
    const button = node("button", { type: "button", class: "wb-sort", title }, name);
    button.addEventListener("click", () => {
      this.sort = { by, down: this.sort.by === by ? !this.sort.down : by !== "cluster" };
      this.draw();
    });
    return node("th", { scope: "col" }, button);
  }

  // inside: rows of each arm in the lasso, or null without one.
  set({ arms, round, chosen, inside }) {
    Object.assign(this, { arms, round, chosen, inside });
    const ends = [...arms.low, ...arms.high, ...(round?.means ?? []), 0].filter((v) => v !== null);
    this.ends = [Math.min(...ends), Math.max(...ends)];
    this.draw();
  }

  // Until the end of the choice the mean is that of the rewards so far, then the bandit's own.
  mean(c) {
    return this.round && !this.round.last ? this.round.means[c] : this.arms.mean[c];
  }

  value(by, c) {
    if (by === "cluster") return c;
    if (by === "mean") return this.mean(c);
    if (by === "pulls") return this.round?.pulls[c] ?? null;
    if (by === "accepted") return (this.round?.last ? null : this.round?.accepted)?.[c] ?? this.arms.accepted[c];
    if (by === "inside") return this.inside?.[c] ?? null;
    return this.arms[by][c];
  }

  draw() {
    if (!this.arms) return;
    const all = this.arms.rows.map((_, c) => c)
      .filter((c) => this.arms.rows[c] > 0 && (!this.inside || this.inside[c] > 0));
    const { by, down } = this.sort, sign = down ? -1 : 1;
    const last = down ? -Infinity : Infinity, of = (c) => this.value(by, c) ?? last;
    all.sort((a, b) => sign * (of(a) - of(b)) || a - b);
    const shown = all.slice(0, MOST_ROWS);
    for (const [name, head] of this.heads) {
      head.setAttribute("aria-sort", name !== by ? "none" : down ? "descending" : "ascending");
    }
    this.heads.get("inside").hidden = !this.inside;
    const elements = shown.map((c) => this.row(c));
    const same = elements.length === this.body.children.length
      && elements.every((element, i) => element === this.body.children[i]);
    if (!same) {
      // A row that moves would lose the focus.
      const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
      this.body.replaceChildren(...elements);
      focused?.focus({ preventScroll: true });
    }
    const part = this.inside ? "with rows in the lasso" : "in all";
    const now = this.round && !this.round.last ? "mark: mean reward so far" : "mark: mean";
    const bar = this.arms.low.some((v) => v !== null) ? "bar: interval at the end, " : "";
    setText(this.unit, `${all.length} ${part} · ${bar}${now}`);
    const rest = all.length - shown.length;
    this.more.hidden = !rest;
    setText(this.more, `${thousands(rest)} more arms; sort by another column to see them first`);
  }

  row(c) {
    let row = this.rows.get(c);
    if (!row) this.rows.set(c, row = this.build(c));
    const or = (shown) => (value) => value === null || value === undefined ? "–" : shown(value);
    const few = or((value) => String(+value.toPrecision(3))), count = or(thousands);
    const mean = this.mean(c), { low, high } = this.arms;
    const lit = this.round?.clusters.includes(c) && !this.quiet;
    row.root.classList.toggle("wb-lit", Boolean(lit));
    setText(row.name, `${lit ? "◉ " : ""}${c}`);
    row.name.setAttribute("aria-pressed", this.chosen.has(c));
    row.root.classList.toggle("wb-chosen", this.chosen.has(c));
    setText(row.mean, few(mean));
    setText(row.pulls, count(this.value("pulls", c)));
    setText(row.accepted, count(this.value("accepted", c)));
    setText(row.inside, this.inside ? count(this.inside[c]) : "");
    row.inside.hidden = !this.inside;
    const across = (value) => (100 * (value - this.ends[0])) / (this.ends[1] - this.ends[0] || 1);
    row.bar.hidden = low[c] === null;
    if (low[c] !== null) {
      row.bar.style.left = `${across(low[c])}%`;
      row.bar.style.width = `${Math.max(0.5, across(high[c]) - across(low[c]))}%`;
      row.bar.parentElement.title = `from ${few(low[c])} to ${few(high[c])}`;
    }
    row.mark.hidden = mean === null || mean === undefined;
    if (!row.mark.hidden) row.mark.style.left = `${across(mean)}%`;
    row.zero.style.left = `${across(0)}%`;
    return row.root;
  }

  build(c) {
    const name = node("button", { type: "button", class: "wb-key wb-arm", title: "Highlight its rows" });
    const cells = Object.fromEntries(
      ["mean", "pulls", "accepted", "inside"].map((each) => [each, node("td")]));
    const [bar, mark, zero] = ["wb-interval", "wb-asked", "wb-zero"].map((each) => node("div", { class: each }));
    const root = node("tr", {}, node("th", { scope: "row" }, name), cells.mean,
      node("td", { class: "wb-share" }, node("div", { class: "wb-share-bar" }, zero, bar, mark)),
      cells.pulls, cells.accepted, cells.inside);
    root.addEventListener("click", () => this.told(c));
    return { root, name, bar, mark, zero, ...cells };
  }
}
