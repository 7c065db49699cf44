// A panel that also shows one step of its run: a slider over the steps, which can be played, and a
// button back to the newest.  Subclasses name the frame's `part` and draw it in `drawStep`.
const OWN_KEYS = /^(Arrow(Left|Right|Up|Down)|Home|End|PageUp|PageDown| )$/;
const PLAY_MS = 100;
const PLAY_FRAMES = 150;

class ScrubView extends PanelView {
  build(host) {
    this.live = true;
    this.playing = false;
    this.step = null;
    this.key = null;
    super.build(host);
    // The notebook takes arrow keys for itself, also those of a focused slider.
    this.root.addEventListener("keydown", (event) => {
      if (OWN_KEYS.test(event.key)) event.stopPropagation();
    });
  }

  // What the slider counts.
  get noun() { return "Step"; }

  // Where the curves are marked.
  markedStep(part) { return part.step; }

  buildScrub(nothing, newest) {
    this.slider = node("input", {
      type: "range", class: "wb-slider", min: 0, max: 0, step: 1, value: 0, disabled: "",
      "aria-label": `${this.noun} shown`,
    });
    this.slider.addEventListener("input", () => {
      this.playing = false;
      this.hold(Number(this.slider.value));
    });
    this.slider.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      this.play();
    });
    this.stepText = node("span", { class: "wb-steps wb-shown-step" }, nothing);
    this.player = node("button", {
      type: "button", class: "wb-button", disabled: "",
      title: `Replay the ${this.noun.toLowerCase()}s; also with the space bar on the slider`,
    }, "▶ Play");
    this.player.addEventListener("click", () => this.play());
    this.follow = node("button", {
      type: "button", class: "wb-button", "aria-pressed": "true", title: newest,
    }, "Live");
    this.follow.addEventListener("click", () => {
      this.playing = false;
      if (this.live) return this.hold(Number(this.slider.value));
      this.goLive();
    });
    this.facts = node("div", { class: "wb-facts" });
    return node("div", { class: "wb-scrub" },
      node("label", { class: "wb-scrub-line" }, this.stepText, this.slider), this.player,
      this.follow, this.facts);
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

  goLive() {
    this.live = true;
    this.drawScrub();
    this.ask();
  }

  // From the first step where the last is shown, else from the one shown.
  play() {
    this.playing = !this.playing;
    if (!this.playing) return this.hold(Number(this.slider.value));
    const [first, last] = this.recorded, step = Number(this.slider.value);
    this.hold(this.live || step === last ? first : step);
  }

  // The next step is asked for when this one is drawn and has been seen for a moment.
  playOn(since) {
    clearTimeout(this.timers.play);
    this.timers.play = setTimeout(() => {
      if (!this.playing) return;
      const [first, last] = this.recorded;
      if (this.step < last) {
        return this.hold(Math.min(last, this.step + Math.ceil((last - first) / PLAY_FRAMES)));
      }
      this.playing = false;
      this.goLive();
    }, Math.max(0, PLAY_MS - (performance.now() - since)));
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

  // --- drawing ---

  draw(frame) {
    super.draw(frame);
    if (frame.answers === "next") this.waiting = false;
    if (frame.recorded) {
      this.recorded = frame.recorded;
      const part = frame[this.part];
      if (part) {
        this.key = part.key;
        this.root.dataset.shown = part.step;
        this.drawStep(part);
        for (const chart of this.charts.slice(0, 2)) {
          chart.at = this.markedStep(part);
          chart.draw();
        }
      }
      this.drawScrub();
      if (this.playing && Number(this.root.dataset.shown) === this.step) this.playOn(this.askedAt);
    }
    if (this.again) this.next();
  }

  drawScrub() {
    if (!this.recorded) return;
    const [first, last] = this.recorded;
    this.slider.disabled = this.player.disabled = first === last;
    this.slider.min = first;
    this.slider.max = last;
    this.slider.value = this.live ? last : this.step;
    const step = Number(this.slider.value);
    this.slider.setAttribute("aria-valuetext", `${this.noun.toLowerCase()} ${step}${this.live ? ", the newest" : ""}`);
    setText(this.stepText, `${this.noun} ${thousands(step)} of ${thousands(first)} to ${thousands(last)}`);
    setText(this.player, this.playing ? "❚❚ Hold" : "▶ Play");
    this.follow.setAttribute("aria-pressed", this.live);
    this.root.dataset.follows = this.live;
    this.root.dataset.plays = this.playing;
  }

  drawFacts(facts) {
    this.facts.replaceChildren(...facts
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => node("span", { class: "wb-fact" },
        node("span", { class: "wb-tile-label" }, name), node("span", {}, String(value)))));
  }
}
