"use strict";
// Opens links to photos in place: what is in the page that they lead to is shown where they say.
{
  let asked = 0;

  async function open(link, place) {
    const turn = asked += 1, address = link.getAttribute("href");
    for (const other of document.querySelectorAll("[data-open][aria-current]")) other.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    place.setAttribute("aria-busy", "true");
    try {
      const response = await fetch(address);
      const found = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("found");
      if (turn !== asked) return;
      if (!found) throw new Error();
      const title = document.createElement("h3");
      title.textContent = found.querySelector("h1").textContent;
      title.id = `${place.id}-title`;
      found.querySelector("h1").replaceWith(title);
      place.replaceChildren(document.adoptNode(found));
    } catch {
      location.assign(address);  // what is wrong is said there
      return;
    }
    place.removeAttribute("aria-busy");
    place.focus({preventScroll: true});
    place.scrollIntoView({block: "nearest", behavior: "smooth"});
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-open]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    open(link, document.getElementById(link.dataset.open));
  });
}
