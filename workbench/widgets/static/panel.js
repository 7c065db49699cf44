// The panel: numbers, controls and charts.  It asks for a frame when it has drawn the last one, so
// the kernel never sends faster than the browser draws; a hidden tab draws nothing and asks nothing.
const PERIOD_MS = 200;
const SILENCE_MS = 3000;
const REPEAT_MS = 1000;
const RAREST_REPEAT_MS = 30000;

const STATES = {
  running: ["●", "Running"], paused: ["‖", "Paused"], finished: ["✓", "Finished"],
  stopped: ["■", "Stopped"], failed: ["✕", "Failed"], interrupted: ["◌", "Interrupted"],
};
const ASKED = { pause: "Pausing…", resume: "Resuming…", stop: "Stopping…" };

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds), pad = (value) => String(value).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

function setText(target, text) {
  // Screen readers repeat a live region whenever it is written, changed or not.
  if (target.textContent !== text) target.textContent = text;
}

function tile(label, title) {
  const value = node("div", { class: "wb-number" }, "–");
  const root = node("div", { class: "wb-tile", title },
    node("div", { class: "wb-tile-label" }, label), value);
  return { root, value };
}

function spark(values) {
  const known = values.filter((value) => value !== null);
  const drawing = node("svg", {
    class: "wb-spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true",
  });
  if (known.length < 2) return drawing;
  const high = Math.max(...known) || 1;
  const points = values.map((v, i) => v === null ? null
    : `${((i / (values.length - 1)) * 100).toFixed(1)},${(23 - (v / high) * 22).toFixed(1)}`);
  drawing.append(node("path", {
    d: `M${points.filter(Boolean).join("L")}`, class: "wb-line",
    "vector-effect": "non-scaling-stroke",
  }));
  return node("div", {}, drawing,
    node("div", { class: "wb-spark-range" }, `0 to ${thousands(high)}, whole run`));
}

class PanelView {
  constructor(model, host) {
    this.model = model;
    this.id = Math.random().toString(36).slice(2);
    this.have = -1;
    this.repeatMs = REPEAT_MS;
    this.timers = {};
    this.frames = 0;
    this.build(host);
    this.receive = (frame, buffers) => this.received({ ...frame, buffers });
    model.on("msg:custom", this.receive);
    this.observer = new ResizeObserver(() => this.charts.forEach((chart) => chart.draw()));
    this.observer.observe(this.root);
    this.next();
  }

  build(host) {
    const heading = node("div", { class: "wb-title" }, this.model.get("heading"));
    this.badge = node("span", { class: "wb-badge", role: "status", "aria-live": "polite" }, "…");
    this.said = node("div", { class: "wb-said", "aria-live": "polite" });
    this.silence = node("div", { class: "wb-said", hidden: "" },
      "The kernel does not answer: a cell is running, or it has gone. " +
      "The panel goes on by itself when it answers; after a restart, run the cell again.");
    this.notice = node("div", { class: "wb-notice", role: "alert", hidden: "" });
    this.rows = node("div", { class: "wb-rows" });
    this.tiles = {
      loss: tile("Training loss", "Smoothed, in nats per token"),
      rate: tile("Throughput", "Tokens per second of the last steps, evaluation left out"),
      elapsed: tile("Elapsed", "Time spent training, pauses left out"),
      left: tile("Time left", "Expected time to the last step, evaluations included"),
    };
    this.spark = node("div", { class: "wb-spark-host" });
    this.tiles.rate.root.append(this.spark);
    const tiles = node("div", { class: "wb-tiles" },
      ...Object.values(this.tiles).map((each) => each.root));
    this.area = node("div", { class: "wb-charts" });
    this.warned = node("ol", { "aria-live": "polite", class: "wb-warnings" });
    this.warnings = node("details", { open: "", hidden: "" }, node("summary"), this.warned);
    this.tree = node("ul", { role: "tree", "aria-label": "Forks", class: "wb-forks" });
    this.forks = node("details", { open: "", hidden: "" }, node("summary", {}, "Forks"), this.tree);
    this.root = node("div", {
      class: "wb-panel", role: "group", "aria-label": `Run ${this.model.get("heading")}`,
      "data-lm-suppress-shortcuts": "true",
    }, node("div", { class: "wb-head" }, heading, this.badge, this.buildButtons()),
    this.rows, tiles, this.said, this.silence, this.notice, this.area, this.warnings,
    this.forks, this.buildControls());
    host.append(this.root);
    this.charts = [new Chart(this.area), new Chart(this.area)];
  }

