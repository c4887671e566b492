<main id="main" tabindex="-1" data-live="run">
<div class="head" id="head"><h1>Runs</h1>
<ul class="chips">
% for name in ("", "running", "done", "failed", "timeout", "lost"):
<li><a href="/agent-runs{{"?status=" + name if name else ""}}"{{!' aria-current="true"' if chosen == name else ""}}>{{!look.state(name) if name else "all"}}</a></li>
% end
</ul></div>
% if not found.items:
<p class="calmly">No run is like that.</p>
% else:
% include("runrows.tpl", runs=found.items)
% include("pages.tpl", found=found)
% end
</main>
