"use strict";
// A figure that the page draws itself, as a file: drawn once more as SVG, in the colours of paper whatever the page's.

const SVG = "http://www.w3.org/2000/svg";
const ANCHORS = { left: "start", center: "middle", right: "end" };

// What the drawings use of a canvas's 2D context, written into `canvas`, an SVG element.
class SvgPen {
  constructor(width, height) {
    Object.assign(this, { canvas: document.createElementNS(SVG, "svg"), globalAlpha: 1, lineWidth: 1, textAlign: "left", path: "" });
    const size = { width, height, viewBox: `0 0 ${width} ${height}`, class: "paper", "font-size": FONT_SIZE, "font-family": FONT_FAMILY };
    for (const [name, value] of Object.entries(size)) this.canvas.setAttribute(name, value);
    this.ruler = document.createElement("canvas").getContext("2d");
    this.ruler.font = FONT_SIZE + "px " + FONT_FAMILY;
  }

  add(tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, typeof value === "number" ? +value.toFixed(2) : value);
    if (this.globalAlpha < 1) made.setAttribute("opacity", this.globalAlpha);
    if (text) made.textContent = text;
    this.canvas.append(made);
  }

  beginPath() { this.path = ""; }
  moveTo(x, y) { this.path += `M${x.toFixed(2)} ${y.toFixed(2)}`; }
  lineTo(x, y) { if (this.path) this.path += `L${x.toFixed(2)} ${y.toFixed(2)}`; else this.moveTo(x, y); }
  fill() { this.add("path", { d: this.path, fill: this.fillStyle }); }
  stroke() { this.add("path", { d: this.path, fill: "none", stroke: this.strokeStyle, "stroke-width": this.lineWidth }); }
  fillRect(x, y, width, height) { this.add("rect", { x, y, width, height, fill: this.fillStyle }); }
  fillText(text, x, y) { this.add("text", { x, y, fill: this.fillStyle, "text-anchor": ANCHORS[this.textAlign] }, withoutControls(text)); }
  measureText(text) { return this.ruler.measureText(text); }
}

function svgOf(canvas) {
  const { width, height, paint } = canvas.figure, pen = new SvgPen(width, height);
  document.body.append(pen.canvas); // its colours are styles of the page
  pen.fillStyle = shade(pen, "--paper");
  pen.fillRect(0, 0, width, height);
  paint(pen, width);
  pen.canvas.remove();
  pen.canvas.removeAttribute("class");
  return pen.canvas;
}

// Asks the browser to print the figure alone, on a page of its size, which its dialog saves as PDF.
function printAlone(canvas, title) {
  const svg = svgOf(canvas), sheet = new CSSStyleSheet(), before = document.title, { width, height } = canvas.figure;
  sheet.replaceSync(`@page { size: ${width}px ${height}px; margin: 0; }`);
  document.adoptedStyleSheets.push(sheet);
  document.documentElement.classList.add("alone");
  document.body.append(svg);
  document.title = title;
  window.addEventListener("afterprint", () => {
    document.adoptedStyleSheets.pop();
    document.documentElement.classList.remove("alone");
    svg.remove();
    document.title = before;
  }, { once: true });
  window.print();
}
