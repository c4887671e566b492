<main id="main" tabindex="-1" data-live="agent job run">
<div class="head" id="head"><h1>Agents</h1></div>
{{!act.form("Add", "POST /api/agents", forms.an_agent(), title="Add an agent", say="Added", show="key", to="/agents/{name}")}}
<section id="staff">
% include("staff.tpl", staff=staff)
</section>
</main>
