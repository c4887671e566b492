<main id="main" tabindex="-1">
<div class="head" id="head"><h1>{{task.title}}</h1><p class="acts">
% if task.status in ("blocked", "review"):
{{!act("Try again" if task.status == "blocked" else "Back to do", "PATCH /api/tasks/{id}", {"status": "todo"}, undo="PATCH /api/tasks/{id}", undo_body={"status": task.status}, say="To do again", id=task.id)}}
% end
% if task.status not in ("done", "archived"):
{{!act("Done", "PATCH /api/tasks/{id}", {"status": "done"}, undo="PATCH /api/tasks/{id}", undo_body={"status": "todo" if task.status == "in_progress" else task.status}, say="Done", id=task.id)}}
{{!act("Archive", "PATCH /api/tasks/{id}", {"status": "archived"}, undo="PATCH /api/tasks/{id}", undo_body={"status": "todo" if task.status == "in_progress" else task.status}, say="Archived", id=task.id)}}
% else:
{{!act("To do again", "PATCH /api/tasks/{id}", {"status": "todo"}, undo="PATCH /api/tasks/{id}", undo_body={"status": task.status}, say="To do again", id=task.id)}}
% end
</p></div>
<p class="facts" id="facts">{{!look.state(task.status)}} <span>{{task.priority}}</span> <span>{{task.assignee or "nobody's"}}</span>
% if task.product:
 <span>{{task.product}}</span>
% end
 <span>task {{task.id}}</span> <span>{{"finished" if task.finished_at else "changed"}} {{!look.age(task.finished_at or task.updated_at)}}</span></p>
% if why:
<section class="whys" id="why"><h2>Why it is not running</h2><ul>
%   for one in why:
<li>{{one.sentence}}</li>
%   end
</ul></section>
% end
% for id, heading, text, kind in (("error", "Last error", task.last_error, "error"), ("result", "What came of it", task.resolution, "prose"), ("about", "What was asked for", task.description, "prose")):
%   if text:
<section id="{{id}}"><h2>{{heading}}</h2><pre class="{{kind}}" tabindex="0">{{text}}</pre></section>
%   end
% end
<section id="runs"><h2>Runs</h2>
% if not runs:
<p class="calmly">Nobody has worked on it yet.</p>
% else:
<div class="scroll" tabindex="0" role="region" aria-label="Runs"><table><thead><tr><th scope="col">State</th><th scope="col">Run</th><th scope="col">Agent</th><th scope="col">Began</th><th scope="col">Took</th><th scope="col">Tokens</th><th scope="col">Cost</th></tr></thead><tbody>
%   for run in runs:
<tr id="run-{{run.id}}"><td>{{!look.state(run.status)}}</td><td>{{run.id}}</td><td>{{run.agent}}</td><td>{{!look.age(run.started_at)}}</td><td>{{!look.counting(run.started_at) if run.status == "running" else look.took(run.duration_ms)}}</td><td>{{look.number(run.tokens_in + run.tokens_out)}}</td><td>{{look.money(run.cost_micros)}}</td></tr>
%   end
</tbody></table></div>
% end
</section>
</main>
