<main id="main" tabindex="-1" data-live="job" data-often="1">
<div class="head" id="head"><h1>{{title}}</h1>
% if stats:
<ul class="chips" id="states">
%   for one in ("",) + tuple(one for one in states if stats.counts[one] or one == state):
<li><a href="/task-queue?queue_name={{name}}{{"&status=" + one if one else ""}}"{{!' aria-current="true"' if state == one else ""}}>{{!look.state(one) if one else "all"}} <b>{{look.number(stats.counts[one], one in stats.at_least) if one else ""}}</b></a></li>
%   end
</ul>
% end
</div>
% if causes:
<section id="causes"><h2>By cause <span class="small">of the newest {{look.number(sum(len(one.ids) for one in causes))}}</span></h2>
<ul class="rows" data-rows>
%   for one in causes[:8]:
<li id="g-{{one.ids[0]}}" data-row tabindex="0">{{!look.mark(state)}}<div class="what"><code>{{one.line}}</code><p>{{len(one.ids)}} {{"job" if len(one.ids) == 1 else "jobs"}}</p></div><span class="when">{{!look.age(one.last)}}</span>
<div class="acts">{{!act("Retry %s" % len(one.ids), "POST /api/task-queue/retry", {"ids": one.ids}, undo="POST /api/task-queue/bury", undo_body={"ids": one.ids}, say="Running again: %s %s" % (len(one.ids), "job" if len(one.ids) == 1 else "jobs"))}}</div></li>
%   end
</ul>
%   if len(causes) > 8:
<p class="more">and {{look.number(len(causes) - 8)}} more causes</p>
%   end
</section>
% end
<section id="jobs"><h2>Jobs</h2>
% if not found.items:
<p class="calmly">{{"No job of %s is %s." % (name or "any queue", look.said(state)) if state else "This queue is empty."}}</p>
% else:
<div class="scroll" tabindex="0" role="region" aria-label="Jobs" id="joblist"><table><thead><tr>
<th scope="col"><label class="box"><input type="checkbox" data-all><span class="hear">Choose all on this page</span></label></th>
<th scope="col">State</th><th scope="col">Job</th><th scope="col" class="lesser">Type</th><th scope="col" class="num lesser">Attempts</th><th scope="col">Error, or what it waits for</th><th scope="col">Made</th></tr></thead><tbody data-rows>
%   for job in found.items:
<tr id="j{{job.id}}" data-row data-id="{{job.id}}" tabindex="0"><td><label class="box"><input type="checkbox" data-choose aria-label="Choose {{job.id}}"></label></td><td>{{!look.state(job.status)}}</td><td><a href="/task-queue/{{job.id}}">{{job.id}}</a></td><td class="lesser">{{job.task_type}}</td><td class="num lesser">{{job.attempt}} of {{job.max_attempts}}</td><td class="clip">{{look.last_line(job.error, 90) or look.first_line(job.why[0].sentence if job.why else "", 90)}}</td><td>{{!look.age(job.created_at)}}</td></tr>
%   end
</tbody></table></div>
<div class="bulk" hidden data-bulk id="bulk"><b><span data-chosen>0</span> chosen</b>
{{!act("Retry", "POST /api/task-queue/retry", bulk="ids", undo="POST /api/task-queue/bury", say="Running again")}}
{{!act("Cancel", "POST /api/task-queue/{id}/cancel", bulk="each", undo="POST /api/task-queue/{id}/retry", say="Cancelled")}}
<button type="button" class="act" data-none>Let go</button></div>
% include("pages.tpl", found=found)
% end
</section>
</main>
