// The page's own part: reads the controls, asks router.js, draws. Without it the page stands as it is.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const STEPS = { resize: "resize", light: "light model", head: "head", encode: "encode", network: "network", cloud: "cloud" };
// The largest and smallest a slider says; all but cloud speed begin above 0 because they are logarithmic.
const RANGES = { rtt: [0.5, 500], mbps: [0.1, 1000], budget: [5, 3000], speed: [0.25, 64] };
const UNITS = { rtt: "ms", mbps: "Mbit/s", budget: "ms", speed: "×" };
const SHOWN = 8;

const state = { all: false, map: "link" };

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function html(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(3)}%`;
const titled = (words) => svg("title", {}, words);
const round3 = (value) => Number(value.toPrecision(3));
const percentOf = (share) => (100 * share).toFixed(1);
const layerWords = ({ layers }) => (layers ? (layers > 1 ? `first ${layers} layers` : "first layer") : "");
// The table's standard error is that of the whole.
const rateWords = (answer) =>
  answer.layers ? `${percentOf(answer.agreement)} %` : `${percentOf(answer.agreement)} ± ${percentOf(answer.error)} %`;
const shareOf = (value, [low, high]) => Math.log(value / low) / Math.log(high / low);
const valueAt = (share, [low, high]) => low * (high / low) ** share;

function chip(plan) {
  const made = html("span", { class: "code-of" }, plan.code);
  made.style.setProperty("--c", plan.colour);
  return made;
}

// A plan's name that may be broken after its separators.
function named(plan) {
  const parts = plan.plan.split(/(?<=[:/])/);
  return parts.flatMap((part, place) => (place ? [html("wbr", {}), part] : [part]));
}

function machine() {
  return data.machines.find((each) => each.key === state.machine);
}

function options(changes = {}) {
  const cloud = data.clouds.find((each) => each.key === state.cloud);
  const nothing = data.plans.map(() => null);
  const link = { rtt_ms: state.rtt, mbps: state.mbps, cloud_speed: state.speed, ...changes };
  return optionsOn(data.plans, machine().device_ms, cloud ? cloud.ms : nothing, link);
}

function showVerdict(found) {
  const { taken, words } = found;
  const name = html("p", { class: "taken" }, chip(taken), ...named(taken));
  const time = taken.total_ms < Infinity ? `${msWords(taken.total_ms)} of ${msWords(state.budget)} ms` : "untimed";
  const from = taken.layers ? ` from its ${layerWords(taken)}` : "";
  at("verdict").replaceChildren(name, html("p", {}, `${rateWords(taken)} agreement${from}, ${time}: ${words}.`));
}

function showLadder(rungs) {
  const range = RANGES.budget;
  const strips = rungs.map((rung, place) => {
    const from = Math.max(shareOf(rung.from_ms, range), 0);
    const to = place + 1 < rungs.length ? shareOf(rungs[place + 1].from_ms, range) : 1;
    return { ...rung, from, to: Math.min(Math.max(to, 0), 1) };
  });
  const drawn = strips
    .filter((strip) => strip.to > strip.from)
    .flatMap(({ answer, from, to, from_ms }) => [
      svg("rect", { x: percent(from), width: percent(to - from), y: 4, height: 22, style: `fill: ${answer.colour}` },
        titled([answer.plan, layerWords(answer), `from ${msWords(from_ms)} ms`].filter(Boolean).join(", "))),
      ...(to - from > 0.05 ? [svg("text", { x: percent((from + to) / 2), y: 19, "text-anchor": "middle", style: "fill: #10131a; font-weight: 700" }, answer.code)] : []),
    ]);
  const here = percent(Math.min(Math.max(shareOf(state.budget, range), 0), 1));
  const ticks = [10, 30, 100, 300, 1000].map((ms) =>
    svg("text", { x: percent(shareOf(ms, range)), y: 42, "text-anchor": "middle", class: "tick" }, `${ms} ms`));
  const mark = svg("line", { x1: here, x2: here, y1: 0, y2: 30, class: "mark" });
  at("ladder").replaceChildren(svg("svg", { width: "100%", height: 46, "aria-hidden": "true" }, ...drawn, ...ticks, mark));
  at("rungs").replaceChildren(...rungs.map(({ from_ms, answer }) =>
    html("li", {}, html("b", {}, `from ${msWords(from_ms)} ms `), chip(answer), `${percentOf(answer.agreement)} %`,
      ...(answer.layers ? [" ", html("small", {}, layerWords(answer))] : []))));
}

function bar(option, scale) {
  const parts = machine().parts[option.at].map(([step, ms]) => [step, ms === null ? 0 : ms]);
  if (!option.local) parts.push(["network", option.network_ms], ["cloud", option.cloud_ms]);
  let start = 0;
  const drawn = [];
  for (const [step, ms] of parts) {
    const end = Math.min(start + ms, scale);
    if (end > start) {
      drawn.push(svg("rect", { x: percent(start / scale), width: percent((end - start) / scale), y: 3, height: 12, class: step },
        titled(`${STEPS[step] || step}: ${msWords(ms)} ms`)));
    }
    start = end;
  }
  const limit = percent(Math.min(state.budget / scale, 1));
  drawn.push(svg("line", { x1: limit, x2: limit, y1: 0, y2: 18, class: "mark" }));
  return svg("svg", { width: "100%", height: 18, role: "img", "aria-label": parts.map(([step, ms]) => `${STEPS[step] || step} ${msWords(ms)} ms`).join(", ") }, ...drawn);
}

function showBars(rows) {
  rows = rows.map(({ option, why }) => ({ option: answered(option, state.budget), why }));
  const finite = rows.map(({ option }) => option.total_ms).filter((ms) => ms < Infinity);
  const shown = state.all ? rows : rows.slice(0, SHOWN);
  const longest = Math.max(...shown.map(({ option }) => option.total_ms).filter((ms) => ms < Infinity), 1);
  const scale = 1.02 * Math.min(Math.max(longest, Math.min(state.budget, Math.max(...finite))), 2.5 * Math.max(state.budget, 20));
  const made = shown.map(({ option, why }, place) => {
    const timed = option.total_ms < Infinity;
    const row = html("tr", { class: place === 0 ? "is-taken" : option.total_ms > state.budget ? "late" : "" },
      html("th", { scope: "row" }, chip(option), ...named(option)),
      html("td", { class: "num" }, rateWords(option)),
      html("td", { class: "bar-cell" }, ...(timed ? [bar(option, scale)] : [])),
      html("td", { class: "num" }, timed ? msWords(option.total_ms) : "–"),
      html("td", { class: "why" }, why));
    return row;
  });
  at("bars").querySelector("tbody").replaceChildren(...made);
  at("more").hidden = rows.length <= SHOWN;
  at("more").textContent = state.all ? `Show the first ${SHOWN}` : `Show all ${rows.length} plans`;
}

const MAPS = {
  link: { name: "round trip × throughput", down: "rtt", words: () => `Budget ${round3(state.budget)} ms.` },
  budget: { name: "budget × throughput", down: "budget", words: () => `Round trip ${round3(state.rtt)} ms.` },
};

function showMap() {
  const { down, words } = MAPS[state.map];
  const columns = 96, rows = 44, height = 300, foot = 34, left = 0.085, right = 0.995;
  const wide = (right - left) / columns, tall = (height - foot) / rows;
  const cells = [];
  const areas = new Map();
  for (let row = 0; row < rows; row += 1) {
    const value = valueAt(1 - (row + 0.5) / rows, RANGES[down]);
    const line = [];
    for (let column = 0; column < columns; column += 1) {
      const mbps = valueAt((column + 0.5) / columns, RANGES.mbps);
      const found = down === "rtt" ? options({ mbps, rtt_ms: value }) : options({ mbps });
      const { option, fits } = choose(found, down === "budget" ? value : state.budget);
      line.push(fits ? option.at : -1);
      if (fits) {
        const area = areas.get(option.at) || { count: 0, places: [] };
        area.count += 1;
        area.places.push([column, row]);
        areas.set(option.at, area);
      }
    }
    for (let from = 0; from < columns; ) {
      let to = from;
      while (to < columns && line[to] === line[from]) to += 1;
      const plan = data.plans[line[from]];
      const colour = plan ? plan.colour : "var(--line)";
      const box = { x: percent(left + from * wide), width: percent((to - from) * wide), y: row * tall, height: tall + 0.5, style: `fill: ${colour}` };
      cells.push(svg("rect", box, titled(plan ? `${plan.code} ${plan.plan}` : "nothing fits")));
      from = to;
    }
  }
  const order = [...areas].sort((one, other) => other[1].count - one[1].count);
  const labels = order
    .filter(([, area]) => area.count > 60)
    .map(([place, area]) => label(area.places, data.plans[place].code, { left, wide, tall }));
  const drawing = svg("svg", { width: "100%", height, "aria-hidden": "true" }, ...cells, ...labels,
    ...axes(down, { left, right, height, foot }), ...here(down, { left, right, height, foot }));
  at("map").replaceChildren(drawing);
  const total = columns * rows;
  at("map-legend").replaceChildren(...order.map(([place, area]) => {
    const plan = data.plans[place];
    return html("li", {}, chip(plan), ...named(plan), " ", html("small", {}, area.count * 200 < total ? "<1 % of the map" : `${((100 * area.count) / total).toFixed(0)} % of the map`));
  }));
  at("map-words").textContent = `${words()} The ring is where the sliders stand; a click moves them. Grey: nothing fits, the device answers as it can.`;
}

// Beside the cell of an area that lies nearest its middle.
function label(places, code, { left, wide, tall }) {
  const mean = [0, 1].map((axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length);
  const distance = ([x, y]) => (x - mean[0]) ** 2 + (2 * (y - mean[1])) ** 2;
  const best = places.reduce((one, other) => (distance(other) < distance(one) ? other : one));
  return svg("text", { x: percent(left + (best[0] + 0.5) * wide), y: (best[1] + 0.5) * tall, class: "on-map" }, code);
}

function axes(down, { left, right, height, foot }) {
  const ticks = { rtt: [1, 3, 10, 30, 100, 300], budget: [10, 30, 100, 300, 1000], mbps: [0.1, 1, 10, 100, 1000] };
  const drawn = ticks.mbps.map((value) => {
    const share = shareOf(value, RANGES.mbps);
    return svg("text", { x: percent(left + (right - left) * share), y: height - foot + 15, "text-anchor": share > 0.9 ? "end" : "middle", class: "tick" }, `${value}`);
  });
  drawn.push(svg("text", { x: percent(right), y: height - 4, "text-anchor": "end", class: "tick name" }, "throughput, Mbit/s"));
  for (const value of ticks[down]) {
    const y = (height - foot) * (1 - shareOf(value, RANGES[down]));
    drawn.push(svg("text", { x: percent(left - 0.01), y: y + 4, "text-anchor": "end", class: "tick" }, `${value}`));
  }
  drawn.push(svg("text", { x: "0%", y: height - 4, class: "tick name" }, down === "rtt" ? "↑ round trip, ms" : "↑ budget, ms"));
  return drawn;
}

function here(down, { left, right, height, foot }) {
  const cx = percent(left + (right - left) * Math.min(Math.max(shareOf(state.mbps, RANGES.mbps), 0), 1));
  const cy = (height - foot) * (1 - Math.min(Math.max(shareOf(Math.max(state[down], RANGES[down][0]), RANGES[down]), 0), 1));
  return [svg("circle", { cx, cy, r: 6, class: "here-rim" }), svg("circle", { cx, cy, r: 6, class: "here" })];
}

function onMap(event) {
  const box = at("map").getBoundingClientRect();
  const across = ((event.clientX - box.left) / box.width - 0.085) / (0.995 - 0.085);
  const up = 1 - (event.clientY - box.top) / (box.height - 34);
  if (across < 0 || across > 1 || up < 0 || up > 1) return;
  state.mbps = round3(valueAt(across, RANGES.mbps));
  state[MAPS[state.map].down] = round3(valueAt(up, RANGES[MAPS[state.map].down]));
  update();
}

// What depends on the device alone: times beside cuts and plans, and the chart of device time.
function showMachine() {
  const { heads, device_ms, front, key, times } = machine();
  for (const cell of document.querySelectorAll("[data-head]")) {
    const ms = heads[cell.dataset.head];
    cell.textContent = ms === null || ms === undefined ? "–" : `${msWords(ms)} ms${times === "measured" ? "" : " est."}`;
  }
  for (const row of document.querySelectorAll("[data-plan]")) {
    const ms = device_ms[row.dataset.plan];
    row.querySelector(".device-ms").textContent = ms === null ? "–" : msWords(ms);
    row.querySelector(".front-mark").textContent = front[row.dataset.plan] ? "front" : "";
    row.classList.toggle("on-front", front[row.dataset.plan]);
  }
  for (const figure of document.querySelectorAll("[data-machine]")) figure.hidden = figure.dataset.machine !== key;
}

function update() {
  for (const name of Object.keys(RANGES)) {
    const slider = at(name);
    const share = shareOf(Math.max(state[name], RANGES[name][0]), RANGES[name]);
    slider.value = Math.round(1000 * Math.min(Math.max(share, 0), 1));
    const words = `${round3(state[name]).toLocaleString("en")} ${UNITS[name]}`;
    slider.setAttribute("aria-valuetext", words);
    slider.nextElementSibling.textContent = words;
  }
  for (const button of at("links").children) {
    const link = data.links.find((each) => each.name === button.dataset.link);
    button.setAttribute("aria-pressed", link.rtt_ms === state.rtt && link.mbps === state.mbps);
  }
  const found = options();
  showVerdict(verdict(found, state.budget));
  showLadder(ladder(found));
  showBars(explain(found, state.budget));
  showMap();
}

function fill(select, entries, chosen) {
  select.replaceChildren(...entries.map((each) =>
    html("option", { value: each.key }, each.times && each.times !== "measured" ? `${each.name} (${each.times})` : each.name)));
  select.value = chosen;
}

function begin() {
  const { machine: key, cloud, rtt_ms, mbps, budget_ms, cloud_speed } = data.start;
  Object.assign(state, { machine: key, cloud, rtt: rtt_ms, mbps, budget: budget_ms, speed: cloud_speed });
  fill(at("machine"), data.machines, key);
  fill(at("cloud"), data.clouds, cloud);
  for (const name of Object.keys(RANGES)) {
    at(name).addEventListener("input", (event) => {
      state[name] = round3(valueAt(event.target.value / 1000, RANGES[name]));
      update();
    });
  }
  for (const name of ["machine", "cloud"]) {
    at(name).addEventListener("change", (event) => {
      state[name] = event.target.value;
      showMachine();
      update();
    });
  }
  at("links").append(...data.links.map((link) => {
    const words = `${link.name} · ${link.rtt_ms} ms, ${link.mbps} Mbit/s`;
    const button = html("button", { type: "button", "data-link": link.name }, words);
    button.addEventListener("click", () => {
      Object.assign(state, { rtt: link.rtt_ms, mbps: link.mbps });
      update();
    });
    return button;
  }));
  at("map-kinds").append(...Object.entries(MAPS).map(([kind, { name }]) => {
    const button = html("button", { type: "button", "aria-pressed": kind === state.map }, name);
    button.addEventListener("click", () => {
      state.map = kind;
      for (const other of at("map-kinds").children) other.setAttribute("aria-pressed", other === button);
      update();
    });
    return button;
  }));
  at("more").addEventListener("click", () => {
    state.all = !state.all;
    update();
  });
  at("map").addEventListener("click", onMap);
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["controls", "interactive", "map-part"]) at(id).hidden = false;
  showMachine();
  update();
}

function themes() {
  const button = at("theme");
  const order = ["system", "light", "dark"];
  let chosen = 0;
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = (chosen + 1) % order.length;
    if (chosen) document.documentElement.dataset.theme = order[chosen];
    else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${order[chosen]}`;
  });
}

themes();
if (data.machines.length && data.start.machine) begin();