  buildButtons() {
    this.pause = node("button", { type: "button", class: "wb-button", disabled: "" }, "Pause");
    this.stop = node("button", {
      type: "button", class: "wb-button wb-stop", disabled: "",
      title: "End with a checkpoint before the next step; the run can be resumed later",
    }, "Stop");
    this.pause.addEventListener("click", () => this.tell({ kind: this.pause.dataset.kind }));
    this.stop.addEventListener("click", () => this.tell({ kind: "stop" }));
    return node("div", { class: "wb-buttons" }, this.pause, this.stop);
  }

  buildControls() {
    this.fields = new Map();
    this.fieldset = node("fieldset", { class: "wb-controls" });
    this.apply = node("button", {
      type: "submit", class: "wb-button", disabled: "",
      title: "Change the run at its next step; recorded as an event",
    }, "Apply");
    this.form = node("form", { hidden: "" }, this.fieldset);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const changes = this.edited();
      if (Object.keys(changes).length) this.tell({ kind: "set", changes });
    });
    this.form.addEventListener("input", () => this.markEdited());
    return this.form;
  }

  // --- messages ---

  wants() { return { view: this.id, have: this.have }; }

  next() {
    this.askedAt = performance.now();
    this.model.send({ kind: "next", ...this.wants() });
    clearTimeout(this.timers.repeat);
    this.timers.silence ??= setTimeout(() => { this.silence.hidden = false; }, SILENCE_MS);
    // A message sent before the kernel has its subshell waits for the running cell: ask again.
    this.timers.repeat = setTimeout(() => this.next(), this.repeatMs);
    this.repeatMs = Math.min(2 * this.repeatMs, RAREST_REPEAT_MS);
  }

  tell(message) {
    this.toldAt = performance.now();
    this.model.send({ ...message, ...this.wants() });
  }

  received(frame) {
    if (frame.to !== this.id) return;
    clearTimeout(this.timers.silence);
    clearTimeout(this.timers.repeat);
    this.timers.silence = null;
    this.repeatMs = REPEAT_MS;
    if (frame.answers !== "next") {
      this.root.dataset.answeredMs = Math.round(performance.now() - this.toldAt);
    }
    requestAnimationFrame(() => {
      if (!this.root.isConnected) return this.schedule(PERIOD_MS);
      this.silence.hidden = true;
      this.draw(frame);
      // An ended run stays as it is; only an answer to `next` keeps the clock going.
      if (!frame.over && (frame.answers === "next" || this.ended)) {
        this.schedule(PERIOD_MS - (performance.now() - this.askedAt));
      }
      this.ended = frame.over;
    });
  }

  schedule(wait) {
    clearTimeout(this.timers.next);
    this.timers.next = setTimeout(() => this.next(), Math.max(0, wait));
  }

  // --- drawing ---

  draw(frame) {
    this.drawNotice(frame.notice);
    if (!frame.runs) return;
    this.have = frame.revision;
    const run = frame.runs.find((each) => each.label === frame.shown);
    this.drawState(frame, run);
    this.drawRows(frame.runs);
    this.drawWarnings(frame.warnings ?? []);
    this.drawForks(frame.forks);
    setText(this.tiles.loss.value, run.loss === null ? "–" : run.loss.toFixed(3));
    setText(this.tiles.rate.value,
      run.tokens_per_second === null ? "–" : `${thousands(run.tokens_per_second)} tokens/s`);
    setText(this.tiles.elapsed.value, duration(run.elapsed_seconds));
    setText(this.tiles.left.value, duration(run.left_seconds));
    if (frame.charts) frame.charts.forEach((data, i) => this.charts[i].set(data));
    this.spark.style.setProperty("--wb-colour", run.colour);
    if (frame.throughput) this.spark.replaceChildren(spark(frame.throughput));
    if (frame.controls) this.drawControls(frame.controls);
    this.form.hidden = !run.live;
    this.root.dataset.step = run.step;
    this.root.dataset.frames = ++this.frames;
  }

  drawState(frame, run) {
    const [sign, word] = STATES[run.status];
    const who = frame.runs.length > 1 ? ` · ${run.label}` : "";
    setText(this.badge, (frame.asked ? ASKED[frame.asked] : `${sign} ${word}`) + who);
    this.root.dataset.status = run.status;
    setText(this.said, frame.said);
    this.said.hidden = !frame.said;
    const paused = run.status === "paused";
    setText(this.pause, paused ? "Resume" : "Pause");
    this.pause.dataset.kind = paused ? "resume" : "pause";
    this.pause.title = paused ? "Go on with the next step"
      : "Hold before the next step; everything so far is written";
    this.pause.disabled = !run.live || frame.asked !== null;
    this.stop.disabled = !run.live || frame.asked === "stop";
    this.pause.parentElement.hidden = !run.live;
  }

  drawRows(runs) {
    if (this.rows.childElementCount !== runs.length) {
      this.rows.replaceChildren(...runs.map((run) => node("div", { class: "wb-row" },
        node("span", { class: "wb-row-label" }, runs.length > 1 ? run.label : ""),
        node("div", {
          class: "wb-bar", role: "progressbar", "aria-label": `Steps of ${run.label}`,
          "aria-valuemin": 0,
        }, node("div", { class: "wb-fill" })),
        node("span", { class: "wb-steps" }))));
    }
    runs.forEach((run, i) => {
      const [, bar, steps] = this.rows.children[i].children;
      bar.setAttribute("aria-valuenow", run.step);
      bar.setAttribute("aria-valuemax", run.total_steps);
      bar.firstElementChild.style.width = `${Math.min(100, (100 * run.step) / run.total_steps)}%`;
      bar.dataset.status = run.status;
      bar.style.setProperty("--wb-colour", run.colour);
      const status = runs.length > 1 ? ` · ${run.status}` : "";
      setText(steps, `step ${thousands(run.step)} of ${thousands(run.total_steps)}${status}`);
    });
  }

  drawWarnings(warnings) {
    const told = JSON.stringify(warnings);
    if (told === this.warningsTold) return;
    this.warningsTold = told;
    this.warnings.hidden = !warnings.length;
    setText(this.warnings.firstElementChild, `Warnings: ${warnings.length}, newest first`);
    this.warned.replaceChildren(...[...warnings].reverse().map((each) =>
      node("li", {}, node("span", { class: "wb-steps" }, `step ${thousands(each.step)} `), each.text)));
  }

  drawForks(forks) {
    const told = JSON.stringify(forks ?? []);
    if (told === this.forksTold) return;
    this.forksTold = told;
    this.forks.hidden = !forks?.length;
    this.tree.replaceChildren(...(forks ?? []).map((fork) => node("li", {
      role: "treeitem", "aria-level": fork.depth + 1, style: `padding-left:${1.4 * fork.depth}em`,
      ...(fork.shown ? { "aria-current": "true" } : {}),
    }, node("span", { class: "wb-fork-name" }, fork.name),
    ` ${fork.left} · ${STATES[fork.status].join(" ")}`,
    fork.held_out_nats === null ? "" : ` · held-out ${fork.held_out_nats.toFixed(4)} nats`)));
  }

  drawNotice(notice) {
    this.notice.hidden = !notice;
    if (!notice) return setText(this.notice, "");
    const text = notice.remedy ? `${notice.problem} — ${notice.remedy}` : notice.problem;
    setText(this.notice, text);
  }

  drawControls(controls) {
    const names = controls.map((control) => control.name + (control.options ?? "")).join("|");
    if (names !== this.controlNames) {
      this.controlNames = names;
      this.fields.clear();
      this.fieldset.replaceChildren(node("legend", {}, "Change while it runs"),
        ...controls.map((control) => this.buildField(control)), this.apply);
    }
    for (const control of controls) {
      const field = this.fields.get(control.name);
      const value = String(control.value);
      if (field.dataset.value === value) continue;
      field.dataset.value = field.value = value;
    }
    this.markEdited();
  }

  buildField(control) {
    const options = control.options?.map((name) => node("option", { value: name }, name));
    const field = options ? node("select", {}, ...options)
      : node("input", { type: "text", inputmode: "decimal", size: 8, autocomplete: "off" });
    field.name = control.name;
    field.title = control.help;
    this.fields.set(control.name, field);
    return node("label", { title: control.help }, node("span", {}, control.label), field);
  }

  edited() {
    const changes = {};
    for (const [name, field] of this.fields) {
      if (field.value.trim() !== field.dataset.value) changes[name] = field.value.trim();
    }
    return changes;
  }

  markEdited() {
    const edited = this.edited();
    for (const [name, field] of this.fields) field.classList.toggle("wb-edited", name in edited);
    this.apply.disabled = !Object.keys(edited).length;
  }

  close() {
    Object.values(this.timers).forEach(clearTimeout);
    this.model.off("msg:custom", this.receive);
    this.observer.disconnect();
  }
}
