// A form with data-post sends its fields as JSON there, with the last part of this page's
// address as `token` where data-token asks for it, and says what came of it.
"use strict";

const state = document.querySelector("[data-state]");
if (state) {
  fetch("/api/health").then((answer) => answer.json()).then((health) => {
    state.textContent = `${health.status}, version ${health.version}, up ${health.uptime} s`;
  }, () => { state.textContent = "not answering"; });
}

for (const form of document.querySelectorAll("form[data-post]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = form.querySelector("[role=status]");
    const body = Object.fromEntries(new FormData(form));
    if (form.dataset.token) body.token = decodeURIComponent(location.pathname.split("/").pop());
    said.textContent = "One moment …";
    const answer = await fetch(form.dataset.post, {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
    });
    const made = await answer.json();
    said.textContent = answer.ok ? form.dataset.done : made.error.message;
    if (answer.ok) form.querySelector("button").disabled = true;
  });
}
