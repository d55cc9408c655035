"use strict";
// Drawing on 2D canvases: learning curves with bands, and parallel coordinates. No global state.

const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00"];
const VIRIDIS = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#dfe318"];
const MOST_CURVES = 8;

function tidy(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return String(+value.toPrecision(4));
}

function clipped(text, length) {
  return text.length > length ? text.slice(0, length - 1) + "…" : text;
}

function surface(canvas, height) {
  const ratio = window.devicePixelRatio || 1, width = canvas.parentElement.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "12px system-ui, sans-serif";
  return [pen, width];
}

function niceTicks(low, high, wanted) {
  const raw = (high - low) / wanted || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) ticks.push(+t.toPrecision(12));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
    for (const m of [1, 2, 5]) if (m * 10 ** e >= low && m * 10 ** e <= high) ticks.push(m * 10 ** e);
  }
  return ticks;
}

function groupColours(levels) {
  const numbers = levels.length > 2 && levels.every((level) => level !== "" && !isNaN(level));
  return levels.map((_, i) => numbers
    ? VIRIDIS[Math.round((i / (levels.length - 1)) * (VIRIDIS.length - 1))] : PALETTE[i % PALETTE.length]);
}

// What stands for several numbers: n, mean and t interval, as analysis/statistics/intervals.py computes them.
function summarise(values, quantiles) {
  let n = 0, mean = 0, squares = 0;
  for (const value of values) {
    const d = value - mean;
    mean += d / ++n;
    squares += d * (value - mean);
  }
  const half = n > 1 ? quantiles[n - 2] * Math.sqrt(squares / (n - 1) / n) : 0;
  return n ? { n, mean, low: mean - half, high: mean + half } : { n, mean: NaN, low: NaN, high: NaN };
}

// Mean over the rows of one seed first, then the summary over seeds; a value of NaN or null does not count.
function summaryBySeed(rows, valueOf, seedOf, quantiles) {
  const seeds = new Map();
  for (const row of rows) {
    const value = valueOf(row);
    if (value === null || value !== value) continue;
    const seed = seedOf(row), before = seeds.get(seed) || [0, 0];
    seeds.set(seed, [before[0] + value, before[1] + 1]);
  }
  return summarise([...seeds.values()].map(([sum, count]) => sum / count), quantiles);
}

function bandsBySeed(rows, curve, seedOf, quantiles) {
  const size = curve.steps.length;
  const at = curve.steps.map((_, s) => summaryBySeed(rows, (row) => curve.values[row * size + s], seedOf, quantiles));
  return { mean: at.map((item) => item.mean), low: at.map((item) => item.low), high: at.map((item) => item.high),
    seeds: new Set(rows.map(seedOf)).size };
}

