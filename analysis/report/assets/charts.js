"use strict";
// Drawing with a pen, a canvas's 2D context or an SvgPen: axes, curves, and the tooltip over them. Colours are named as in page.css.

const FONT_SIZE = 12, FONT_FAMILY = "system-ui, sans-serif";
const GROUP_COLOURS = 8, SCALE_COLOURS = 8;
const MOST_OVERLAPPING = 6, NARROW = 560;
const DARK = window.matchMedia("screen and (prefers-color-scheme: dark)");

// The colour of this name where the pen draws: that of the page's light or dark theme, or of paper.
function shade(pen, name) { return getComputedStyle(pen.canvas).getPropertyValue(name).trim(); }

// The names of the levels' colours: a scale for three numbers or more.
function groupColours(levels) {
  const numbers = levels.length > 2 && levels.every((level) => level !== "" && !isNaN(level)), last = levels.length - 1;
  return levels.map((_, i) => numbers ? "--scale-" + Math.round((i / last) * (SCALE_COLOURS - 1)) : "--group-" + (i % GROUP_COLOURS));
}

function clipped(text, length) {
  return text.length > length ? text.slice(0, length - 1) + "…" : text;
}

// Draws on a canvas that is as wide as its place: `paint(pen, width)` does it, and does it again when the figure is saved.
function drawOn(canvas, height, paint) {
  const ratio = window.devicePixelRatio || 1, width = canvas.parentElement.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = height + "px";
  canvas.figure = { width, height, paint };
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = FONT_SIZE + "px " + FONT_FAMILY;
  return paint(pen, width);
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

// The ranges of all curves together: steps, and values with their intervals; null where there is no value.
function extent(lines) {
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (const { steps, mean, low, high } of lines) {
    for (let i = 0; i < steps.length; i++) {
      if (!Number.isFinite(mean[i])) continue;
      const least = low ? low[i] : mean[i], most = high ? high[i] : mean[i];
      if (steps[i] < x0) x0 = steps[i];
      if (steps[i] > x1) x1 = steps[i];
      if (least < y0) y0 = least;
      if (most > y1) y1 = most;
    }
  }
  if (y0 > y1) return null;
  return y0 === y1 ? { x0, x1, y0: y0 - 0.5, y1: y1 + 0.5 } : { x0, x1, y0, y1 };
}

// Axes in a box of the figure; returns where a step and a value stand. Values that span a factor of 20 get a log scale.
function axes(pen, { x0, x1, y0, y1 }, box) {
  const wide = y0 > 0 && y1 > 20 * y0, scale = wide ? Math.log : (y) => y;
  const X = (s) => box.left + box.wide * (x1 > x0 ? (s - x0) / (x1 - x0) : 0.5);
  const Y = (y) => box.top + box.tall * (1 - (scale(y) - scale(y0)) / (scale(y1) - scale(y0)));
  const grid = shade(pen, "--grid"), soft = shade(pen, "--soft");
  for (const t of wide ? logTicks(y0, y1) : niceTicks(y0, y1, box.tall > 150 ? 5 : 3)) {
    pen.fillStyle = grid; pen.fillRect(box.left, Y(t), box.wide, 1);
    pen.fillStyle = soft; pen.textAlign = "right"; pen.fillText(tidy(t), box.left - 6, Y(t) + 4);
  }
  pen.textAlign = "center"; pen.fillStyle = soft;
  for (const t of niceTicks(x0, x1, Math.max(2, Math.min(6, box.wide / 70)))) pen.fillText(tidy(t), X(t), box.top + box.tall + 15);
  pen.textAlign = "left";
  return { X, Y, left: box.left, right: box.left + box.wide, top: box.top, bottom: box.top + box.tall };
}

function trace(pen, { X, Y }, line, colour, width) {
  const at = line.steps.map((_, i) => i).filter((i) => Number.isFinite(line.mean[i]));
  pen.fillStyle = pen.strokeStyle = colour;
  if (line.low) {
    pen.globalAlpha = 0.18; pen.beginPath();
    for (const i of at) pen.lineTo(X(line.steps[i]), Y(line.low[i]));
    for (const i of at.toReversed()) pen.lineTo(X(line.steps[i]), Y(line.high[i]));
    pen.fill();
    pen.globalAlpha = 1;
  }
  if (at.length === 1) pen.fillRect(X(line.steps[at[0]]) - width, Y(line.mean[at[0]]) - width, 2 * width, 2 * width);
  pen.lineWidth = width; pen.beginPath();
  for (const i of at) pen.lineTo(X(line.steps[i]), Y(line.mean[i]));
  pen.stroke();
}

// chart: {title, groups: [{name, colour}], lines: [{name, group, steps, mean, low?, high?}]}, group being a place in groups.
// `range` is that of the axes.
// Groups overlap in one panel up to six; above, each has a panel of its own, all on the same axes.
function drawCurves(canvas, { title, groups, lines, range = extent(lines) }) {
  const room = canvas.parentElement.clientWidth, across = Math.max(1, Math.floor(room / 210)), apart = groups.length > MOST_OVERLAPPING;
  const height = apart ? 24 + 170 * Math.ceil(groups.length / across) : room < NARROW ? 340 + 18 * groups.length : 340;
  canvas.panels = drawOn(canvas, height, (pen, width) => {
    pen.fillStyle = shade(pen, "--ink");
    pen.fillText(clipped(title, Math.floor(width / 6.2)), 4, 14);
    if (!range) { pen.fillText("no logged value for these trials", 56, 120); return []; }
    const drawn = { lines, range, thin: lines.length > 3 * groups.length ? 1 : 1.8,
      groups: groups.map(({ name, colour }) => ({ name, colour: shade(pen, colour) })) };
    return apart ? panelsApart(pen, width / across, across, drawn) : [panelTogether(pen, width, drawn)];
  });
}

function panelsApart(pen, wide, across, { groups, lines, range, thin }) {
  const ink = shade(pen, "--ink"), faint = shade(pen, "--faint");
  return groups.map(({ name, colour }, place) => {
    const left = (place % across) * wide + 46, top = 24 + Math.floor(place / across) * 170 + 18;
    const panel = axes(pen, range, { left, top, wide: wide - 62, tall: 116 });
    pen.fillStyle = ink; pen.fillText(clipped(name, 30), left, top - 5);
    const mine = lines.filter((line) => line.group === place);
    if (mine[0]?.low) for (const line of lines) trace(pen, panel, { ...line, low: null }, faint, 0.7);
    for (const line of mine) trace(pen, panel, line, colour, thin);
    return { ...panel, lines: mine };
  });
}

function panelTogether(pen, width, { groups, lines, range, thin }) {
  const narrow = width < NARROW, right = narrow ? 22 : 170; // the names stand below the panel, or on its right
  const panel = axes(pen, range, { left: 56, top: 26, wide: width - 56 - right, tall: 280 });
  pen.textAlign = "center"; pen.fillText("step", (panel.left + panel.right) / 2, panel.bottom + 30); pen.textAlign = "left";
  for (const line of lines) trace(pen, panel, line, groups[line.group].colour, thin);
  const ink = shade(pen, "--ink");
  groups.forEach(({ name, colour }, place) => {
    const x = narrow ? panel.left : width - right + 12, y = narrow ? panel.bottom + 48 + 18 * place : 36 + 18 * place;
    pen.fillStyle = colour; pen.fillRect(x, y - 5, 16, 3);
    pen.fillStyle = ink; pen.fillText(clipped(name, narrow ? 40 : 20), x + 22, y);
  });
  return { ...panel, lines };
}

// Which line is at this point of the canvas: the one with the nearest drawn value, at most 12 pixels away.
function lineAt(canvas, x, y) {
  const panel = (canvas.panels ?? []).find((one) => x > one.left - 12 && x < one.right + 12 && y > one.top - 12 && y < one.bottom + 12);
  let nearest = null, least = 12 ** 2;
  for (const line of panel?.lines ?? []) {
    for (let i = 0; i < line.steps.length; i++) {
      const away = (panel.X(line.steps[i]) - x) ** 2 + (panel.Y(line.mean[i]) - y) ** 2;
      if (away < least) { least = away; nearest = { line, at: i }; }
    }
  }
  if (!nearest) return null;
  const { line, at } = nearest, interval = line.low ? " [" + tidy(line.low[at]) + ", " + tidy(line.high[at]) + "]" : "";
  return line.name + "\nstep " + line.steps[at] + ": " + tidy(line.mean[at]) + interval;
}

// Shows what `textAt(x, y)` says of the point under the mouse, beside it.
function tooltip(canvas, textAt) {
  canvas.onmousemove = (event) => {
    const text = textAt(event.offsetX, event.offsetY);
    let tip = $("tip");
    if (!text) { tip?.remove(); return; }
    tip ??= element("div");
    tip.id = "tip"; tip.textContent = text;
    canvas.parentElement.append(tip);
    const room = canvas.clientWidth - tip.offsetWidth;
    tip.style.left = Math.max(0, Math.min(room, event.offsetX + 14)) + "px";
    tip.style.top = event.offsetY + 14 + "px";
  };
  canvas.onmouseleave = () => $("tip")?.remove();
}
