// Buttons call the API with the browser's cookie and the header that no foreign page can send, say what came of it,
// and offer to take it back. Nothing is guessed: the page shows the change when the server has made it.
import {refresh} from "./live.js";

async function call(operation, body, again = true) {
  const [method, path] = operation.split(/ (.*)/);
  const answer = await fetch(path, {method, headers: {"Content-Type": "application/json", "X-Orkosi": "1"}, body});
  if (answer.status === 401 && again) {  // the half that is good for minutes has run out: the page renews it
    await refresh(true);
    return call(operation, body, false);
  }
  const made = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(made.error?.message ?? `The server answered ${answer.status}`);
}

async function perform(operation, body, said, back, element = null) {
  element?.setAttribute("aria-busy", "true");
  try {
    await call(operation, body);
    toast(said, back);
  } catch (problem) {
    toast(problem.message, null, true);
  }
  element?.removeAttribute("aria-busy");
  await refresh(true).catch(() => {});
}

function toast(words, back = null, wrong = false) {
  const made = document.createElement("div");
  made.className = wrong ? "toast wrong" : "toast";
  made.append(Object.assign(document.createElement("span"), {textContent: words}));
  if (back) {
    const button = Object.assign(document.createElement("button"), {className: "act", type: "button", textContent: "Undo"});
    button.addEventListener("click", () => { made.remove(); back(); });
    made.append(button);
  }
  document.querySelector("[data-toasts]").replaceChildren(made);
  setTimeout(() => made.remove(), wrong ? 12000 : 8000);
}

export function start() {
  document.addEventListener("click", ({target}) => {
    const button = target.closest("button[data-do]");
    if (!button || button.hasAttribute("aria-busy")) return;
    const {do: operation, body, say, undo, undoBody} = button.dataset;
    perform(operation, body, say, undo ? () => perform(undo, undoBody, `Undone: ${say}`, null) : null, button);
  });
}
