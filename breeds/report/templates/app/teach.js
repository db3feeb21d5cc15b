"use strict";
// Shows what is chosen and what will come of it; sends the form in place, so that a refusal loses nothing.
(() => {
  const find = (id) => document.getElementById(id);
  const [form, files, label, isNew, chosen, what, problem, over] =
    ["lesson-form", "files", "label", "new", "chosen-photos", "what", "problem", "over"].map(find);
  if (!form) return;
  const button = form.querySelector("button");
  const classes = new Set([...document.querySelectorAll("#classes option")].map((option) => option.value));
  const usual = what.textContent;
  let busy = false;

  function preview() {
    for (const image of chosen.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    chosen.replaceChildren(...[...files.files].map((file) => {
      const item = document.createElement("li");
      const image = new Image();
      image.className = "picture";
      image.alt = file.name;
      image.src = URL.createObjectURL(file);
      item.append(image);
      return item;
    }));
    tell();
  }

  function tell() {
    const count = files.files.length, name = label.value.trim();
    const photos = count === 1 ? "1 photo becomes a new file" : `${count} photos become new files`;
    const where = !name ? "" : classes.has(name) ? ` of ${name}` : ` of a class ${name} that is not there yet`;
    what.textContent = count ? `${photos}${where}. ${usual}` : usual;
  }

  function add(list) {
    if (busy) return;
    const all = new DataTransfer();
    for (const file of [...files.files, ...list]) all.items.add(file);
    files.files = all.files;
    preview();
  }

  function refuse(sentence) {
    problem.textContent = sentence;
    problem.hidden = false;
    problem.focus();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    problem.hidden = true;
    button.setAttribute("aria-disabled", "true");
    const started = Date.now();
    const clock = () => { what.textContent = `Working… ${Math.round((Date.now() - started) / 1000)} s: the photos are written, their features computed, the model trained.`; };
    clock();
    const ticking = setInterval(clock, 1000);
    try {
      const response = await fetch(form.action, { method: "POST", body: new FormData(form) });
      if (response.redirected) {
        location.assign(response.url);
        return;
      }
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      refuse((page.getElementById("problem") ?? page.querySelector("h1") ?? page.body).textContent.trim());
    } catch {
      refuse("The application does not answer; is it still running?");
    }
    clearInterval(ticking);
    busy = false;
    button.removeAttribute("aria-disabled");
    tell();
  });
  files.addEventListener("change", preview);
  label.addEventListener("input", tell);
  isNew.addEventListener("change", tell);
  whenGiven(over, add);
  tell();
})();
