"use strict";
// Parallel coordinates: a line for each trial.

// axes: [{name, position(row) -> 0…1 or null, ticks: [[text, 0…1]]}]; returns where each axis stands, for brushing.
function drawParallel(canvas, rows, axes, brushes) {
  return drawOn(canvas, 300, (pen, width) => {
    const top = 34, left = 46, right = 74, tall = 300 - top - 14, room = (width - left - right) / Math.max(1, axes.length - 1);
    const layout = { places: axes.map((_, j) => left + room * j), top, tall };
    trialLines(pen, layout, rows, axes);
    axes.forEach((axis, j) => {
      const x = layout.places[j], brush = brushes[axis.key];
      pen.fillStyle = shade(pen, "--ink"); pen.textAlign = "center";
      pen.fillText(clipped(axis.name, Math.max(6, Math.floor(room / 7))), x, j % 2 && room < 70 ? 26 : 13);
      pen.fillStyle = shade(pen, "--soft"); pen.fillRect(x, top, 1, tall);
      pen.textAlign = "left";
      for (const [text, p] of axis.ticks) {
        const shown = clipped(text, 14), y = top + tall * (1 - p), wide = pen.measureText(shown).width;
        pen.globalAlpha = 0.85; pen.fillStyle = shade(pen, "--paper"); pen.fillRect(x + 1, y - 7, wide + 5, 14);
        pen.globalAlpha = 1; pen.fillStyle = shade(pen, "--ink"); pen.fillText(shown, x + 4, y + 4);
      }
      if (brush) {
        pen.globalAlpha = 0.35; pen.fillStyle = shade(pen, "--warn");
        pen.fillRect(x - 6, top + tall * (1 - brush[1]), 12, tall * (brush[1] - brush[0]));
        pen.globalAlpha = 1;
      }
    });
    return layout;
  });
}

// A line for each row, coloured by which eighth of the rows its value on the last axis is in.
function trialLines(pen, { places, top, tall }, rows, axes) {
  const last = axes[axes.length - 1], eighths = Array.from({ length: SCALE_COLOURS }, () => []);
  const ends = rows.map(last.position).filter((p) => p !== null).sort((a, b) => a - b);
  const limits = eighths.slice(1).map((_, i) => ends[Math.floor(((i + 1) * ends.length) / SCALE_COLOURS)]);
  for (const row of rows) {
    const end = last.position(row);
    if (end !== null) eighths[limits.filter((limit) => end >= limit).length].push(row);
  }
  pen.globalAlpha = Math.max(0.04, Math.min(0.7, 120 / Math.max(1, rows.length))); pen.lineWidth = 1;
  eighths.forEach((mine, i) => {
    pen.strokeStyle = shade(pen, "--scale-" + i); pen.beginPath();
    for (const row of mine) {
      let started = false;
      axes.forEach((axis, j) => {
        const p = axis.position(row), y = top + tall * (1 - p);
        if (p !== null && started) pen.lineTo(places[j], y); else if (p !== null) pen.moveTo(places[j], y);
        started = p !== null;
      });
    }
    pen.stroke();
  });
  pen.globalAlpha = 1;
}

// Which of the drawn rows has its line at this point: the nearest one between the two axes there, at most 6 pixels away.
function rowAt({ places, top, tall }, rows, axes, x, y) {
  const j = places.findIndex((place, i) => i + 1 < places.length && x >= place && x <= places[i + 1]);
  if (j < 0) return null;
  const share = (x - places[j]) / (places[j + 1] - places[j]);
  let nearest = null, least = 6;
  for (const row of rows) {
    const from = axes[j].position(row), to = axes[j + 1].position(row);
    if (from === null || to === null) continue;
    const away = Math.abs(top + tall * (1 - from - share * (to - from)) - y);
    if (away < least) { least = away; nearest = row; }
  }
  return nearest;
}
