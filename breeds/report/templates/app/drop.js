"use strict";
// Photos that are pasted or dropped anywhere on a page go to that page; `over` is shown while they hover.
function whenGiven(over, take) {
  addEventListener("paste", (event) => {
    const found = [...event.clipboardData.files];
    if (!found.length) return;
    event.preventDefault();
    take(found);
  });
  // A drop anywhere is meant for this page; without this the browser would leave it for the photo.
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    over.hidden = false;
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) over.hidden = true; });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    over.hidden = true;
    take(event.dataTransfer.files);
  });
}
