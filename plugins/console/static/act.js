// Buttons and forms call the API with the browser's cookie and the header that no foreign page can send, say what came
// of it, and offer to take it back. Nothing is guessed: the page shows the change when the server has made it.
import {anew, changed, refresh} from "./live.js";

let last = null;
const $ = (selector) => document.querySelector(selector);

async function call(operation, body, again = true) {
  const [method, path] = operation.split(/ (.*)/);
  const answer = await fetch(path, {method, headers: {"Content-Type": "application/json", "X-Orkosi": "1"}, body: method === "GET" ? undefined : JSON.stringify(body)});
  if (answer.status === 401 && again) {  // the half that is good for minutes has run out: the page renews it
    await refresh(true);
    return call(operation, body, false);
  }
  const made = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(made.error?.message ?? `The server answered ${answer.status}`);
  return made.data ?? {};
}

// Once for each id, in the place of what stands in braces; a few at a time.
async function each(operation, body, ids) {
  const wrong = [], queue = [...ids];
  const worker = async () => { for (let id; (id = queue.shift());) await call(operation.replace(/%7B\w+%7D|\{\w+\}/, id), body).catch((problem) => wrong.push(problem)); };
  await Promise.all([worker(), worker(), worker(), worker()]);
  if (wrong.length) throw new Error(wrong.length === ids.length ? wrong[0].message : `${wrong.length} of ${ids.length} failed: ${wrong[0].message}`);
}

export async function perform(operation, body, {say, undo, undoBody = {}, ids = null, element = null, show = "", to = ""}) {
  element?.setAttribute("aria-busy", "true");
  let done = false;
  try {
    const made = ids ? await each(operation, body, ids) : await call(operation, body);
    done = true;
    last = undo ? () => perform(undo, undoBody, {say: `Undone: ${say}`, ids}) : null;
    toast(ids?.length > 1 && !/\d/.test(say) ? `${say}: ${ids.length}` : say, last);
    if (show && made?.[show]) await secret(say, made[show]);
    if (to) follow(to, made);
  } catch (problem) {
    toast(problem.message, null, true);
  }
  element?.removeAttribute("aria-busy");
  await refresh(true).catch(() => {});
  return done;
}

function follow(to, made) {
  const where = to.replace(/\{(\w+)\}/g, (_, name) => made?.[name] ?? "");
  if (/^(https?:\/\/|\/(?!\/))/.test(where)) location.assign(where);
}

export function undo() {
  const back = last;
  last = null;
  $("[data-toasts]").replaceChildren();
  back?.();
}

export function toast(words, back = null, wrong = false) {
  const made = document.createElement("div");
  made.className = wrong ? "toast wrong" : "toast";
  made.append(Object.assign(document.createElement("span"), {textContent: words}));
  if (back) {
    const button = Object.assign(document.createElement("button"), {className: "act", type: "button", textContent: "Undo"});
    button.addEventListener("click", undo);
    made.append(button);
  }
  $("[data-toasts]").replaceChildren(made);
  setTimeout(() => made.remove(), wrong ? 12000 : 8000);
}

// ── asking before what cannot come back, and showing what is shown once ──

function dialog(words, text, yes, no) {
  const box = $("[data-ask]"), secret = $("[data-ask-secret]");
  $("[data-ask-words]").textContent = words;
  secret.textContent = text;
  secret.hidden = !text;
  $("[data-ask-yes]").textContent = yes;
  $("[data-ask-no]").hidden = !no;
  box.returnValue = "";
  box.showModal();
  return new Promise((tell) => {
    const closed = () => {
      if (box.open) return;  // that was the one before
      box.removeEventListener("close", closed);
      secret.textContent = "";
      tell(box.returnValue === "yes");
    };
    box.addEventListener("close", closed);
  });
}

const sure = (words) => dialog(words, "", "Yes", "No");
const secret = (words, text) => dialog(`${words}. This is shown once: keep it now.`, text, "I have it", "");

export const chosen = () => [...document.querySelectorAll("[data-choose]:checked")].map((box) => box.closest("[data-row]"));

export function loose() {
  for (const box of document.querySelectorAll("[data-choose]:checked, [data-all]:checked")) box.checked = false;
  document.dispatchEvent(new Event("laid"));
}

async function press(button) {
  const {do: operation, body, say, undo: back, undoBody, ids, bulk, sure: words, show, to} = button.dataset;
  if (words && !await sure(words)) return;
  const given = JSON.parse(body ?? "{}"), taken = JSON.parse(undoBody ?? "{}");
  const ticked = bulk ? chosen().map((row) => row.dataset.id) : null;
  if (ticked && !ticked.length) return;
  if (ticked) loose();
  if (ticked && bulk !== "each") given[bulk] = taken[bulk] = ticked;
  const many = bulk === "each" ? ticked : ids ? ids.split(",") : null;
  const said = ticked ? `${say}: ${ticked.length}` : say;
  await perform(operation, given, {say: said, undo: back, undoBody: taken, ids: many, element: button, show, to});
}

// ── forms ──

const READ = {
  number: (value) => value === "" ? null : Number(value), list: (value) => value.split(",").map((one) => one.trim()).filter(Boolean),
  words: (value) => value.match(/"[^"]*"|'[^']*'|\S+/g)?.map((one) => one.replace(/^(["'])(.*)\1$/, "$2")) ?? [], "null": (value) => value || null,
  date: (value) => value || null,
};

// What changes something sends what was changed, and no more: the rest may be another by now than this page knows.
function filled(form) {
  const body = {}, changes = form.dataset.form.startsWith("PATCH"), whole = form.dataset.form.startsWith("PUT");
  for (const field of form.elements) {
    if (!field.name || changes && !changed(field)) continue;
    const kind = field.dataset.kind, value = kind === "bool" ? field.checked : (READ[kind] ?? String)(field.value);
    const empty = value === "" || value === null || Array.isArray(value) && !value.length;
    if (empty && !whole && !changes) continue;
    const path = field.name.split(".");
    path.slice(0, -1).reduce((at, name) => at[name] ??= {}, body)[path.at(-1)] = value;
  }
  return body;
}

async function submit(form) {
  const {form: operation, say, show, to} = form.dataset, button = form.querySelector("button.act");
  if (await perform(operation, filled(form), {say, element: button, show, to})) {
    form.reset();
    form.closest("details").open = false;
    anew();
    await refresh(true).catch(() => {});
  }
}

export function start() {
  document.addEventListener("click", ({target}) => {
    const button = target.closest("button[data-do]");
    if (button && !button.hasAttribute("aria-busy")) press(button);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-form]")) return;
    event.preventDefault();
    if (!event.target.querySelector("[aria-busy]")) submit(event.target);
  });
  document.addEventListener("change", ({target}) => { if (target.matches("[data-go]")) target.form.requestSubmit(); });
}