function drawCurves(canvas, title, steps, series) {
  const height = 340, [pen, width] = surface(canvas, height);
  const left = 56, right = 150, top = 26, bottom = 34;
  const ys = series.flatMap((item) => [...item.low, ...item.high]).filter((y) => y === y);
  pen.fillStyle = "#1b1b1b";
  pen.fillText(title, left, 14);
  if (!ys.length) { pen.fillText("no logged value for these trials", left, height / 2); return; }
  let y0 = Math.min(...ys), y1 = Math.max(...ys);
  if (y0 === y1) { y0 -= 0.5; y1 += 0.5; }
  const x0 = steps[0], x1 = steps[steps.length - 1];
  const X = (s) => left + (width - left - right) * (x1 > x0 ? (s - x0) / (x1 - x0) : 0.5);
  const wide = y0 > 0 && y1 > 20 * y0, scale = wide ? Math.log : (y) => y;
  const Y = (y) => top + (height - top - bottom) * (1 - (scale(y) - scale(y0)) / (scale(y1) - scale(y0)));
  for (const t of wide ? logTicks(y0, y1) : niceTicks(y0, y1, 5)) {
    pen.fillStyle = "#e6e6e6"; pen.fillRect(left, Y(t), width - left - right, 1);
    pen.fillStyle = "#444"; pen.textAlign = "right"; pen.fillText(tidy(t), left - 6, Y(t) + 4);
  }
  pen.textAlign = "center";
  for (const t of niceTicks(x0, x1, 6)) pen.fillText(tidy(t), X(t), height - bottom + 16);
  pen.fillText("step", left + (width - left - right) / 2, height - 4);
  pen.textAlign = "left";
  series.forEach((item, index) => {
    const at = steps.map((_, s) => s).filter((s) => item.mean[s] === item.mean[s]);
    pen.fillStyle = item.colour; pen.strokeStyle = item.colour;
    pen.globalAlpha = 0.18; pen.beginPath();
    at.forEach((s) => pen.lineTo(X(steps[s]), Y(item.low[s])));
    [...at].reverse().forEach((s) => pen.lineTo(X(steps[s]), Y(item.high[s])));
    pen.fill();
    pen.globalAlpha = 1; pen.lineWidth = 1.8; pen.beginPath();
    at.forEach((s) => pen.lineTo(X(steps[s]), Y(item.mean[s])));
    pen.stroke();
    const y = top + 10 + index * 18;
    pen.fillRect(width - right + 12, y - 5, 16, 3);
    pen.fillStyle = "#1b1b1b";
    pen.fillText(clipped(item.name, 13) + " (n=" + item.seeds + ")", width - right + 34, y);
  });
}

// axes: [{name, position(row) -> 0…1 or null, ticks: [[text, 0…1]]}]; returns where each axis stands, for brushing.
function drawParallel(canvas, rows, axes, brushes) {
  const height = 300, [pen, width] = surface(canvas, height);
  const top = 34, bottom = 14, left = 46, right = 74, tall = height - top - bottom;
  const places = axes.map((_, j) => left + ((width - left - right) * j) / Math.max(1, axes.length - 1));
  const last = axes[axes.length - 1], paths = VIRIDIS.map(() => new Path2D());
  const ends = rows.map(last.position).filter((p) => p !== null).sort((a, b) => a - b);
  const limits = VIRIDIS.slice(1).map((_, i) => ends[Math.floor(((i + 1) * ends.length) / VIRIDIS.length)]);
  for (const row of rows) {
    const end = last.position(row);
    if (end === null) continue;
    const path = paths[limits.filter((limit) => end >= limit).length];
    let started = false;
    axes.forEach((axis, j) => {
      const p = axis.position(row);
      if (p === null) { started = false; return; }
      const y = top + tall * (1 - p);
      if (started) path.lineTo(places[j], y); else path.moveTo(places[j], y);
      started = true;
    });
  }
  pen.globalAlpha = Math.max(0.04, Math.min(0.7, 120 / Math.max(1, rows.length)));
  paths.forEach((path, i) => { pen.strokeStyle = VIRIDIS[i]; pen.stroke(path); });
  pen.globalAlpha = 1;
  const room = (width - left - right) / Math.max(1, axes.length - 1);
  axes.forEach((axis, j) => {
    pen.fillStyle = "#1b1b1b"; pen.textAlign = "center";
    pen.fillText(clipped(axis.name, Math.max(6, Math.floor(room / 7))), places[j], j % 2 && room < 70 ? 26 : 13);
    pen.fillStyle = "#555"; pen.fillRect(places[j], top, 1, tall);
    pen.textAlign = "left";
    for (const [text, p] of axis.ticks) {
      const shown = clipped(text, 14), y = top + tall * (1 - p), wide = pen.measureText(shown).width;
      pen.fillStyle = "rgba(255,255,255,0.78)"; pen.fillRect(places[j] + 3, y - 7, wide + 3, 14);
      pen.fillStyle = "#333"; pen.fillText(shown, places[j] + 4, y + 4);
    }
    const brush = brushes[axis.key];
    if (brush) {
      pen.fillStyle = "rgba(213,94,0,0.35)";
      pen.fillRect(places[j] - 6, top + tall * (1 - brush[1]), 12, tall * (brush[1] - brush[0]));
    }
  });
  return { places, top, tall };
}
