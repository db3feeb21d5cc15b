"use strict";
// What a click needs: photos of a cell, rates, sorting, and the map. Without this all photos are shown.
// A served page has no photos of its own but links to them, which another script opens in place.
const $ = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll("#gallery > li")];
const cells = [...document.querySelectorAll("#matrix button")];
const place = (point) => [Number(point.dataset.x), Number(point.dataset.y)];

function show(title, note, fits) {
  let count = 0;
  for (const card of cards) count += !(card.hidden = !fits(card.dataset));
  $("chosen-title").textContent = title;
  $("chosen-note").textContent = note(count);
}

if ($("gallery")) show("No cell is chosen", () => "Press a number in the table to see its photos here.", () => false);

for (const cell of cells) {
  cell.setAttribute("aria-pressed", "false");
  cell.addEventListener("click", () => {
    for (const other of cells) other.setAttribute("aria-pressed", String(other === cell));
    const {truth, answer, more} = cell.dataset;
    show(cell.getAttribute("aria-label"),
      () => more === "0" ? "A photo leads to its file." : `And ${more} more, which are not shown. A photo leads to its file.`,
      (data) => data.truth === truth && data.answer === answer);
    $("chosen").focus({preventScroll: true});
    $("chosen-title").scrollIntoView({block: "center", behavior: "smooth"});
  });
}

$("matrix").addEventListener("keydown", (event) => {
  const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  const [down, right] = steps[event.key] || [0, 0];
  const cell = event.target.closest("td");
  if (!cell || !(down || right)) return;
  event.preventDefault();
  let row = cell.parentElement, column = cell.cellIndex, found = null;
  while (!found) {
    if (down) row = down > 0 ? row.nextElementSibling : row.previousElementSibling;
    column += right;
    if (!row || column < 1 || column >= row.cells.length) return;
    found = row.cells[column].querySelector(".cell");
  }
  found.focus();
});

$("rates").addEventListener("click", () => {
  const on = $("matrix").classList.toggle("rates");
  $("rates").setAttribute("aria-pressed", String(on));
});

for (const heading of document.querySelectorAll("#per-class .sort")) {
  heading.addEventListener("click", () => {
    const column = heading.parentElement, body = $("per-class").tBodies[0];
    const up = column.getAttribute("aria-sort") ? column.getAttribute("aria-sort") !== "ascending" : column.cellIndex === 0;
    for (const other of column.parentElement.cells) other.removeAttribute("aria-sort");
    column.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[column.cellIndex].dataset.value;
    const compare = (one, other) => column.cellIndex
      ? value(one) - value(other) : one.cells[0].textContent.localeCompare(other.cells[0].textContent);
    body.append(...[...body.rows].sort((one, other) => up ? compare(one, other) : compare(other, one)));
  });
}

const plot = $("plot");
if (plot) {
  const points = [...plot.querySelectorAll(".point")];
  let here = null;
  const visit = (point) => {
    if (here) here.classList.remove("here");
    here = point;
    $("shown").hidden = !point;
    if (!point) return;
    point.classList.add("here");
    const picture = point.dataset.picture ?? document.querySelector(`#photo-${point.dataset.photo} img`)?.src;
    $("shown-picture").hidden = !picture;
    if (picture) $("shown-picture").src = picture;
    $("shown-text").textContent = point.dataset.text;
    $("shown").classList.toggle("at-right", place(point)[0] < 500);
  };
  const choose = (point) => {
    const card = $(`photo-${point.dataset.photo}`);
    if (!card) return;
    const cell = cells.find((other) => other.dataset.truth === card.dataset.truth && other.dataset.answer === card.dataset.answer);
    cell.click();
  };
  $("shown-picture").addEventListener("error", () => { $("shown-picture").hidden = true; });
  plot.addEventListener("pointerover", (event) => visit(event.target.closest(".point")));
  plot.addEventListener("pointerleave", () => visit(null));
  plot.addEventListener("click", (event) => { const point = event.target.closest(".point"); if (point) choose(point); });
  plot.addEventListener("blur", () => visit(null));
  plot.addEventListener("keydown", (event) => {
    const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const step = steps[event.key];
    if (event.key === "Escape") visit(null);
    if (event.key === "Enter" && here) here.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
    if (!step) return;
    event.preventDefault();
    if (!here) return visit(points[0]);
    const [x, y] = place(here);
    let best = null, least = Infinity;
    for (const point of points) {
      const [dx, dy] = [place(point)[0] - x, place(point)[1] - y];
      const along = dx * step[0] + dy * step[1], aside = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
      if (along > 0 && along + 2 * aside < least) [best, least] = [point, along + 2 * aside];
    }
    if (best) visit(best);
  });
  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      const chosen = new Set([...document.querySelectorAll(".legend [aria-pressed=true]")].map((one) => one.dataset.class));
      plot.classList.toggle("picked", chosen.size > 0);
      for (const point of points) point.classList.toggle("on", chosen.has(point.dataset.class));
    });
  }
}
