<main id="main" class="now" tabindex="-1">
<h1 class="hear">Now</h1>
<section class="flow" id="flow" aria-labelledby="flow-title">
  <h2 id="flow-title">Tasks</h2>
% shares = [(name, counts[name]) for name in ("in_progress", "todo", "review", "blocked")]
  {{!look.bars(shares, ", ".join("%s %s" % (count, look.said(name)) for name, count in shares))}}
  <ul class="chips">
% for name in order:
    <li><a href="#is-{{name}}">{{!look.state(name)}} <b>{{look.number(counts[name], counts[name] == 10000)}}</b></a></li>
% end
  </ul>
% if not any(counts.values()):
  <p class="calmly">There is no task yet. <code>python3 orkosi.py task add "Count the gulls" --assignee felix</code> gives the first.</p>
% end
% for name in order:
%   listed = finished if name == "done" else tasks[name].items
%   if listed:
  <section id="is-{{name}}" aria-labelledby="is-{{name}}-title">
  <h3 id="is-{{name}}-title">{{look.said(name).capitalize()}}{{", last" if name == "done" else ""}}</h3>
  <ul class="rows thin">
%     for task in listed:
    <li id="task-{{task.id}}">{{!look.mark(name)}}<div class="what"><a href="/tasks/{{task.id}}">{{task.title}}</a>
%       if name == "done":
      <p>{{" · ".join(filter(None, (task.assignee, look.first_line(task.resolution, 110))))}}</p></div><span class="when">{{!look.age(task.finished_at)}}</span>
%       else:
      <p>{{" · ".join(filter(None, (task.assignee, task.priority, look.last_line(task.last_error) if name == "blocked" and task.last_error else task.why[0].sentence if task.why else "")))}}</p></div><span class="when">{{!look.age(task.updated_at)}}</span>
%       end
      <div class="acts">
%       if name == "review":
        {{!act("Done", "PATCH /api/tasks/{id}", {"status": "done"}, undo="PATCH /api/tasks/{id}", undo_body={"status": "review"}, say="Done: " + task.title, id=task.id)}}
        {{!act("Back to do", "PATCH /api/tasks/{id}", {"status": "todo"}, undo="PATCH /api/tasks/{id}", undo_body={"status": "review"}, say="To do again: " + task.title, id=task.id)}}
%       elif name == "blocked":
        {{!act("Try again", "PATCH /api/tasks/{id}", {"status": "todo"}, undo="PATCH /api/tasks/{id}", undo_body={"status": "blocked"}, say="Trying again: " + task.title, id=task.id)}}
%       end
      </div></li>
%     end
  </ul>
%     if name != "done" and counts[name] > len(listed):
  <p class="more">and {{look.number(counts[name] - len(listed), counts[name] == 10000)}} more</p>
%     end
  </section>
%   end
% end
</section>

<div class="side" id="side">
% if staff is not None:
<section class="staff" id="staff" aria-labelledby="staff-title">
  <h2 id="staff-title">Agents</h2>
%   if not staff:
  <p class="calmly">There is no agent yet. <code>python3 orkosi.py agent add felix --adapter claude-code</code> makes the first.</p>
%   else:
  <ul class="rows">
%     for agent in staff:
    <li id="agent-{{agent.name}}">
      {{!look.mark(agent.status)}}
      <div class="what"><b>{{agent.display_name}}</b><p>{{look.said(agent.status)}}{{" · " + agent.lease.title if agent.lease and agent.lease.title else " · " + agent.note if agent.note else ""}}</p></div>
      <span class="when">{{!look.counting(agent.lease.claimed_at) if agent.lease else look.age(agent.last_heartbeat)}}</span>
      <div class="acts">
%       who = agent.display_name
%       if agent.wanted == "running":
        {{!act("Pause", "POST /api/agents/{name}/pause", undo="POST /api/agents/{name}/resume", say="Paused " + who, name=agent.name)}}
        {{!act("Stop", "POST /api/agents/{name}/stop", undo="POST /api/agents/{name}/start", say="Stopped " + who, name=agent.name)}}
%       elif agent.wanted == "paused":
        {{!act("Resume", "POST /api/agents/{name}/resume", undo="POST /api/agents/{name}/pause", say="Resumed " + who, name=agent.name)}}
%       else:
        {{!act("Start", "POST /api/agents/{name}/start", undo="POST /api/agents/{name}/stop", say="Started " + who, name=agent.name)}}
%       end
      </div>
    </li>
%     end
  </ul>
%   end
</section>
% end
% if lines is not None:
<section id="log" aria-labelledby="log-title">
  <h2 id="log-title">Log</h2>
%   if not lines:
  <p class="calmly">Nobody has written anything yet.</p>
%   else:
  <ol class="log" tabindex="0" aria-labelledby="log-title" data-log>
%     for line in lines:
    <li id="line-{{line.id}}" class="{{line.level}}">{{!look.clock(line.created_at)}}<span><b>{{line.agent or "server"}}</b> {{look.first_line(line.message, 300)}}</span></li>
%     end
  </ol>
%   end
</section>
% end
</div>
</main>
