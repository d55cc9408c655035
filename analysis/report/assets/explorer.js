"use strict";
// The interactive part: state, filters, table, differences. The state is in the page's address.

async function start() {
  const data = JSON.parse(new TextDecoder().decode(await unpacked("data")));
  const numbers = new Float32Array(await unpacked("curves"));
  const count = data.count, column = {}, meaning = {};
  for (const item of data.columns) {
    meaning[item.name] = item;
    column[item.name] = item.levels ? item.values.map((i) => (i < 0 ? null : item.levels[i])) : item.values;
  }
  for (const curve of data.curves) {
    curve.values = numbers.subarray(curve.offset, curve.offset + count * curve.steps.length);
  }
  const rowOf = new Map(column.trial_id.map((id, row) => [id, row]));
  const fresh = { filters: {}, brushes: {}, group: data.group, metric: data.metric, sort: data.metric,
    ascending: meaning[data.metric].better !== "higher", page: 0, picked: [] };
  const state = Object.assign(fresh, remembered());

  // The page's address may have been written by somebody else: only these keys count, with values of these kinds.
  function remembered() {
    let given;
    try { given = JSON.parse(decodeURIComponent(location.hash.slice(1))); } catch { return {}; }
    const byColumn = (v, fits) => v instanceof Object && Object.keys(v).every((name) => Object.hasOwn(column, name) && fits(v[name]));
    const allowed = {
      filters: (v) => byColumn(v, (levels) => Array.isArray(levels)),
      brushes: (v) => byColumn(v, (ends) => Array.isArray(ends) && ends.length === 2 && ends.every(Number.isFinite)),
      group: (v) => data.factors.includes(v),
      metric: (v) => data.metrics.includes(v),
      sort: (v) => data.shown.includes(v) || data.metrics.includes(v),
      ascending: (v) => typeof v === "boolean",
      page: (v) => Number.isInteger(v) && v >= 0,
      picked: (v) => Array.isArray(v) && v.every((id) => rowOf.has(id)),
    };
    return Object.fromEntries(Object.entries(given ?? {}).filter(([key, value]) => Object.hasOwn(allowed, key) && allowed[key](value)));
  }

  function level(name, row) { const v = column[name][row]; return v === null ? "unset" : String(v); }

  function range(name, rows) {
    let low = Infinity, high = -Infinity;
    for (const row of rows) {
      const v = column[name][row];
      if (v !== null) { if (v < low) low = v; if (v > high) high = v; }
    }
    return [low, high];
  }

  function axisOf(name, rows) {
    const item = meaning[name], values = column[name];
    if (item.levels) {
      const place = new Map(item.levels.map((v, i) => [v, item.levels.length > 1 ? i / (item.levels.length - 1) : 0.5]));
      const every = Math.ceil(item.levels.length / 12);
      return { key: name, name: item.label, position: (row) => place.get(values[row]) ?? null,
        ticks: item.levels.filter((_, i) => i % every === 0).map((v) => [v, place.get(v)]) };
    }
    const [least, most] = range(name, rows), log = name.startsWith("params/") && most > 20;
    const scale = (v) => (log ? Math.log10(1 + v) : v), low = scale(least), wide = scale(most) - low || 1;
    const marks = least > most ? [] : log ? [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((e) => 10 ** e).filter((t) => t >= least && t <= most)
      : niceTicks(least, most, 5);
    return { key: name, name: item.label, ticks: marks.map((t) => [log ? power(t) : tidy(t), (scale(t) - low) / wide]),
      position: (row) => (values[row] === null ? null : (scale(values[row]) - low) / wide) };
  }

  function axesFor(rows) {
    return [...new Set([...data.factors, ...data.costs, state.metric])].map((name) => axisOf(name, rows));
  }

  function chosen() {
    const tests = [];
    for (const [name, levels] of Object.entries(state.filters)) {
      if (levels.length && column[name]) { const set = new Set(levels); tests.push((row) => set.has(level(name, row))); }
    }
    return passing(Array.from({ length: count }, (_, row) => row), tests);
  }

  function brushed(rows, axes) {
    const tests = [];
    for (const axis of axes) {
      const brush = state.brushes[axis.key];
      if (brush) tests.push((row) => { const p = axis.position(row); return p !== null && p >= brush[0] - 1e-9 && p <= brush[1] + 1e-9; });
    }
    return passing(rows, tests);
  }

  function passing(rows, tests) { return tests.length ? rows.filter((row) => tests.every((test) => test(row))) : rows; }

  function filters() {
    for (const name of [...data.factors, "status"]) {
      const levels = meaning[name].levels;
      if (levels.length < 2) continue;
      const box = element("fieldset", null, $("filters"));
      element("legend", meaning[name].label, box);
      for (const value of levels) {
        const button = element("button", clipped(value, 28), box);
        button.type = "button"; button.title = value;
        button.dataset.factor = name; button.dataset.level = value;
        button.onclick = () => {
          const chosen = new Set(state.filters[name] || []);
          if (!chosen.delete(value)) chosen.add(value);
          state.filters[name] = [...chosen]; state.page = 0; draw();
        };
      }
    }
    choice("group", data.factors, (name) => { state.group = name; });
    choice("metric", data.metrics, (name) => { state.metric = name; state.sort = name; delete state.brushes[name]; });
    $("clear").onclick = () => { Object.assign(state, { filters: {}, brushes: {}, picked: [], page: 0 }); draw(); };
  }

  function choice(id, names, change) {
    for (const name of names) element("option", meaning[name].label, $(id)).value = name;
    $(id).value = state[id];
    $(id).onchange = () => { change($(id).value); draw(); };
  }

  function grouped(rows) {
    const groups = new Map();
    for (const row of rows) {
      const name = level(state.group, row);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(row);
    }
    return groups;
  }

  function orderOf(groups) {
    return [...(meaning[state.group].levels || []), "unset"].filter((name) => groups.has(name));
  }

  function curves(rows) {
    const logged = meaning[state.metric].curve;
    const curve = data.curves.find((c) => c.metric === logged) || data.curves[0];
    if (!curve) { $("note").textContent = "These trials have no history."; return; }
    const groups = grouped(rows), order = orderOf(groups);
    const tints = groupColours(order);
    const bands = order.map((name) => bandsBySeed(groups.get(name), curve, (row) => level("seed", row), data.quantiles));
    const title = meaning[curve.metric].label + " by " + meaning[state.group].label + ": mean and " + data.interval + " over seeds, after averaging each seed's trials";
    drawCurves($("curve"), {
      title, groups: order.map((name, i) => ({ name: name + " (n=" + bands[i].seeds + ")", colour: tints[i] })),
      lines: bands.map((band, group) => ({ ...band, group, name: order[group] + " (n=" + band.seeds + ")", steps: curve.steps })),
    });
    $("curve").series = bands.map((band, i) => ({ name: order[i], ...band }));
    $("note").textContent = curve.metric === logged ? "" : meaning[state.metric].label + " was not logged while training. ";
  }

  function means(rows) {
    const groups = grouped(rows), order = orderOf(groups), item = meaning[state.metric];
    const values = column[state.metric], heads = [meaning[state.group].label, "n", "mean", "low", "high"];
    const listed = order.map((name) => {
      const { n, mean, low, high } = summaryBySeed(groups.get(name), (row) => values[row], (row) => level("seed", row), data.quantiles);
      return [name, n, n ? mean : null, ...(n > 1 ? [low, high] : [null, null])];
    });
    showTable($("means"), { caption: item.label + ": mean and " + data.interval + " over seeds of the chosen trials", heads, rows: listed });
  }

  function cellOf(line, name, row) {
    const cell = element("td", null, line), value = column[name][row];
    if (name === "folder" && value !== null && data.links) {
      const link = element("a", value, cell);
      link.href = data.links + value.split("/").map(encodeURIComponent).join("/") + "/";
    } else cell.textContent = tidy(value);
    return cell;
  }

  function table(rows) {
    const keys = column[state.sort], sign = state.ascending ? 1 : -1;
    const place = meaning[state.sort].levels && new Map(meaning[state.sort].levels.map((v, i) => [v, i]));
    const of = (row) => (place ? place.get(keys[row]) : keys[row]);
    const sorted = [...rows].sort((a, b) => {
      const x = of(a), y = of(b), noX = x === null || x === undefined, noY = y === null || y === undefined;
      return noX || noY ? noX - noY : sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
    });
    const heads = data.shown.map((name) => meaning[name].label);
    $("trials").listing = () => ({ caption: $("count").textContent, heads, rows: sorted.map((row) => data.shown.map((name) => column[name][row])) });
    const pages = Math.max(1, Math.ceil(sorted.length / 50));
    state.page = Math.min(state.page, pages - 1);
    $("trials").textContent = "";
    const made = element("table", null, $("trials")), head = element("tr", null, element("thead", null, made));
    element("th", "pick", head);
    for (const name of data.shown) {
      const th = element("th", null, head), here = name === state.sort;
      const button = element("button", meaning[name].label + (here ? (state.ascending ? " ▲" : " ▼") : ""), th);
      button.dataset.sort = name;
      th.setAttribute("aria-sort", here ? (state.ascending ? "ascending" : "descending") : "none");
      button.onclick = () => { state.ascending = here ? !state.ascending : true; state.sort = name; state.page = 0; draw(); };
    }
    const body = element("tbody", null, made);
    for (const row of sorted.slice(state.page * 50, state.page * 50 + 50)) {
      const line = element("tr", null, body), box = element("input", null, element("td", null, line));
      const id = column.trial_id[row];
      box.type = "checkbox"; box.checked = state.picked.includes(id);
      box.setAttribute("aria-label", "compare " + id);
      line.className = box.checked ? "picked" : "";
      box.onchange = () => {
        state.picked = box.checked ? [...state.picked, id] : state.picked.filter((other) => other !== id);
        line.className = box.checked ? "picked" : "";
        difference(); remember();
      };
      for (const name of data.shown) cellOf(line, name, row);
    }
    $("pages").textContent = "page " + (state.page + 1) + " of " + pages;
    $("back").onclick = () => { state.page = Math.max(0, state.page - 1); draw(); };
    $("next").onclick = () => { state.page = Math.min(pages - 1, state.page + 1); draw(); };
  }

  function difference() {
    const box = $("difference"), picked = state.picked.map((id) => rowOf.get(id));
    box.textContent = picked.length < 2 ? "Pick two or more trials in the table to see what differs." : "";
    if (picked.length < 2) return;
    const made = element("table", null, box), head = element("tr", null, element("thead", null, made));
    element("td", "", head);
    for (const row of picked) element("th", clipped(level(data.name, row), 26), head).title = level(data.name, row);
    const body = element("tbody", null, made);
    const differing = data.columns.filter(({ name }) => name !== data.name && picked.some((row) => column[name][row] !== column[name][picked[0]]));
    box.listing = () => ({ caption: box.getAttribute("aria-label"), heads: ["", ...picked.map((row) => level(data.name, row))],
      rows: differing.map(({ name, label }) => [label, ...picked.map((row) => column[name][row])]) });
    for (const { name, label } of differing) {
      const line = element("tr", null, body), title = element("th", label, line);
      title.scope = "row"; title.title = name;
      for (const row of picked) cellOf(line, name, row).className = "differs";
    }
  }

  function brushing(layout, axes) {
    const canvas = $("parallel");
    canvas.onmousedown = (down) => {
      const box = canvas.getBoundingClientRect(), j = layout.places.findIndex((x) => Math.abs(down.clientX - box.left - x) < 12);
      if (j < 0) return;
      const share = (e) => Math.min(1, Math.max(0, 1 - (e.clientY - box.top - layout.top) / layout.tall)), from = share(down);
      window.onmouseup = (up) => {
        window.onmouseup = null;
        const to = share(up);
        if (Math.abs(to - from) < 0.02) delete state.brushes[axes[j].key];
        else state.brushes[axes[j].key] = [Math.min(from, to), Math.max(from, to)];
        state.page = 0; draw();
      };
    };
  }

  function remember() { history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(state))); }

  function described(row) {
    if (row === null) return "";
    const lines = data.shown.filter((name) => name !== data.name).map((name) => meaning[name].label + ": " + tidy(column[name][row]));
    return [level(data.name, row), ...lines].join("\n");
  }

  function draw() {
    const began = performance.now(), kept = chosen(), axes = axesFor(kept), rows = brushed(kept, axes);
    for (const button of document.querySelectorAll("#filters button")) {
      const on = (state.filters[button.dataset.factor] || []).includes(button.dataset.level);
      button.setAttribute("aria-pressed", on);
    }
    $("count").textContent = rows.length + " of " + counted(count, "trial");
    const layout = drawParallel($("parallel"), rows, axes, state.brushes);
    brushing(layout, axes);
    tooltip($("parallel"), (x, y) => described(rowAt(layout, rows, axes, x, y)));
    curves(rows);
    means(rows);
    table(rows);
    difference();
    remember();
    document.documentElement.dataset.shown = rows.length;
    document.documentElement.dataset.draw = performance.now() - began;
  }

  filters();
  draw();
  tooltip($("curve"), (x, y) => lineAt($("curve"), x, y));
  window.addEventListener("resize", draw);
  DARK.addEventListener("change", draw);
  if (data.refresh) setTimeout(() => location.reload(), 1000 * data.refresh);
  document.documentElement.dataset.ready = performance.now();
}

start().catch((error) => {
  document.documentElement.dataset.error = error;
  $("note").textContent = "The explorer could not start: " + error;
});
