<main id="main" tabindex="-1" data-live="job" data-often="1">
<div class="head" id="head"><h1>Queues</h1></div>
% if not queues:
<p class="calmly">There is no queue yet; the first job makes one.</p>
% else:
<ul class="rows queues" data-rows id="queues">
%   for one in queues:
<li id="q-{{one.queue_name}}" data-row tabindex="0">
  {{!look.mark("paused" if one.paused else "dead" if one.counts["dead"] else "active" if one.counts["active"] else "waiting" if one.counts["waiting"] else "idle")}}
  <div class="what"><a href="/task-queue?queue_name={{one.queue_name}}">{{one.queue_name}}</a>
    {{!look.bars([(name, one.counts[name]) for name in ("active", "waiting", "delayed", "dead", "failed", "completed")], ", ".join("%s %s" % (count, name) for name, count in one.counts.items() if count) or "empty")}}
    <p class="meta">
%     for name, count in one.counts.items():
%       if count:
    <a href="/task-queue?queue_name={{one.queue_name}}&amp;status={{name}}">{{!look.mark(name)}} {{look.number(count, name in one.at_least)}}</a>
%       end
%     end
    </p></div>
  <span class="when">
%     if one.oldest_waiting_at:
  oldest {{!look.counting(one.oldest_waiting_at)}}
%     end
  </span>
  <div class="acts">
    {{!act("Retry %s dead" % look.number(one.counts["dead"], "dead" in one.at_least), "POST /api/task-queue/retry", {"queue_name": one.queue_name}, say="Running again: the dead jobs of " + one.queue_name) if one.counts["dead"] else ""}}
%     if ":" not in one.queue_name:
    {{!act("Resume", "POST /api/bull-queue/{queue}/resume", undo="POST /api/bull-queue/{queue}/pause", say="Resumed " + one.queue_name, queue=one.queue_name) if one.paused else act("Pause", "POST /api/bull-queue/{queue}/pause", undo="POST /api/bull-queue/{queue}/resume", say="Paused " + one.queue_name, queue=one.queue_name)}}
%     end
  </div>
</li>
%   end
</ul>
% end
% if queues:
<section id="depth"><h2>Unfinished jobs, last hour</h2><div class="charts">{{!look.columns(depth, "By the minute", look.number)}}</div></section>
% end
% waits = [one for one in health if one.wait_p50_seconds is not None]
% if waits:
<section id="waits"><h2>How long work waited, last 24 hours</h2>
<div class="charts">
{{!look.columns([(one.agent, one.wait_p50_seconds) for one in waits], "Half of it less than", look.span)}}
{{!look.columns([(one.agent, one.wait_p95_seconds) for one in waits], "95 of 100 less than", look.span, "warn")}}
</div></section>
% end
</main>
