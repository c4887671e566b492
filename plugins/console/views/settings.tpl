<main id="main" tabindex="-1">
<div class="head" id="head"><div><h1>Settings</h1><p class="small">Set in <code>orkosi.toml</code> of the data folder, or as ORKOSI_… in the environment; a restart makes them hold</p></div></div>
<div class="scroll" tabindex="0" role="region" aria-label="Settings"><table class="stack"><thead><tr><th scope="col">Setting</th><th scope="col">Value</th><th scope="col">What it is</th></tr></thead><tbody data-rows>
% for one in known:
<tr id="s-{{one.name}}" data-row tabindex="0"><td data-label="Setting"><code>{{one.name}}</code></td><td class="clip" data-label="Value">{{"set" if one.secret and values.values.get(one.name) else "" if one.secret else values.values.get(one.name, "")}}</td><td class="wide" data-label="What it is">{{one.sentence}}</td></tr>
% end
</tbody></table></div>
</main>
