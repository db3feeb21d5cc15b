"use strict";
// Opens links to photos in place: what is in the page that they lead to is shown where they say.
{
  const turns = new Map();  // of each place, how often something was opened there

  function show(place, title, ...nodes) {
    title.id = `${place.id}-title`;
    place.replaceChildren(title, ...nodes);
    place.removeAttribute("aria-busy");
    place.focus({preventScroll: true});
    place.scrollIntoView({block: "nearest", behavior: "smooth"});
  }

  function heading(text) {
    const title = document.createElement("h3");
    title.textContent = text;
    return title;
  }

  async function open(link, place) {
    const address = link.getAttribute("href"), turn = (turns.get(place) ?? 0) + 1;
    turns.set(place, turn);
    for (const other of document.querySelectorAll("[data-open][aria-current]")) other.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    place.setAttribute("aria-busy", "true");
    let text = "";
    try {
      text = await (await fetch(address)).text();
    } catch {
      if (turn === turns.get(place)) show(place, heading("The application does not answer; is it still running?"));
      return;
    }
    if (turn !== turns.get(place)) return;
    const found = new DOMParser().parseFromString(text, "text/html").getElementById("found");
    if (!found) return location.assign(address);  // what is wrong is said there
    const [title, ...rest] = document.adoptNode(found).children;
    show(place, heading(title.textContent), ...rest);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-open]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    open(link, document.getElementById(link.dataset.open));
  });
}
