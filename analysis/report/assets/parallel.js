"use strict";
// Parallel coordinates: a line for each trial.

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
  paths.forEach((path, i) => { pen.strokeStyle = scaleColours()[i]; pen.stroke(path); });
  pen.globalAlpha = 1;
  const room = (width - left - right) / Math.max(1, axes.length - 1);
  axes.forEach((axis, j) => {
    pen.fillStyle = shade("--ink"); pen.textAlign = "center";
    pen.fillText(clipped(axis.name, Math.max(6, Math.floor(room / 7))), places[j], j % 2 && room < 70 ? 26 : 13);
    pen.fillStyle = shade("--soft"); pen.fillRect(places[j], top, 1, tall);
    pen.textAlign = "left";
    for (const [text, p] of axis.ticks) {
      const shown = clipped(text, 14), y = top + tall * (1 - p), wide = pen.measureText(shown).width;
      pen.globalAlpha = 0.78; pen.fillStyle = shade("--paper"); pen.fillRect(places[j] + 3, y - 7, wide + 3, 14);
      pen.globalAlpha = 1; pen.fillStyle = shade("--ink"); pen.fillText(shown, places[j] + 4, y + 4);
    }
    const brush = brushes[axis.key];
    if (brush) {
      pen.fillStyle = "rgba(213,94,0,0.35)";
      pen.fillRect(places[j] - 6, top + tall * (1 - brush[1]), 12, tall * (brush[1] - brush[0]));
    }
  });
  return { places, top, tall };
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
