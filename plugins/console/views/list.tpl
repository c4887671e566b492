<main id="main" tabindex="-1" data-live="task">
<div class="head" id="head"><h1>{{title}}</h1><p><a class="act" href="/tasks">Board</a></p></div>
<form class="filters" action="/tasks"><input name="q" type="search" value="{{q}}" placeholder="Words" aria-label="Words of a task"><button class="act">Look</button></form>
% if not found.items:
<p class="calmly">No task is like that. <a href="/tasks">All tasks</a></p>
% else:
<div class="scroll" tabindex="0" role="region" aria-label="Tasks" id="list">
<table id="tasks"><thead><tr>
<th scope="col"><label class="box"><input type="checkbox" data-all><span class="hear">Choose all on this page</span></label></th>
<th scope="col">State</th><th scope="col">Task</th><th scope="col">Priority</th><th scope="col">Agent</th><th scope="col" class="lesser">Why it waits</th><th scope="col">Changed</th></tr></thead>
<tbody data-rows>
%   for task in found.items:
<tr id="t{{task.id}}" data-row data-id="{{task.id}}" tabindex="0"><td><label class="box"><input type="checkbox" data-choose aria-label="Choose task {{task.id}}"></label></td><td>{{!look.state(task.status)}}</td><td class="wide"><a href="/tasks/{{task.id}}">{{task.title}}</a></td><td>{{task.priority}}</td><td>{{task.assignee or "–"}}</td><td class="lesser clip">{{task.why[0].sentence if task.why else ""}}</td><td>{{!look.age(task.updated_at)}}</td></tr>
%   end
</tbody></table></div>
<div class="bulk" hidden data-bulk id="bulk"><b><span data-chosen>0</span> chosen</b>
{{!act("To do", "PATCH /api/tasks/{id}", {"status": "todo"}, bulk="each", say="To do")}}
{{!act("Done", "PATCH /api/tasks/{id}", {"status": "done"}, bulk="each", say="Done")}}
{{!act("Archive", "PATCH /api/tasks/{id}", {"status": "archived"}, bulk="each", say="Archived")}}
<button type="button" class="act" data-none>Let go</button></div>
% include("pages.tpl", found=found)
% end
</main>
