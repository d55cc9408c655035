"use strict";
// One sweep, or several side by side, while they run. The server says what is new; what a reader chose is in the address.

const MOST_ROWS = 50;
const PACE_MS = 60000; // time left is judged by the last minute
const VERDICT_MS = 3000; // between two questions for the verdict
const query = new URLSearchParams(location.search);

function duration(seconds) {
  if (seconds < 90) return Math.ceil(seconds) + " s";
  return seconds < 5400 ? Math.round(seconds / 60) + " min" : (seconds / 3600).toFixed(1) + " h";
}

class Watched {
  constructor(name) {
    this.name = name;
    this.boxes = [...document.querySelectorAll("[data-sweep]")].filter((box) => box.dataset.sweep === name);
    this.trials = new Map();
    this.pace = [];
    this.part("metric").onchange = (event) => { choose("metric", event.target.value); listen(); };
    this.part("group").onchange = (event) => { choose("group", event.target.value); draw(); };
    this.part("report").href = "/sweeps/" + encodeURIComponent(name) + "/report";
    tooltip(this.part("curves"), (x, y) => lineAt(this.part("curves"), x, y));
  }

  part(name) { return this.boxes.map((box) => box.querySelector(`[data-part="${name}"]`)).find(Boolean); }

  take(told) {
    if (told.gone) { this.part("done").textContent = "The sweep's folder cannot be read: " + told.gone + "."; return; }
    if (told.whole) {
      this.trials.clear();
      Object.assign(this, { metric: told.metric, factors: told.factors });
      this.options("metric", told.metrics, told.metric);
      this.options("group", told.factors, query.get("group") ?? "");
    }
    for (const [name, facts] of Object.entries(told.trials)) {
      const trial = this.trials.get(name) ?? { name, steps: [], mean: [] };
      this.trials.set(name, Object.assign(trial, { facts }));
    }
    for (const [name, { again, steps, values }] of Object.entries(told.rows)) {
      const trial = this.trials.get(name);
      if (again) { trial.steps = []; trial.mean = []; }
      trial.steps.push(...steps); trial.mean.push(...values);
    }
  }

  options(part, choices, chosen) {
    const select = this.part(part);
    select.textContent = "";
    for (const { name, label } of choices) element("option", label, select).value = name;
    if (choices.some(({ name }) => name === chosen)) select.value = chosen;
  }

  in(phase) { return [...this.trials.values()].filter(({ facts }) => facts.phase === phase); }

  chart() {
    const place = this.factors.findIndex(({ name }) => name === this.part("group").value), factor = this.factors[place];
    const levels = factor ? factor.levels : [], lines = [...this.trials.values()].filter(({ steps }) => steps.length);
    for (const line of lines) line.group = (factor && line.facts.levels[place]) ?? levels.length;
    const colours = groupColours(levels);
    const groups = levels.map((name, i) => ({ name: factor.label + " " + name, colour: colours[i] }));
    if (lines.some(({ group }) => group === levels.length)) groups.push({ name: "other trials", colour: "--soft" });
    const metric = this.part("metric").selectedOptions[0]?.textContent ?? "";
    return { title: metric + ": a line for each trial", groups, lines };
  }

  progress(now) {
    const all = [...this.trials.values()].map(({ facts }) => facts), longest = Math.max(0, ...all.map(({ steps }) => steps ?? 0));
    const ended = all.filter(({ phase }) => phase === "done" || phase === "lost").length;
    let done = 0, total = 0;
    for (const { phase, steps, at } of all) {
      const whole = steps ?? longest;
      total += whole; done += phase === "done" || phase === "lost" ? whole : Math.min(at, whole);
    }
    this.ended = ended;
    this.over = all.length > 0 && ended === all.length;
    this.pace = [...this.pace, [now, done]].filter(([time]) => now - time < PACE_MS);
    const [[since, before]] = this.pace, rate = (done - before) / (now - since) * 1000;
    const trains = this.in("trains").length;
    const left = this.over ? "all have ended" : !trains ? "nothing trains now" : rate > 0 ? "about " + duration((total - done) / rate) + " left"
      : "time left is not known yet";
    this.part("bar").max = total || 1; this.part("bar").value = this.over ? total || 1 : done;
    this.part("done").textContent = ended + " of " + counted(all.length, "trial") + " ended; " + left + ".";
    const states = new Map();
    for (const { state } of all) states.set(state, (states.get(state) ?? 0) + 1);
    this.part("counts").textContent = [...states].map(([state, number]) => number + " " + state).join(", ");
    this.part("report").hidden = !this.over;
  }

