// Texts of rows, asked for when first wanted and then kept; one question at a time.
const KEPT_TEXTS = 2000;
const READ_AGAIN_MS = 1000;

class Texts {
  constructor(ask) {
    this.ask = ask;
    this.clear();
  }

  clear() {
    this.known = new Map();
    this.askedAt = null;
  }

  // What is known of a row; null while it is on its way, so look again when something was kept.
  get(row) {
    const known = this.known.get(row);
    if (known) return known;
    if (!this.askedAt || performance.now() - this.askedAt > READ_AGAIN_MS) {
      this.askedAt = performance.now();
      this.ask(row);
    }
    return null;
  }

  keep(row, told) {
    this.askedAt = null;
    if (this.known.size >= KEPT_TEXTS) this.known.clear();
    this.known.set(row, told);
  }
}
