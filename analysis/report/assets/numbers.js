"use strict";
// Numbers and names as a reader likes them, and means as analysis/statistics/intervals.py computes them.

function tidy(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return String(+value.toPrecision(4));
}

// A power of ten from 1 on: 100, 10k, 1M.
function power(value) { return value < 1e4 ? String(value) : value < 1e6 ? value / 1e3 + "k" : value / 1e6 + "M"; }

function counted(number, what) { return number + " " + what + (number === 1 ? "" : "s"); }

// Text without what no file format for text may have.
function withoutControls(text) { return text.replace(/[\x00-\x1f\x7f]/g, " "); }

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