  rows(part, heads, trials, cells) {
    const box = this.part(part), title = box.getAttribute("aria-label");
    if (!trials.length) { box.textContent = ""; element("p", title + ": none.", box).className = "soft"; return; }
    const caption = title + ": " + counted(trials.length, "trial") + (trials.length > MOST_ROWS ? ", the first " + MOST_ROWS + " of them here" : "");
    const made = showTable(box, { caption, heads, rows: trials.map((trial) => [trial.name, ...cells(trial)]) }, MOST_ROWS);
    made.className = part === "failures" ? "marked" : "";
  }

  tables() {
    this.rows("trains", ["trial", "step", "of", "last value"], this.in("trains"),
      ({ facts, mean }) => [facts.at, facts.steps ?? "?", mean.at(-1)]);
    const byPack = this.in("waits").sort((a, b) => (a.facts.pack ?? 0) - (b.facts.pack ?? 0));
    this.rows("waits", ["trial", "state", "pack", "steps"], byPack,
      ({ facts }) => [facts.state, facts.pack === null ? null : facts.pack + 1, facts.steps ?? "?"]);
    this.rows("failures", ["trial", "state", "reason"], this.in("lost"), ({ facts }) => [facts.state, facts.detail || null]);
  }

  // Asks again once more trials have ended, one question at a time.
  async verdict() {
    const known = this.ended + " of " + this.trials.size, now = performance.now();
    if (!this.ended || known === this.judged || this.isAsking || now - this.asked < VERDICT_MS) return;
    Object.assign(this, { isAsking: true, asked: now });
    if (!this.part("verdict").hasChildNodes()) this.part("standing").textContent = "Comparing the trials that have ended …";
    try {
      const answer = await fetch("/sweeps/" + encodeURIComponent(this.name) + "/verdict");
      if (!answer.ok) return;
      this.part("verdict").innerHTML = await answer.text(); // the server's own markup, names in it escaped
      this.judged = known;
      this.part("standing").textContent = this.over ? "Final: every trial has ended."
        : "Preliminary: " + known + " trials have ended; more trials may change every verdict.";
    } catch { // the server does not answer; the line on progress says so
    } finally { this.isAsking = false; }
  }
}

function choose(key, value) {
  query.set(key, value);
  history.replaceState(null, "", "?" + query);
}

const sweeps = new Map([...document.querySelectorAll("[data-sweep]")].map(({ dataset }) => [dataset.sweep, null]));
for (const name of sweeps.keys()) sweeps.set(name, new Watched(name));
let source = null;

function listen() {
  source?.close();
  const asked = new URLSearchParams([...sweeps.keys()].map((name) => ["sweep", name]));
  if (query.has("metric")) asked.set("metric", query.get("metric"));
  source = new EventSource("/events?" + asked);
  source.onmessage = ({ data }) => {
    const told = JSON.parse(data), began = performance.now();
    sweeps.get(told.sweep).take(told);
    if (!told.gone) draw();
    document.documentElement.dataset.update = performance.now() - began;
    document.documentElement.dataset.ready ??= performance.now();
  };
  source.onerror = () => { for (const one of sweeps.values()) one.part("done").textContent = "The server does not answer; trying again …"; };
}

// Sweeps side by side have the same axes.
function draw() {
  const now = performance.now(), known = [...sweeps.values()].filter((one) => one.factors), charts = known.map((one) => one.chart());
  const range = extent(charts.flatMap(({ lines }) => lines));
  known.forEach((one, i) => {
    drawCurves(one.part("curves"), { ...charts[i], range });
    one.progress(now);
    one.tables();
    one.verdict();
  });
}

listen();
setInterval(() => { for (const one of sweeps.values()) if (one.factors) one.verdict(); }, VERDICT_MS);
window.addEventListener("resize", draw);
DARK.addEventListener("change", draw);
