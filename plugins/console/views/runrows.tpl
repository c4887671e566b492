<div class="scroll" tabindex="0" role="region" aria-label="Runs" id="runlist"><table><thead><tr><th scope="col">State</th><th scope="col">Run</th><th scope="col">Agent</th><th scope="col">Task</th><th scope="col">Began</th><th scope="col" class="num">Took</th><th scope="col" class="num lesser">Tokens</th><th scope="col" class="num">Cost</th></tr></thead><tbody data-rows>
% for run in runs:
<tr id="r{{run.id}}" data-row tabindex="0"><td>{{!look.state(run.status)}}</td><td><a href="/agent-runs/{{run.id}}">run {{run.id}}</a></td><td><a href="/agents/{{run.agent}}">{{run.agent}}</a></td><td>{{!look.link("/tasks", run.task_id, "task %s" % run.task_id)}}</td><td>{{!look.age(run.started_at)}}</td><td class="num">{{!look.counting(run.started_at) if run.status == "running" else look.took(run.duration_ms)}}</td><td class="num lesser">{{look.number(run.tokens_in + run.tokens_out)}}</td><td class="num">{{look.money(run.cost_micros)}}</td></tr>
% end
</tbody></table></div>
