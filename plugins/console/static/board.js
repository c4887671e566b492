// Cards are moved by hand or by [ and ]; rows are ticked for a bulk action. What may go where, the server wrote on the card.
import {chosen, loose, perform} from "./act.js";
import {hold} from "./live.js";

const WORDS = {todo: "To do", review: "Review", blocked: "Blocked", done: "Done"};
let dragged = null;

const allowed = (card) => (card?.dataset.moves ?? "").split(" ").filter(Boolean);

function send(card, status) {
  const {card: id, status: before} = card.dataset, title = card.querySelector("a").textContent;
  return perform(`PATCH /api/tasks/${id}`, {status}, {say: `${WORDS[status]}: ${title}`, undo: `PATCH /api/tasks/${id}`, undoBody: {status: before}, element: card});
}

// To the nearest column on that side that it may go to; the focus stays with it.
export async function move(card, step) {
  const columns = [...document.querySelectorAll("[data-column]")].map((one) => one.dataset.column);
  let at = columns.indexOf(card?.dataset.status);
  while (at >= 0 && columns[at += step]) if (allowed(card).includes(columns[at])) { await send(card, columns[at]); return void document.getElementById(card.id)?.focus(); }
}

const columnOf = (event) => event.target.closest?.("[data-column]");

function drag() {
  document.addEventListener("dragstart", (event) => {
    dragged = event.target.closest?.("[data-card]");
    if (!dragged || !allowed(dragged).length) return void (dragged && event.preventDefault());
    hold(true);
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", dragged.dataset.card);
    dragged.classList.add("moving");
    for (const column of document.querySelectorAll("[data-column]")) column.classList.toggle("no", !allowed(dragged).includes(column.dataset.column) && column.dataset.column !== dragged.dataset.status);
  });
  document.addEventListener("dragover", (event) => {
    const column = columnOf(event);
    for (const one of document.querySelectorAll(".over")) if (one !== column) one.classList.remove("over");
    if (!dragged || !column || !allowed(dragged).includes(column.dataset.column)) return;
    event.preventDefault();
    column.classList.add("over");
  });
  document.addEventListener("drop", (event) => {
    const column = columnOf(event);
    if (!dragged || !column || !allowed(dragged).includes(column.dataset.column)) return;
    event.preventDefault();
    column.querySelector("ul").prepend(dragged);
    send(dragged, column.dataset.column);
  });
  document.addEventListener("dragend", () => {
    if (!dragged) return;
    hold(false);
    dragged.classList.remove("moving");
    dragged = null;
    for (const one of document.querySelectorAll(".over, .no")) one.classList.remove("over", "no");
  });
}

function count() {
  const bar = document.querySelector("[data-bulk]"), rows = chosen();
  for (const box of document.querySelectorAll("[data-choose]")) box.closest("[data-row]").classList.toggle("chosen", box.checked);
  if (!bar) return;
  bar.hidden = rows.length === 0;
  bar.querySelector("[data-chosen]").textContent = rows.length;
}

export function start() {
  drag();
  let before = null;
  document.addEventListener("click", (event) => {
    if (event.target.matches("[data-none]")) return loose();
    if (!event.target.matches("[data-choose]")) return;
    const boxes = [...document.querySelectorAll("[data-choose]")], at = boxes.indexOf(event.target);
    if (event.shiftKey && before !== null) for (const box of boxes.slice(Math.min(before, at), Math.max(before, at) + 1)) box.checked = event.target.checked;
    before = at;
    count();
  });
  document.addEventListener("change", ({target}) => {
    if (target.matches("[data-all]")) { for (const box of document.querySelectorAll("[data-choose]")) box.checked = target.checked; count(); }
    else if (target.matches("[data-choose]")) count();
  });
  document.addEventListener("laid", count);
}
