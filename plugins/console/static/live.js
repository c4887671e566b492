// Keeps <main> what the server would now answer, and says so when it cannot.
// The server renders; here the new markup is only laid over the old, node by node, so that focus, scroll, open
// details, ticked boxes, what is being typed and selected text stay. One place makes markup from text (`parsed`).
const policy = window.trustedTypes?.createPolicy("orkosi", {createHTML: (text) => text}) ?? {createHTML: (text) => text};
const $ = (selector, within = document) => within.querySelector(selector);
const root = document.documentElement;
const streams = "streams" in document.body.dataset;
const STALE = 12000, OFTEN = 2000, SELDOM = 5000, LATEST = 30000;  // a stream tells sooner; jobs and logs are not in it
let tag = "", fresh = Date.now(), failing = 0, timer = 0, soon = 0, later = 0, asked = 0, busy = false, again = false, holds = 0, source = null, known = "";

export function parsed(text) {
  return new DOMParser().parseFromString(policy.createHTML(text), "text/html").body;
}

// ── laying new markup over old ──

const OURS = new Set(["open", "aria-busy", "aria-pressed", "hidden"]);
const kept = (element, name) => OURS.has(name) && (name !== "hidden" || "bulk" in element.dataset) || name === "class" && element.classList.contains("chosen");

function lay(old, now) {
  if (old.isEqualNode(now)) return;
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || old.id !== now.id) return void old.replaceWith(now);
  if (old.nodeType !== Node.ELEMENT_NODE) return void (old.nodeValue = now.nodeValue);
  if (old.matches("details.form[open]")) return;  // somebody is filling it in
  for (const {name} of [...old.attributes]) if (!now.hasAttribute(name) && !kept(old, name)) old.removeAttribute(name);
  for (const {name, value} of now.attributes) if (old.getAttribute(name) !== value && !kept(old, name)) old.setAttribute(name, value);
  if (old.nodeName === "SELECT") return void choices(old, now);
  if (old.nodeName === "TEXTAREA") old.defaultValue = now.defaultValue;  // it shows that, unless somebody has typed there
  if (old.nodeName === "TIME" || old.matches("input, textarea")) return;
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

// The choices of the new one, and what somebody has chosen among the old.
function choices(old, now) {
  const value = changed(old) ? old.value : now.value;  // read before: what is moved option by option selects another each time
  old.replaceChildren(...now.childNodes);
  old.value = value;
}

// Whether a field holds something else than the server put there.
export function changed(field) {
  if (field.type === "checkbox") return field.checked !== field.defaultChecked;
  if (field.nodeName !== "SELECT") return field.value !== field.defaultValue;
  return field.value !== ([...field.options].find((one) => one.defaultSelected) ?? field.options[0])?.value;
}

function put(text) {
  const main = parsed(text).firstElementChild;
  if (!main) return;
  const log = $("[data-log]"), at = log && log.scrollTop + log.clientHeight >= log.scrollHeight - 24;
  const button = $("[data-follow]"), follow = button ? button.getAttribute("aria-pressed") === "true" : at;
  lay($("#main"), main);
  if (follow) toEnd();
  ages();
  document.dispatchEvent(new Event("laid"));
}

// ── the log follows its end, until somebody scrolls up to read ──

function toEnd() {
  const log = $("[data-log]");
  if (log) log.scrollTop = log.scrollHeight;
}

function following() {
  let top = 0;
  document.addEventListener("scroll", ({target}) => {
    if (!target.matches?.("[data-log]")) return;
    const up = target.scrollTop < top - 2, end = target.scrollTop + target.clientHeight >= target.scrollHeight - 24;
    top = target.scrollTop;
    if (up || end) $("[data-follow]")?.setAttribute("aria-pressed", end);  // only a scroll upwards lets go: growing does not
  }, true);
  document.addEventListener("click", ({target}) => {
    const button = target.closest("[data-follow]");
    if (!button) return;
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    if (on) toEnd();
  });
}

// ── asking ──

// While somebody drags, or has marked text, nothing may move under the hand.
export const hold = (on) => { holds += on ? 1 : -1; };
const held = () => holds > 0 || String(getSelection()).length > 0 && $("#main").contains(getSelection().anchorNode);

export const anew = () => { tag = ""; };  // what was not laid, as under an open form, is then

