// Colours of the rows of a pool.  Every way of colouring gives each row a colour and a shape, and
// says what they mean in a key.
const COLOURINGS = {
  domain: "Domain", cluster: "Cluster", influence: "Influence", pulls: "Pulls of its cluster",
  accepted: "Accepted",
};
const TURN = [
  ["#0072B2", "circle"], ["#D55E00", "square"], ["#009E73", "diamond"], ["#CC79A7", "triangle-up"],
  ["#E69F00", "x"], ["#56B4E9", "triangle-down"], ["#8C8C8C", "cross"], ["#B8A900", "star"],
];
const HARMFUL = "#D55E00", NEUTRAL = "#BDBDBD", HELPFUL = "#0072B2";
const FEW = "#C9C9C9", SOME = "#E69F00", MANY = "#B03A00";
const QUIET = "#8A8A8A";

const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
const hex = (parts) =>
  `#${parts.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;
const blend = (from, to, part) =>
  hex(channels(from).map((value, i) => value + part * (channels(to)[i] - value)));

// `stops` evenly along 0 to 1.
function along(stops, value) {
  const at = Math.min(1, Math.max(0, value)) * (stops.length - 1);
  const first = Math.min(stops.length - 2, Math.floor(at));
  return blend(stops[first], stops[first + 1], at - first);
}

const SHADES = 33;
const shades = (stops) => Array.from({ length: SHADES }, (_, i) => along(stops, i / (SHADES - 1)));
const INFLUENCE_SHADES = shades([HARMFUL, NEUTRAL, HELPFUL]);
const PULL_SHADES = shades([FEW, SOME, MANY]);
const SHARE_SHADES = shades([FEW, HELPFUL]);

// Looks, and for each row the index of its look; a look is colour, marker, and whether it is faint.
function looksOf(way, pool, round) {
  const { rows, columns } = pool, of = new Uint8Array(rows);
  const whole = (stops, marker) => stops.map((colour) => ({ colour, marker }));
  if (way === "domain") {
    of.set(columns.domain);
    return { looks: pool.domains.map(({ colour, marker }) => ({ colour, marker })), of };
  }
  if (way === "cluster") {
    for (let i = 0; i < rows; i++) of[i] = columns.cluster[i] % TURN.length;
    return { looks: TURN.map(([colour, marker]) => ({ colour, marker })), of };
  }
  if (way === "accepted" && round?.accepted && !round.last) {
    // Rounds tell how many rows of a cluster were accepted, the end of the choice tells which.
    for (let i = 0; i < rows; i++) {
      const c = columns.cluster[i];
      of[i] = Math.round((round.accepted[c] / pool.arms.rows[c]) * (SHADES - 1));
    }
    return { looks: whole(SHARE_SHADES, "circle"), of, growing: true };
  }
  if (way === "accepted") {
    of.set(columns.accepted);
    return {
      looks: [{ colour: QUIET, marker: "x", faint: true }, { colour: HELPFUL, marker: "circle" }], of,
    };
  }
  if (way === "pulls") {
    const pulls = round?.pulls ?? [], most = Math.max(1, ...pulls, ...pool.arms.pulls);
    for (let i = 0; i < rows; i++) {
      of[i] = Math.round(((pulls[columns.cluster[i]] ?? 0) / most) * (SHADES - 1));
    }
    return { looks: whole(PULL_SHADES, "circle"), of, most };
  }
  const half = (SHADES - 1) / 2, until = round && !round.last ? round.step : Infinity;
  const looks = INFLUENCE_SHADES.map((colour, i) =>
    ({ colour, marker: i < half ? "triangle-down" : i > half ? "triangle-up" : "circle" }));
  looks.push({ colour: QUIET, marker: "circle", faint: true });
  for (let i = 0; i < rows; i++) {
    const value = columns.influence[i];
    of[i] = Number.isNaN(value) || columns.scored[i] > until ? SHADES
      : Math.round(half + half * Math.min(1, Math.max(-1, value / pool.limit)));
  }
  return { looks, of };
}

function strip(colours, low, middle, high) {
  const bar = node("span", { class: "wb-strip", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${colours.join()})`;
  const text = (value) => node("span", { class: "wb-value" }, value);
  return node("span", { class: "wb-scale" }, text(low), bar, text(high),
    ...(middle ? [node("span", { class: "wb-unit" }, middle)] : []));
}

function mark(look, text) {
  return node("span", { class: "wb-scale" },
    node("svg", { width: 12, height: 12, "aria-hidden": "true" }, symbol(look, 6, 6)),
    node("span", {}, text));
}

// The key below the map, for the ways that have no buttons of their own.
function keyOf(way, pool, looks) {
  const few = (value) => String(+value.toPrecision(3));
  if (way === "cluster") {
    return [node("span", { class: "wb-unit" },
      "Colours and shapes repeat; a number names the cluster around it")];
  }
  if (looks.growing) {
    return [strip([FEW, HELPFUL], "0", "share of a row's cluster accepted up to the round shown", "all")];
  }
  if (way === "accepted") {
    return [mark(looks.looks[1], `accepted, ${thousands(pool.accepted)} rows`),
      mark(looks.looks[0], "left out")];
  }
  if (way === "pulls") {
    return [strip([FEW, SOME, MANY], "0", "pulls of a row's cluster up to the round shown",
      thousands(looks.most))];
  }
  return [strip([HARMFUL, NEUTRAL, HELPFUL], `▼ ${few(-pool.limit)} harmful`,
    "influence per token", `helpful ${few(pool.limit)} ▲`),
  mark({ colour: QUIET, marker: "circle" }, "not scored")];
}
