"use strict";
// The list of sweeps, asked for again every two seconds; boxes that are ticked stay so.

setInterval(async () => {
  const answer = await fetch("/");
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main section");
  const ticked = new Set([...document.querySelectorAll("main input:checked")].map((box) => box.value));
  for (const box of fresh.querySelectorAll("input")) box.checked = ticked.has(box.value);
  const shown = document.querySelector("main section");
  if (fresh.querySelector("tbody") && shown.querySelector("tbody")) shown.querySelector("tbody").replaceWith(fresh.querySelector("tbody"));
  else shown.replaceWith(fresh);
}, 2000);
