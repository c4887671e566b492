<main id="main" tabindex="-1" data-live="run task" data-often="{{"1" if run.status == "running" else ""}}">
<div class="head" id="head"><h1>{{!look.link("/tasks", run.task_id, title)}}</h1><p class="acts">
% if run.status == "running":
{{!act("Stop " + run.agent, "POST /api/agents/{name}/stop", undo="POST /api/agents/{name}/start", say="Stopped " + run.agent, name=run.agent)}}
% elif run.task_id and run.status != "done":
{{!act("Try again", "PATCH /api/tasks/{id}", {"status": "todo"}, say="Trying again", id=run.task_id)}}
% end
% if run.status != "running":
{{!act("Replay", "POST /api/agent-runs/{id}/replay", say="It does this run again, told the same", id=run.id)}}
% end
</p></div>
<dl class="tiles" id="tiles">
  <div id="f-state"><dt>State</dt><dd>{{!look.state(run.status)}}</dd><dd class="small">run {{run.id}}{{", exit code %s" % run.exit_code if run.exit_code is not None else ""}}{{", a replay of run %s" % run.replay_of if run.replay_of else ""}}</dd></div>
  <div id="f-time"><dt>{{"Running for" if run.status == "running" else "Took"}}</dt><dd>{{!look.counting(run.started_at) if run.status == "running" else look.took(run.duration_ms)}}</dd><dd class="small">began {{!look.age(run.started_at)}}</dd></div>
  <div id="f-cost"><dt>Cost</dt><dd>{{look.money(run.cost_micros)}}</dd><dd class="small">{{look.number(run.tokens_in)}} tokens in, {{look.number(run.tokens_out)}} out</dd></div>
  <div id="f-who"><dt>Agent</dt><dd class="words"><a href="/agents/{{run.agent}}">{{run.agent}}</a></dd><dd class="small">{{!look.link("/task-queue", run.job_id, run.job_id or "no job")}}</dd></div>
</dl>
% if run.error:
<section id="error"><h2>Why it failed</h2><pre class="error" tabindex="0">{{look.printable(run.error)}}</pre></section>
% end
% for stream, words in (("stdout", "What it said"), ("stderr", "What it said beside")):
%   if stream in output:
<section id="{{stream}}"><h2>{{words}} <span class="small">{{look.size(output[stream].bytes)}}{{", the beginning" if output[stream].next_offset else ""}}</span></h2><pre tabindex="0">{{look.printable(output[stream].text)}}</pre></section>
%   end
% end
% if told:
<section id="told"><details id="told-all"><summary>What it was told</summary><pre tabindex="0">{{look.printable(look.data(told))}}</pre></details></section>
% end
<section id="logs"><div class="head"><h2>Log</h2>
% if lines and run.status == "running":
<p class="acts"><button type="button" class="act" data-follow aria-pressed="true">Follow</button></p>
% end
</div>
% if lines is None:
<p class="calmly">Log lines belong to the machine; an editor of the host can read them.</p>
% else:
% include("log.tpl", lines=lines)
% end
</section>
</main>
