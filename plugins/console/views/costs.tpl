<main id="main" tabindex="-1" data-live="run budget">
<div class="head" id="head"><h1>Costs</h1></div>
% if not any(one.runs for one in days):
<p class="calmly">No run has told of a cost in the last thirty days.</p>
% else:
<div class="charts" id="pictures">
{{!look.columns([(one.key, one.cost_micros) for one in days], "Cost by day", look.money)}}
{{!look.columns([(one.key, one.runs) for one in days], "Runs by day", look.number, "good")}}
</div>
% end
% for what, words in (("agent", "By agent"), ("product", "By product"), ("model", "By model")):
%   rows = by[what]
%   if rows:
<section id="by-{{what}}"><h2>{{words}} <span class="small">30 days, {{look.money(sum(one.cost_micros for one in rows))}}</span></h2>
<div class="scroll" tabindex="0" role="region" aria-label="{{words}}"><table><thead><tr><th scope="col">{{what.capitalize()}}</th><th scope="col" class="num">Cost</th><th scope="col">Share</th><th scope="col" class="num">Tokens</th><th scope="col" class="num">Runs</th><th scope="col" class="num lesser">Wasted</th></tr></thead><tbody data-rows>
%     most = max([one.cost_micros for one in rows] + [1])
%     for one in rows:
<tr id="c-{{what}}-{{one.key or "none"}}" data-row tabindex="0"><td>{{!look.link("/agents", one.key if what == "agent" else None, one.key or "none")}}</td><td class="num">{{look.money(one.cost_micros)}}</td><td>{{!look.bars([("in_progress", one.cost_micros), ("", most - one.cost_micros)], look.money(one.cost_micros))}}</td><td class="num">{{look.number(one.tokens_in + one.tokens_out)}}</td><td class="num">{{look.number(one.runs)}}</td><td class="num lesser">{{look.number(one.wasted)}}</td></tr>
%     end
</tbody></table></div></section>
%   end
% end
<section id="budgets"><h2>Budgets</h2>
% if not budgets:
<p class="calmly">No agent has a budget. Its page has a form for one.</p>
% else:
<div class="scroll" tabindex="0" role="region" aria-label="Budgets"><table><thead><tr><th scope="col">Agent</th><th scope="col" class="num">Today</th><th scope="col" class="num">A day at most</th><th scope="col" class="num">This month</th><th scope="col" class="num">A month at most</th><th scope="col">State</th></tr></thead><tbody data-rows>
%   for one in budgets:
<tr id="b-{{one.agent}}" data-row tabindex="0"><td><a href="/agents/{{one.agent}}">{{one.agent}}</a></td><td class="num">{{look.money(one.today.cost_micros)}}</td><td class="num">{{look.money(one.cost_micros_per_day) if one.cost_micros_per_day is not None else "–"}}</td><td class="num">{{look.money(one.this_month.cost_micros)}}</td><td class="num">{{look.money(one.cost_micros_per_month) if one.cost_micros_per_month is not None else "–"}}</td><td>{{!look.state("blocked", "used up") if one.over else look.state("done", "within")}}</td></tr>
%   end
</tbody></table></div>
% end
</section>
</main>
