<main id="main" tabindex="-1" data-live="agent job run budget">
<div class="head" id="head"><h1>{{agent.display_name}}</h1><p class="acts">
% include("turns.tpl", agent=agent)
{{!act("Restart", "POST /api/agents/{name}/restart", say="Restarted " + agent.display_name, name=agent.name) if agent.wanted == "running" else ""}}
</p></div>
<p class="facts" id="facts">{{!look.state(agent.status)}} <span>{{agent.role}}</span> <span>{{agent.adapter or "a program of its own"}}{{" · " + agent.model if agent.model else ""}}</span> <span>looks every {{look.span(agent.interval_sec)}}</span>
 <span>last heard of {{!look.age(agent.last_heartbeat)}}</span></p>
% if agent.note:
<p class="calmly" id="said">{{agent.note}}</p>
% end
% wrong = [step for step in agent.steps if not step.ok]
% if wrong:
<section class="whys" id="steps"><h2>It was not made whole</h2><ul>
%   for step in wrong:
<li>{{step.name}}: {{step.detail}}</li>
%   end
</ul></section>
% end
<dl class="tiles" id="tiles">
  <div id="f-doing"><dt>Works on</dt><dd class="words">{{!look.link("/tasks", agent.lease and agent.lease.task_id, agent.lease.title or "a job" if agent.lease else "nothing")}}</dd><dd class="small">{{!look.counting(agent.lease.claimed_at) if agent.lease else "no lease"}}</dd></div>
  <div id="f-done"><dt>Of its tasks are done</dt><dd>{{round(agent.completion_rate.rate * 100)}} %</dd><dd class="small">{{look.number(agent.completion_rate.done)}} of {{look.number(agent.completion_rate.total)}}</dd></div>
% if budget:
  <div id="f-day"><dt>Spent today</dt><dd>{{look.money(budget.today.cost_micros)}}</dd><dd class="small">{{look.number(budget.today.tokens)}} tokens{{" of %s" % look.number(budget.tokens_per_day) if budget.tokens_per_day is not None else ""}}{{", %s at most" % look.money(budget.cost_micros_per_day) if budget.cost_micros_per_day is not None else ""}}</dd></div>
  <div id="f-month"><dt>Spent this month</dt><dd>{{look.money(budget.this_month.cost_micros)}}</dd><dd class="small">{{look.number(budget.this_month.tokens)}} tokens{{", %s at most" % look.money(budget.cost_micros_per_month) if budget.cost_micros_per_month is not None else ""}}</dd></div>
% end
  <div id="f-process"><dt>Process</dt><dd class="words">{{"%s" % agent.process.pid if agent.process and agent.process.pid else "none now"}}</dd><dd class="small">{{agent.workspace_path or "it lives elsewhere"}}</dd></div>
</dl>
<div class="heads" id="heads">
% if budget:
{{!act.form("Set", "PUT /api/agents/{name}/budget", forms.a_budget(budget), title="What it may spend", say="Set", name=agent.name)}}
% end
{{!act.form("Give it", "POST /api/tasks", forms.a_task([agent.name], []), title="Give it a task", say="Given")}}
{{!act.form("Save", "PATCH /api/agents/{name}", forms.agent_changes(agent), title="Change it", say="Changed", name=agent.name)}}
</div>
<section id="runs"><h2>Runs</h2>
% if not runs:
<p class="calmly">It has not worked yet.</p>
% else:
% include("runrows.tpl", runs=runs)
% end
</section>
% if lines is not None:
<section id="logs"><h2>Log</h2>
% include("log.tpl", lines=lines)
</section>
% end
</main>
