// A form with data-post sends its fields as JSON there, with the last part of this page's address
// as the field that data-token names, and says what came of it. A form with data-accept logs in
// first, accepts the invitation of this page, and logs out again: no token outlives the page.
"use strict";

const token = decodeURIComponent(location.pathname.split("/").pop());

async function send(path, body, bearer) {
  const headers = {"Content-Type": "application/json"};
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  const answer = await fetch(path, {method: "POST", headers, body: JSON.stringify(body)});
  const made = await answer.json();
  if (!answer.ok) throw new Error(made.error.message);
  return made;
}

function fields(form) {
  const body = Object.fromEntries(new FormData(form));
  for (const box of form.querySelectorAll("[type=checkbox]")) body[box.name] = box.checked;
  if (form.dataset.token) body[form.dataset.token] = token;
  return body;
}

async function accept(body) {
  const {data} = await send("/api/auth/invitation", {token});
  const path = {org: "organizations", team: "teams"}[data.kind];
  if (!path) throw new Error("This invitation is for somebody who has no account yet; register above.");
  const session = (await send("/api/auth/login", body)).token;
  try {
    await send(`/api/${path}/invites/${encodeURIComponent(token)}/accept`, {}, session);
  } finally {
    await send("/api/auth/logout", {}, session);
  }
}

const invitation = document.querySelector("[data-invitation]");
if (invitation) {
  send("/api/auth/invitation", {token}).then(({data}) => {
    invitation.textContent = `For ${data.email}, as ${data.role}, until ${new Date(data.expires_at).toLocaleString()}.`;
    for (const field of document.querySelectorAll("[name=email]")) field.value = data.email;
  }, (problem) => { invitation.textContent = problem.message; });
}

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = form.querySelector("[role=status]");
    said.textContent = "One moment …";
    try {
      const body = fields(form);
      await ("accept" in form.dataset ? accept(body) : send(form.dataset.post, body));
      said.textContent = form.dataset.done;
      form.querySelector("button").disabled = true;
    } catch (problem) {
      said.textContent = problem.message;
    }
  });
}
