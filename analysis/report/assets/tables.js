"use strict";
// Tables that a page makes itself: shown, and written as analysis/tables writes its own, whose rules come with the page.
// listing: {caption, heads, rows}; the first cell of a row is its name, a cell is text, a number or null.

const RULES = JSON.parse($("rules").textContent);

function inMarkdown(value) { return withoutControls(tidy(value)).replace(new RegExp(RULES.special, "g"), (marks) => [...marks].map((one) => "\\" + one).join("")); }

function inLatex(value) { return [...withoutControls(tidy(value))].map((one) => RULES.latex[one] ?? one).join(""); }

function inCsv(value) {
  const text = String(value ?? ""), safe = new RegExp(RULES.formula, "i").test(text) ? "'" + text : text;
  return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
}

const WRITERS = {
  md({ caption, heads, rows, notes = [] }) {
    const line = (cells) => "| " + cells.map(inMarkdown).join(" | ") + " |";
    const rule = "|:---" + "|---:".repeat(heads.length - 1) + "|";
    return [line(heads), rule, ...rows.map(line), "", inMarkdown(caption), "", ...notes.map((note) => "- " + inMarkdown(note)), ""].join("\n");
  },
  tex({ caption, heads, rows, notes = [] }) {
    const line = (cells) => cells.map(inLatex).join(" & ").replace(/^[[*]/, "{}$&") + " \\\\";
    const filling = { CAPTION: inLatex(caption), COLUMNS: "l" + "r".repeat(heads.length - 2) + "l", HEADS: line(heads), ROWS: rows.map(line).join("\n") };
    return RULES.frame.replace(/^.*NOTE.*\n/m, (around) => notes.map((note) => around.replace("NOTE", () => inLatex(note))).join(""))
      .replace(/CAPTION|COLUMNS|HEADS|ROWS/g, (name) => filling[name]);
  },
  csv({ heads, rows }) { return [heads, ...rows].map((cells) => cells.map(inCsv).join(",") + "\n").join(""); },
};

// Shows at most so many rows of a listing in a box; its buttons save them all.
function showTable(box, listing, most = Infinity) {
  box.listing = () => listing;
  box.textContent = "";
  const made = element("table", null, box);
  element("caption", listing.caption, made);
  const head = element("tr", null, element("thead", null, made)), body = element("tbody", null, made);
  for (const text of listing.heads) element("th", text, head).scope = "col";
  for (const [name, ...cells] of listing.rows.slice(0, most)) {
    const line = element("tr", null, body);
    element("th", tidy(name), line).scope = "row";
    for (const cell of cells) element("td", tidy(cell), line);
  }
  return made;
}

// The listing that stands in a box of the page, read from the table itself where the page did not make it.
function listingIn(box) {
  const region = box.querySelector(".scroll"), text = (one) => one.textContent.trim();
  if (region.listing) return region.listing();
  const [heads, ...rows] = [...region.querySelectorAll("tr")].map((row) => [...row.cells].map(text));
  return { caption: text(region.querySelector("caption")), heads, rows, notes: [...box.querySelectorAll(".notes li")].map(text) };
}
