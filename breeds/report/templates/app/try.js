"use strict";
// Sends photos one by one, a few at a time, and shows each answer as soon as it is there.
(() => {
  const find = (id) => document.getElementById(id);
  const [form, cards, said, over, files, url] = ["ask", "cards", "said", "over", "files", "url"].map(find);
  const AT_ONCE = 3, TRIES = 20;
  const waiting = [];
  let busy = 0, asked = 0, done = 0;

  function tile(name, picture) {
    const node = document.createElement("li");
    node.className = "card tried is-waiting";
    const title = document.createElement("p");
    title.textContent = `${name} …`;
    if (picture) {
      const image = new Image();
      image.className = "picture";
      image.alt = "";
      image.src = picture;
      image.addEventListener("error", () => image.remove());
      node.append(image);
    }
    node.append(title);
    return node;
  }

  function add(items) {
    if (!items.length) return;
    find("answers").hidden = false;
    for (const item of items) {
      item.picture = item.file && URL.createObjectURL(item.file);
      item.node = tile(item.name, item.picture);
    }
    cards.prepend(...items.map((item) => item.node));
    waiting.push(...items);
    if (!busy) [asked, done] = [0, 0];
    asked += items.length;
    next();
  }

  function next() {
    while (busy < AT_ONCE && waiting.length) {
      busy += 1;
      answer(waiting.shift()).finally(() => {
        busy -= 1;
        done += 1;
        next();
      });
    }
  }

  async function answer(item) {
    const body = new FormData();
    if (item.file) body.append("files", item.file, item.name);
    else body.append("url", item.url);
    let text = "";
    try {
      for (let turn = 1; ; turn += 1) {
        const response = await fetch("/card", { method: "POST", body });
        text = await response.text();
        if (response.ok) break;
        if (response.status !== 503 || !response.headers.has("Retry-After") || turn === TRIES) throw new Error(text.trim());
        await new Promise((go) => setTimeout(go, 1000 * Math.min(30, Number(response.headers.get("Retry-After")))));
      }
      const found = new DOMParser().parseFromString(text, "text/html").querySelector("li.tried");
      show(item, document.adoptNode(found), found.dataset.said);
      find("warming")?.remove();
    } catch (error) {
      failed(item, error instanceof TypeError ? "The application does not answer; is it still running?" : error.message);
    }
  }

  function show(item, node, text) {
    const inside = item.node.contains(document.activeElement);
    item.node.replaceWith(node);
    item.node = node;
    if (inside) node.focus();
    const count = asked > 1 ? `${done + 1} of ${asked}. ` : "";
    said.textContent = `${count}${text}`;
    if (item.picture && !node.classList.contains("is-wrong")) URL.revokeObjectURL(item.picture);
  }

  function failed(item, reason) {
    const node = tile(item.name, item.picture);
    node.classList.replace("is-waiting", "is-wrong");
    const why = document.createElement("p");
    why.className = "wrong";
    why.textContent = `No answer: ${reason}`;
    const again = document.createElement("button");
    again.type = "button";
    again.className = "action";
    again.textContent = "Try again";
    again.setAttribute("aria-label", `Try ${item.name} again`);
    again.addEventListener("click", () => {
      const fresh = tile(item.name, item.picture);
      fresh.tabIndex = -1;
      item.node.replaceWith(fresh);
      item.node = fresh;
      fresh.focus();
      waiting.push(item);
      asked += 1;
      next();
    });
    node.append(why, again);
    show(item, node, `${item.name}: no answer, ${reason}`);
  }

  const photos = (list) => [...list].map((file) => ({ file, name: file.name || "photo" }));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const items = photos(files.files);
    if (url?.value) items.push({ url: url.value, name: url.value });
    if (!items.length) files.focus();
    add(items);
    form.reset();
  });
  files.addEventListener("change", () => { if (files.files.length) form.requestSubmit(); });
  whenGiven(over, (found) => add(photos(found)));
})();
