"use strict";
// What every page does: find and make elements, unpack data, save tables and figures, follow the contents list.

const $ = (id) => document.getElementById(id);

// Text reaches a page only through textContent.
function element(tag, text, parent) {
  const made = document.createElement(tag);
  if (text !== null && text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function fromBase64(text) { return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)); }

async function unpacked(id) {
  const packed = new Blob([fromBase64($(id).textContent)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

function save(name, content, type) {
  const link = element("a"), address = URL.createObjectURL(new Blob([content], { type }));
  link.href = address; link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// The SVG image at this address as PNG, at three times its size.
async function png(address) {
  const image = element("img");
  image.src = address;
  await image.decode();
  const canvas = element("canvas"), scale = 3;
  canvas.width = image.naturalWidth * scale; canvas.height = image.naturalHeight * scale;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

const TYPES = { md: "text/markdown", tex: "text/x-tex", csv: "text/csv", svg: "image/svg+xml", pdf: "application/pdf", png: "image/png" };

async function saveFile(button) {
  const name = button.dataset.file, style = name.split(".").pop();
  const picture = button.closest("figure")?.querySelector("img, canvas");
  const content = picture ? await figureAs(style, picture, name) : (await files())[name] ?? WRITERS[style](listingIn(button.closest(".table")));
  if (content) save(name, content, TYPES[style]);
}

// The files that came with the page, by name.
async function files() { return $("files") ? JSON.parse(new TextDecoder().decode(await unpacked("files"))) : {}; }

// A figure that the page draws itself becomes PDF in the browser's print dialog alone.
async function figureAs(style, picture, name) {
  const ours = picture.matches("canvas");
  if (style === "pdf") return ours ? printAlone(picture, name) : fromBase64((await files())[name]);
  const svg = ours ? new XMLSerializer().serializeToString(svgOf(picture)) : fromBase64(picture.src.split(",")[1]);
  return style === "svg" ? svg : png(ours ? "data:image/svg+xml," + encodeURIComponent(svg) : picture.src);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-file]");
  if (button) saveFile(button);
});
window.addEventListener("beforeprint", () => { for (const folded of document.querySelectorAll("details:not(:has(details))")) folded.open = true; });

// The contents list shows where the reader is: the last section whose heading has passed the upper third, at the ends of the page
// its first and its last.
// In a narrow window the list is one line, which scrolls to that section's name.
function followContents() {
  const links = [...document.querySelectorAll("nav a[href^='#']")];
  const passed = links.filter((link) => $(link.hash.slice(1)).getBoundingClientRect().top < window.innerHeight / 3);
  const ended = window.scrollY + window.innerHeight > document.documentElement.scrollHeight - 2;
  const here = window.scrollY === 0 ? links[0] : ended ? links.at(-1) : passed.at(-1) ?? links[0];
  for (const link of links) {
    if (link === here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  }
  const line = here?.closest("ol");
  if (line) line.scrollLeft = here.offsetLeft - line.offsetLeft - 24;
}
document.querySelector("nav").addEventListener("click", (event) => {
  if (!event.target.hash) return;
  event.preventDefault(); // the part of the address behind # holds what the reader has chosen
  const section = $(event.target.hash.slice(1));
  section.scrollIntoView();
  section.tabIndex = -1;
  section.focus({ preventScroll: true });
});
window.addEventListener("scroll", followContents, { passive: true });
followContents();
