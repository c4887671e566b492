<main id="main" class="now" tabindex="-1" data-live="*">
<h1 class="hear">Now</h1>
% if needs is not None:
<section class="needs" id="needs" aria-labelledby="needs-title">
  <h2 id="needs-title">Needs you{{!look.count(len(needs), "needs-count")}}</h2>
%   if first:
  <ol class="steps" id="first">
%     for words, where in first:
    <li><a class="act" href="{{where}}">{{words}}</a></li>
%     end
  </ol>
%   end
%   if not needs:
  <p class="calmly">{{!look.glyph("check")}} Nothing waits for you. {{"The company works by itself." if counts["in_progress"] or counts["todo"] else "Nothing is to do, either: give somebody a task."}}</p>
%   else:
  <ul class="rows" data-rows>
%     for need in needs:
    <li class="need" id="need-{{need.key}}" data-row tabindex="0">
      {{!look.mark(need.state)}}
      <div class="what"><a href="{{need.link}}">{{need.title}}</a>
%       if need.detail:
        <p>{{look.first_line(need.detail, 200)}}</p>
%       end
      </div>
      <span class="when">{{!look.age(need.since) if need.since else ""}}</span>
      <div class="acts">
%       for step in need.steps:
        {{!act(step.label + (" all %s" % need.count if need.count > 1 and need.ids else ""), step.operation, step.body, undo=step.undo or "", undo_body=step.undo_body, ids=need.ids if "{" in step.operation else (), say="%s: %s" % (step.label, need.title))}}
%       end
      </div>
    </li>
%     end
  </ul>
%   end
%   if counts["review"] > 12:
  <p class="more"><a href="/tasks?status=review">all {{look.number(counts["review"])}} that wait for a look</a></p>
%   end
%   if still:
  <details id="still"><summary>{{len(still)}} {{"thing stands" if len(still) == 1 else "things stand"}} still, as you wanted</summary>
  <ul class="rows thin" data-rows>
%     for need in still:
    <li id="need-{{need.key}}" data-row tabindex="0">{{!look.mark(need.state)}}<div class="what"><a href="{{need.link}}">{{need.title}}</a><p>{{need.detail}}</p></div><span class="when">{{!look.age(need.since)}}</span>
    <div class="acts">
%       for step in need.steps:
      {{!act(step.label, step.operation, step.body, undo=step.undo or "", undo_body=step.undo_body, ids=need.ids, say="%s: %s" % (step.label, need.title))}}
%       end
    </div></li>
%     end
  </ul></details>
%   end
</section>

<section class="work" id="work" aria-labelledby="work-title">
  <h2 id="work-title">Working now{{!look.count(len(running), "work-count")}}</h2>
%   if not running:
  <p class="calmly">Nobody works at this moment.</p>
%   else:
  <ul class="rows" data-rows>
%     for one in running:
    <li id="run-{{one.id}}" data-row tabindex="0">{{!look.mark("running")}}<div class="what"><a href="/agent-runs/{{one.id}}">{{one.title or "run %s" % one.id}}</a><p>{{one.agent}}</p></div><span class="when big">{{!look.counting(one.started_at)}}</span><div class="acts"></div></li>
%     end
  </ul>
%   end
</section>

<div class="side" id="side">
<section id="sums" aria-label="Today">
  <dl class="tiles">
    <div id="tile-cost"><dt><a href="/costs">Cost today</a></dt><dd>{{look.money(spent.cost_micros)}}</dd><dd class="small">{{", ".join("%s %s" % (name, look.money(micros)) for name, micros in spent.by) or "no run has told of a cost"}}</dd></div>
    <div id="tile-done"><dt><a href="/tasks?status=done">Done today</a></dt><dd>{{look.number(done, done == 10000)}}</dd><dd class="small">{{look.number(spent.runs)}} runs, {{look.number(sum(one.idle_skips for one in staff))}} idle ones saved ever</dd></div>
    <div id="tile-depth"><dt><a href="/task-queue">Unfinished jobs, last hour</a></dt><dd>{{look.number(depth[-1])}}</dd><dd>{{!look.spark(depth, "Unfinished jobs over the last hour: %s at first, %s at most, %s now" % (depth[0], max(depth), depth[-1]))}}</dd></div>
  </dl>
</section>
<section class="staff" id="staff" aria-labelledby="staff-title">
  <h2 id="staff-title">Agents</h2>
% include("staff.tpl", staff=staff)
</section>
</div>
% end

<section class="flow" id="flow" aria-labelledby="flow-title">
  <h2 id="flow-title">Tasks</h2>
% shares = [(name, counts[name]) for name in ("in_progress", "todo", "review", "blocked")]
  {{!look.bars(shares, ", ".join("%s %s" % (count, look.said(name)) for name, count in shares))}}
  <ul class="chips">
% for name in ("in_progress", "todo", "review", "blocked", "done"):
    <li><a href="/tasks?status={{name}}">{{!look.state(name)}} <b>{{look.number(counts[name])}}</b></a></li>
% end
  </ul>
  <h3>Finished last</h3>
% if not finished:
  <p class="calmly">{{"Nothing is finished yet." if any(counts.values()) else "There is no task yet."}}</p>
% else:
  <ul class="rows thin" data-rows>
%   for task in finished:
    <li id="done-{{task.id}}" data-row tabindex="0">{{!look.mark("done")}}<div class="what"><a href="/tasks/{{task.id}}">{{task.title}}</a><p>{{" · ".join(filter(None, (task.assignee, look.first_line(task.resolution, 110))))}}</p></div><span class="when">{{!look.age(task.finished_at)}}</span><div class="acts"></div></li>
%   end
  </ul>
% end
</section>
</main>
