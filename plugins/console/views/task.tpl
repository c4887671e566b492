<main id="main" tabindex="-1" data-live="task run">
<div class="head" id="head"><h1>{{task.title}}</h1><p class="acts">
% if task.status == "review":
{{!act("Approve", "POST /api/tasks/{id}/approve", undo="PATCH /api/tasks/{id}", undo_body={"status": "review"}, say="Approved", tone="strong", id=task.id)}}
% end
% if task.status in ("blocked", "review"):
{{!act("Try again" if task.status == "blocked" else "Back to do", "PATCH /api/tasks/{id}", {"status": "todo"}, undo="PATCH /api/tasks/{id}", undo_body={"status": task.status}, say="To do again", id=task.id)}}
% end
% if task.status not in ("done", "archived"):
%   back = "todo" if task.status == "in_progress" else task.status
{{!act("Done", "PATCH /api/tasks/{id}", {"status": "done"}, undo="PATCH /api/tasks/{id}", undo_body={"status": back}, say="Done", id=task.id)}}
{{!act("Archive", "PATCH /api/tasks/{id}", {"status": "archived"}, undo="PATCH /api/tasks/{id}", undo_body={"status": back}, say="Archived", id=task.id)}}
% else:
{{!act("To do again", "PATCH /api/tasks/{id}", {"status": "todo"}, undo="PATCH /api/tasks/{id}", undo_body={"status": task.status}, say="To do again", id=task.id)}}
% end
</p></div>
<p class="facts" id="facts">{{!look.state(task.status)}} <span>{{task.priority}}</span> <span>{{!look.link("/agents", task.assignee, task.assignee or "nobody's")}}</span>
% if task.product:
 <span>{{task.product}}</span>
% end
 <span>task {{task.id}}</span> <span>{{"finished" if task.finished_at else "changed"}} {{!look.age(task.finished_at or task.updated_at)}}</span>
% if task.job_id:
 <span><a href="/task-queue/{{task.job_id}}">{{task.job_id}}</a></span>
% end
</p>
% if why:
<section class="whys" id="why"><h2>Why it is not running</h2><ul>
%   for one in why:
<li>{{one.sentence}}</li>
%   end
</ul></section>
% end
% asks = task.status == "review" and task.reason == "question"
% for id, heading, text, kind in (("error", "It asks" if asks else "Last error", task.last_error, "prose" if asks else "error"), ("result", "What came of it", task.resolution, "prose"), ("about", "What was asked for", task.description, "prose"), ("note", "A note for the next time", task.note, "prose")):
%   if text:
<section id="{{id}}"><h2>{{heading}}</h2><pre class="{{kind}}" tabindex="0">{{text[:65536]}}</pre></section>
%   end
% end
% if task.data:
<section id="data"><h2>What came from {{task.data.source}}</h2>
%   for one in task.data.warnings:
<p class="calmly">{{one}}</p>
%   end
<pre class="prose" tabindex="0">{{task.data.body[:65536]}}</pre></section>
% end
% if review and review.changes:
<section id="changes"><h2>What changed in the workspace</h2>
%   for at, change in enumerate(review.changes):
<details id="change-{{at}}"><summary>{{change.path}}</summary><pre tabindex="0">{{change.diff or "not text"}}</pre></details>
%   end
</section>
% end
<div class="heads" id="heads">{{!act.form("Answer" if asks else "Send it back", "POST /api/tasks/{id}/reject", forms.a_word(asks), title="Answer it" if asks else "Send it back with a word", say="Sent back", id=task.id) if task.status == "review" else ""}}
{{!act.form("Save", "PATCH /api/tasks/{id}", forms.task_changes(task), title="Change it", say="Changed", id=task.id)}}</div>
% if task.subtasks:
<section id="parts"><h2>Parts</h2><ul class="rows thin" data-rows>
%   for one in task.subtasks:
<li id="p{{one.id}}" data-row tabindex="0">{{!look.mark(one.status)}}<div class="what"><a href="/tasks/{{one.id}}">{{one.title}}</a><p>{{one.assignee or "nobody"}}</p></div><span class="when"></span><div class="acts"></div></li>
%   end
</ul></section>
% end
<section id="runs"><h2>Runs</h2>
% if not runs:
<p class="calmly">Nobody has worked on it yet.</p>
% else:
% include("runrows.tpl", runs=runs)
% end
</section>
</main>
