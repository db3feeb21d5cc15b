"use strict";
// Keys for the buttons, which work without: a key presses the button that has it, once the photo is there.
(() => {
  const find = (id) => document.getElementById(id);
  const [photo, words, working] = ["photo", "case", "working"].map(find);
  const LOOK = 250;  // milliseconds that a photo is there before a key acts on it: one key is one photo
  let ready = !words, sent = false;

  const seen = () => setTimeout(() => { ready = true; document.documentElement.dataset.ready = "yes"; }, LOOK);
  if (!photo || photo.complete) seen();
  else for (const name of ["load", "error"]) photo.addEventListener(name, seen, { once: true });
  // So that the next photo is there at once.
  if (words?.dataset.next) addEventListener("load", () => { new Image().src = words.dataset.next; });

  // Keys can be switched off, for people who dictate or whose keyboard presses what they did not mean.
  const keys = find("switch")?.querySelector("input");
  const use = (on) => { document.documentElement.dataset.keys = on ? "on" : "off"; };
  if (keys) {
    keys.checked = localStorage.getItem("keys") !== "off";
    keys.addEventListener("change", () => { localStorage.setItem("keys", keys.checked ? "on" : "off"); use(keys.checked); });
    find("switch").hidden = false;
    use(keys.checked);
  }

  addEventListener("keydown", (event) => {
    if (keys && !keys.checked) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "?") {
      const list = find("keys");
      list.open = !list.open;
      list.querySelector("summary").focus();
      return;
    }
    const node = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!node) return;
    event.preventDefault();
    if (event.repeat || !ready || sent) return;
    if (node.matches("input")) {
      node.focus();
      node.select();
    } else {
      node.click();
    }
  });

  addEventListener("submit", (event) => {
    if (sent) {
      event.preventDefault();
      return;
    }
    sent = true;
    if (!event.target.matches(".train")) return;
    const started = Date.now();
    const tell = () => { working.textContent = `Training… ${Math.round((Date.now() - started) / 1000)} s`; };
    tell();
    setInterval(tell, 1000);
  });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  if (document.querySelector("[data-working]")) setTimeout(() => location.reload(), 700);
})();
