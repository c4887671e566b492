<main id="main" tabindex="-1" data-live="job" data-often="1">
<div class="head" id="head"><h1>{{job.id}}</h1><p class="acts">
% if job.status in ("dead", "failed", "cancelled"):
{{!act("Retry", "POST /api/task-queue/{id}/retry", undo="POST /api/task-queue/bury" if job.status == "dead" else "POST /api/task-queue/{id}/cancel", undo_body={"ids": [job.id]} if job.status == "dead" else None, say="Running again", id=job.id)}}
% elif job.status in ("waiting", "delayed", "active"):
{{!act("Cancel", "POST /api/task-queue/{id}/cancel", undo="POST /api/task-queue/{id}/retry", say="Cancelled", id=job.id)}}
% end
</p></div>
<p class="facts" id="facts">{{!look.state(job.status)}} <span>{{job.task_type}}</span> <span><a href="/task-queue?queue_name={{job.queue_name}}">{{job.queue_name}}</a></span> <span>attempt {{job.attempt}} of {{job.max_attempts}}</span> <span>made {{!look.age(job.created_at)}}</span>
% if job.worker_id:
 <span>{{job.worker_id}}</span>
% end
</p>
% if job.why:
<section class="whys" id="why"><h2>Why it is not running</h2><ul>
%   for one in job.why:
<li>{{one.sentence}}</li>
%   end
</ul></section>
% end
% for id, heading, value in (("error", "Error", job.error), ("result", "Result", look.data(job.result)), ("progress", "Progress", look.data(job.progress)), ("payload", "Payload", look.data(job.payload))):
%   if value:
<section id="{{id}}"><h2>{{heading}}</h2><pre class="{{id}}" tabindex="0">{{look.printable(value)}}</pre></section>
%   end
% end
</main>
