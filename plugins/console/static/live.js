// Keeps <main> what the server would now answer, and says so when it cannot.
// The server renders; here the new markup is only laid over the old, node by node, so that focus, scroll, open
// details, ticked boxes and selected text stay. One place makes markup from text (`parsed`).
const policy = window.trustedTypes?.createPolicy("orkosi", {createHTML: (text) => text}) ?? {createHTML: (text) => text};
const $ = (selector, within = document) => within.querySelector(selector);
const root = document.documentElement;
const EVERY = 2000, STALE = 12000;
let tag = "", fresh = Date.now(), wait = EVERY, timer = 0, busy = false;

function parsed(text) {
  return new DOMParser().parseFromString(policy.createHTML(text), "text/html").body;
}

// ── laying new markup over old ──

function lay(old, now) {
  if (old.isEqualNode(now)) return;
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || old.id !== now.id) return void old.replaceWith(now);
  if (old.nodeType !== Node.ELEMENT_NODE) return void (old.nodeValue = now.nodeValue);
  for (const {name} of [...old.attributes]) if (!now.hasAttribute(name) && !OURS.has(name)) old.removeAttribute(name);
  for (const {name, value} of now.attributes) if (old.getAttribute(name) !== value && !OURS.has(name)) old.setAttribute(name, value);
  if (old.nodeName === "TIME" || old.matches("input, textarea, select")) return;
  const byId = new Map([...old.children].filter((one) => one.id).map((one) => [one.id, one]));
  let at = old.firstChild;
  for (const node of [...now.childNodes]) {
    let mate = node.id ? byId.get(node.id) : at && !at.id && at.nodeName === node.nodeName ? at : null;
    if (!mate) { old.insertBefore(node, at); continue; }
    if (mate === at) at = at.nextSibling; else old.insertBefore(mate, at);
    lay(mate, node);
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next; }
}

const OURS = new Set(["open", "aria-busy"]);

function put(text) {
  const main = parsed(text).firstElementChild;
  if (!main) return;
  const log = $("[data-log]"), follow = log && log.scrollTop + log.clientHeight >= log.scrollHeight - 24;
  lay($("#main"), main);
  if (follow) toEnd();
  ages();
}

// The log follows its end, until somebody scrolls up to read.
function toEnd() {
  const log = $("[data-log]");
  if (log) log.scrollTop = log.scrollHeight;
}

// ── asking ──

// While somebody has marked text, nothing may move under the hand.
const held = () => String(getSelection()).length > 0 && $("#main").contains(getSelection().anchorNode);

export async function refresh(sure = false) {
  if (!sure && held()) return;
  const answer = await fetch(location.pathname + location.search, {headers: {"X-Orkosi-Live": "1", ...(tag && {"If-None-Match": tag})}, cache: "no-store"});
  if (answer.status === 401) return void location.reload();  // it asks who one is, and leads back here
  if (answer.status >= 500) throw new Error(`${answer.status}`);
  if (answer.status === 304) return;
  tag = answer.headers.get("ETag") ?? "";
  put(await answer.text());
}

async function look() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    await refresh();
    fresh = Date.now(); wait = EVERY;
  } catch {
    wait = Math.min(wait * 1.7, 30000);
  }
  busy = false;
  sign();
  clearTimeout(timer);
  timer = setTimeout(look, wait);
}

function sign() {
  const old = Date.now() - fresh > STALE || wait > EVERY, banner = $("[data-stale]");
  root.classList.toggle("is-live", !old);
  root.classList.toggle("is-stale", old);
  const words = old ? "not live" : "live";
  const span = $("[data-live-sign] span");
  if (span.textContent !== words) span.textContent = words;
  banner.hidden = !old;
  if (old) banner.textContent = `Not live: what you see is from ${new Date(fresh).toLocaleTimeString()}. Asking again …`;
}

// ── ages ──

const span = (s) => s < 60 ? `${s} s` : s < 3600 ? `${s / 60 | 0} min${s < 600 ? ` ${s % 60} s` : ""}` : s < 86400 ? `${s / 3600 | 0} h ${s % 3600 / 60 | 0} min` : `${s / 86400 | 0} d`;

function ages() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const then = Date.parse(time.dateTime), s = Math.max(0, (now - then) / 1000 | 0);
    const words = "clock" in time.dataset ? new Date(then).toLocaleTimeString([], {hourCycle: "h23"}) : "since" in time.dataset ? span(s) : s < 5 ? "just now" : `${span(s < 600 && s > 60 ? s - s % 60 : s).replace(/ 0 s$/, "")} ago`;
    if (time.textContent !== words) time.textContent = words;
    if (!time.title) time.title = new Date(then).toLocaleString();
  }
}

export function start() {
  toEnd();
  ages();
  setInterval(ages, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { clearTimeout(timer); look(); } });
  addEventListener("online", look);
  sign();
  timer = setTimeout(look, 800);
}
