// The keyboard: j and k walk the rows, digits press their buttons, / searches and goes. Single keys can be turned off.
import {parsed} from "./live.js";
import {undo} from "./act.js";
import {move} from "./board.js";

const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
let gone = 0, before = null;

const row = () => document.activeElement?.closest("[data-row]");

function walk(step) {
  const rows = all("main [data-row]").filter((one) => one.offsetParent), at = rows.indexOf(row());
  const column = row()?.closest("[data-column]");
  const inside = column ? rows.filter((one) => column.contains(one)) : rows;
  const next = column ? inside[inside.indexOf(row()) + step] : rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step];
  next?.focus();
  next?.scrollIntoView({block: "nearest", inline: "nearest"});
}

function beside(step) {
  const columns = all("[data-column]"), here = row()?.closest("[data-column]");
  for (let at = columns.indexOf(here) + step; here && columns[at]; at += step) {
    const card = $("[data-row]", columns[at]);
    if (card) return card.focus();
  }
}

const KEYS = {
  j: () => walk(1), k: () => walk(-1), ArrowDown: () => row() && walk(1), ArrowUp: () => row() && walk(-1),
  ArrowRight: () => beside(1), ArrowLeft: () => beside(-1),
  o: () => $("a", row())?.click(), Enter: () => document.activeElement === row() && $("a", row())?.click(),
  x: () => $("[data-choose]", row())?.click(),
  "[": () => move(row(), -1), "]": () => move(row(), 1),
  u: undo, f: () => $("[data-follow]")?.click(), "?": () => $("[data-help]").showModal(),
};

function press(event) {
  const {key, target} = event;
  if (event.ctrlKey || event.metaKey || event.altKey) {
    if (key === "k" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); open(); }
    return;
  }
  if (target.closest("input, textarea, select, [contenteditable], dialog[open]")) return;
  if (key === "Escape") { all("[data-choose]:checked").forEach((box) => box.click()); return void document.activeElement?.blur(); }
  if (key !== "/" && localStorage.getItem("keys") === "off" && key.length === 1) return;
  if (key === "/") { event.preventDefault(); return open(); }
  if (Date.now() - gone < 1500) { gone = 0; const link = $(`[data-key="${CSS.escape(key)}"]`); if (link) return link.click(); }
  if (key === "g") return void (gone = Date.now());
  if (/^[1-9]$/.test(key) && row()) return all(".act", row())[key - 1]?.click();
  const does = KEYS[key];
  if (!does || (key.startsWith("Arrow") && !row())) return;
  if (key.length > 1 && key !== "Enter") event.preventDefault();
  does();
}

// ── the palette: a search that the server answers, and ways to go ──

let asked = 0;
function option(words, key, does) {
  const made = Object.assign(document.createElement("button"), {type: "button", textContent: words});
  made.setAttribute("role", "option");
  made.append(Object.assign(document.createElement("small"), {textContent: key}));
  made.addEventListener("click", () => { $("[data-palette]").close(); does(); });
  return made;
}

function open() {
  const palette = $("[data-palette]");
  if (palette.open) return;
  before = row();
  palette.showModal();
  $("input", palette).select();
  ask("");
}

async function ask(q) {
  const mine = ++asked, list = $("#found");
  const like = (words) => words.toLowerCase().includes(q.toLowerCase());
  const links = [...all(".top nav a").map((link) => [`Go to ${link.textContent.trim()}`, `g ${link.dataset.key}`, () => link.click()]),
    ...all("main .head .act[data-do], main details.form > summary").map((one) => [one.textContent.trim(), "here", () => one.click()]),
    ...(before ? all(".act[data-do]", before).map((one) => [`${one.textContent.trim()}: ${$("a, b", before)?.textContent.trim() ?? ""}`, "this row", () => one.click()]) : []),
  ].filter(([words]) => like(words)).slice(0, q ? 12 : 24).map(([words, key, does]) => option(words, key, does));
  const answer = await fetch(`/search?q=${encodeURIComponent(q)}`, {headers: {"X-Orkosi-Live": "found"}}).catch(() => null);
  if (mine !== asked) return;
  list.replaceChildren(...(answer?.ok ? parsed(await answer.text()).childNodes : []), ...links);
  pick(0);
}

function pick(step) {
  const options = all("#found [role=option]"), at = options.findIndex((one) => one.getAttribute("aria-selected") === "true");
  const next = step ? (at + step + options.length) % options.length : 0;
  options.forEach((one, i) => { one.id ||= `found-${i}`; one.setAttribute("aria-selected", i === next); one.tabIndex = -1; });
  options[next]?.scrollIntoView({block: "nearest"});
  const input = $("[data-palette] input");
  if (options[next]) input.setAttribute("aria-activedescendant", options[next].id); else input.removeAttribute("aria-activedescendant");
  return options[next];
}

export function start() {
  document.addEventListener("keydown", press);
  const input = $("[data-palette] input");
  let wait = 0;
  input.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(ask, 90, input.value.trim()); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); pick(event.key === "ArrowDown" ? 1 : -1); }
    if (event.key === "Enter") { event.preventDefault(); $("#found [aria-selected=true]")?.click(); }
  });
  $(".find input").addEventListener("focus", (event) => { if (matchMedia("(hover: hover)").matches) { event.target.blur(); open(); } });
  for (const dialog of all("dialog")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  const on = $("[data-keys-on]");
  on.checked = localStorage.getItem("keys") !== "off";
  on.addEventListener("change", () => localStorage.setItem("keys", on.checked ? "on" : "off"));
}
