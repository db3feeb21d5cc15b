"use strict";
// Shows the cards of one breed and of some certainty, in the order that is asked for.
(() => {
  const find = (id) => document.getElementById(id);
  const photos = find("photos");
  const [order, least, most] = [find("order"), find("least"), find("most")];
  const groups = [...document.querySelectorAll("input[name=group]")];
  const cards = [...photos.children].map((node, place) => ({
    node, place, group: node.dataset.group, certainty: Number(node.dataset.certainty),
  }));
  const orders = {
    came: (a, b) => a.place - b.place,
    least: (a, b) => a.certainty - b.certainty || a.place - b.place,
    most: (a, b) => b.certainty - a.certainty || a.place - b.place,
  };
  const number = new Intl.NumberFormat("en");
  let sorted = "came";

  function show() {
    const group = groups.find((choice) => choice.checked).value;
    const [from, to] = [least.valueAsNumber / 100, most.valueAsNumber / 100];
    let left = 0;
    for (const card of cards) {
      const fits = (group === "all" || card.group === group) && card.certainty >= from && card.certainty <= to;
      card.node.hidden = !fits;
      left += fits;
    }
    if (order.value !== sorted) {
      sorted = order.value;
      const place = photos.parentNode;
      photos.remove(); // thousands of moves are quick where nothing is shown
      photos.append(...[...cards].sort(orders[sorted]).map((card) => card.node));
      place.append(photos);
    }
    for (const slider of [least, most]) {
      slider.setAttribute("aria-valuetext", `${slider.value} percent`);
      find(`${slider.id}-shown`).textContent = `${slider.value}\u202f%`;
    }
    const all = number.format(cards.length) + (cards.length === 1 ? " photo" : " photos");
    find("shown").textContent = left === cards.length ? all : `${number.format(left)} of ${all}`;
    find("nothing").hidden = left > 0;
  }

  function change() {
    show();
    if (photos.getBoundingClientRect().top < 0) find("shown").scrollIntoView();
  }

  // The two ends push each other along.
  least.addEventListener("input", () => { most.value = Math.max(most.valueAsNumber, least.valueAsNumber); change(); });
  most.addEventListener("input", () => { least.value = Math.min(most.valueAsNumber, least.valueAsNumber); change(); });
  for (const choice of [order, ...groups]) choice.addEventListener("change", change);
  find("all").addEventListener("click", () => {
    [least.value, most.value] = [0, 100];
    groups[0].checked = true;
    change();
    groups[0].focus();
  });
  for (const choice of groups) choice.disabled = false;
  find("tools").hidden = false;
  addEventListener("pageshow", show); // who comes back from a photo finds what was chosen
})();
