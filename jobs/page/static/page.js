// What HTML alone cannot do: copying, keys, and no polling while nobody looks.
const said = document.getElementById("said");

function say(text) {
  said.textContent = text;
  said.classList.add("on");
  setTimeout(() => said.classList.remove("on"), 1800);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    say("Copied");
  } catch {
    getSelection().selectAllChildren(source);
    say("Selected: press Ctrl+C to copy");
  }
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
});

document.addEventListener("htmx:beforeRequest", (event) => {
  const polls = event.target.hasAttribute("data-poll");
  if (polls && (document.hidden || event.target.contains(document.activeElement?.closest("input")))) {
    event.preventDefault();
  }
});

function typing(target) {
  return target.closest("input, textarea, select, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const link = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (link) {
    event.preventDefault();
    link.matches("input") ? link.focus() : link.click();
    return;
  }
  walk(event);
});

// Arrow keys go through a grid of pictures as they lie.
function walk(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -2, ArrowDown: 2 }[event.key];
  const cell = event.target.closest?.("[data-grid] a");
  if (!step || !cell) return;
  const cells = [...cell.closest("[data-grid]").querySelectorAll("a")];
  const columns = cells.filter((one) => one.offsetTop === cells[0].offsetTop).length;
  const next = cells[cells.indexOf(cell) + (Math.abs(step) === 2 ? (step / 2) * columns : step)];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}
