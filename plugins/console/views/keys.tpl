<main id="main" tabindex="-1" data-live="key">
<div class="head" id="head"><div><h1>API keys</h1><p class="small">A key's secret is shown once, when it is made or rotated</p></div></div>
<div class="heads">{{!act.form("Make", "POST /api/organizations/{orgId}/api-keys", forms.a_key(), title="Make a key", say="Made", show="key", orgId=org)}}</div>
% if not found.items:
<p class="calmly">There is no key yet.</p>
% else:
<div class="scroll" tabindex="0" role="region" aria-label="API keys" id="list"><table class="stack"><thead><tr><th scope="col">State</th><th scope="col">Name</th><th scope="col">Key</th><th scope="col" class="lesser">May</th><th scope="col">Last used</th><th scope="col"><span class="hear">What may be done</span></th></tr></thead><tbody data-rows>
%   for key in found.items:
<tr id="row-{{key.id}}" data-row tabindex="0"><td data-label="State">{{!look.state("enabled" if key.is_active else "revoked" if key.revoked_at else "expired")}}</td><td data-label="Name">{{key.name}}</td><td data-label="Key"><code>{{key.masked}}</code></td><td class="lesser wide" data-label="May">{{" ".join(key.scopes) or "nothing yet"}}</td><td data-label="Last used">{{!look.age(key.last_used_at)}}</td><td><div class="acts">
%     if key.is_active:
{{!act("Rotate", "POST /api/organizations/{orgId}/api-keys/{keyId}/rotate", {"grace_hours": 24}, show="key", say="Rotated " + key.name, sure="A new secret for %s? The old one is good for 24 hours more." % key.name, orgId=org, keyId=key.id)}}
{{!act("Revoke", "POST /api/organizations/{orgId}/api-keys/{keyId}/revoke", say="Revoked " + key.name, sure="Revoke %s? Whoever uses it is shut out at once." % key.name, orgId=org, keyId=key.id)}}
%     end
</div></td></tr>
%   end
</tbody></table></div>
% end
</main>