export async function refresh(sure = false) {
  if (!sure && held()) return;
  const answer = await fetch(location.pathname + location.search, {headers: {"X-Orkosi-Live": sure ? "1" : "follow", ...(tag && {"If-None-Match": tag})}, cache: "no-store"});
  if (answer.status === 401) return void location.reload();  // it asks who one is, and leads back here
  if (answer.status >= 500) throw new Error(`${answer.status}`);
  fresh = Date.now();
  if (answer.status === 304) return;
  tag = answer.headers.get("ETag") ?? "";
  put(await answer.text());
}

async function look() {
  if (document.hidden) return;
  if (busy) return void (again = true);
  busy = true;
  asked = Date.now();
  clearTimeout(timer);
  try {
    await refresh();
    failing = 0;
  } catch {
    failing += 1;
  }
  busy = false;
  sign();
  const pace = $("#main").dataset.often ? OFTEN : SELDOM;
  timer = setTimeout(look, again ? 1000 : Math.min(pace * 1.7 ** failing, LATEST));
  again = false;
}

// Something happened: the page is asked for 300 ms later, at most once a second.
function heard(type) {
  const wants = ($("#main").dataset.live ?? "").split(" ");
  if (type !== "reset" && !wants.includes("*") && !wants.includes(type.split(/[._]/)[0])) return;
  clearTimeout(soon);
  soon = setTimeout(look, Math.max(300, 1000 - (Date.now() - asked)));
  clearTimeout(later);
  later = setTimeout(look, 1500);  // the server answers followers for a second as it did: this one is surely new
}

// Only the tab that is seen holds a stream: a browser has six connections for a server, and no more.
async function listen() {
  if (!streams || document.hidden || source) return;
  const mine = source = new AbortController();
  try {
    const answer = await fetch("/api/events?beat=true", {headers: known ? {"Last-Event-ID": known} : {}, signal: mine.signal, cache: "no-store"});
    if (!answer.ok) throw new Error(`${answer.status}`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    look();  // what happened before it was there
    for (let part; !(part = await reader.read()).done;) {
      const events = (text + part.value).split("\n\n");
      text = events.pop();
      for (const event of events) told(event);
    }
  } catch { /* it is tried again */ }
  if (source === mine) { source = null; setTimeout(listen, 2000 + 1000 * Math.random()); }
}

function told(event) {
  known = event.match(/^id: (\d+)/m)?.[1] ?? known;
  const type = event.match(/^event: (.+)/m)?.[1];
  if (type === "beat") fresh = Date.now(); else if (type) heard(type);
}

function deaf() {
  source?.abort();
  source = null;
}

function sign() {
  const old = Date.now() - fresh > STALE || failing > 1, banner = $("[data-stale]");
  root.classList.toggle("is-live", !old);
  root.classList.toggle("is-stale", old);
  const words = old ? "not live" : "live", span = $("[data-live-sign] span");
  if (span.textContent !== words) span.textContent = words;
  banner.hidden = !old;
  if (old) banner.textContent = `Not live: what you see is from ${new Date(fresh).toLocaleTimeString()}. Asking again …`;
}

// ── ages: told by the browser's clock, set right by the server's ──

const span = (s) => s < 60 ? `${s} s` : s < 3600 ? `${s / 60 | 0} min${s < 600 ? ` ${s % 60} s` : ""}` : s < 86400 ? `${s / 3600 | 0} h ${s % 3600 / 60 | 0} min` : `${s / 86400 | 0} d`;
const sent = Date.parse($("[data-live-sign] time")?.dateTime ?? "");
const ahead = Number.isNaN(sent) || Math.abs(Date.now() - sent) < 120000 ? 0 : Date.now() - sent;  // a clock that is wrong by minutes is wrong by these

function ages() {
  const now = Date.now() - ahead;
  for (const time of document.querySelectorAll("time[datetime]")) {
    const then = Date.parse(time.dateTime), s = Math.max(0, (now - then) / 1000 | 0), data = time.dataset;
    const words = "clock" in data ? new Date(then).toLocaleTimeString([], {hourCycle: "h23"}) : "since" in data ? span(s)
      : "until" in data ? then < now ? "now" : `in ${span((then - now) / 1000 | 0)}` : s < 5 ? "just now" : `${span(s < 600 && s > 60 ? s - s % 60 : s).replace(/ 0 s$/, "")} ago`;
    if (time.textContent !== words) time.textContent = words;
    if (!time.title) time.title = new Date(then).toLocaleString();
  }
}

export function start() {
  following();
  toEnd();
  ages();
  setInterval(() => { ages(); sign(); }, 1000);
  document.addEventListener("visibilitychange", () => { if (document.hidden) return deaf(); listen(); look(); });
  addEventListener("online", look);
  addEventListener("pagehide", deaf);
  sign();
  listen();
  timer = setTimeout(look, 800);
}
