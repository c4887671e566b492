<main id="main" tabindex="-1" data-live="plan topup purchase tokens">
<div class="head" id="head"><div><h1>Billing</h1><p class="small">{{summary.name}}{{", given by an administrator" if plan and plan.granted_by else ""}}{{", " + look.money(summary.price_cents * 10000) + " a month" if summary.price_cents and not (plan and plan.granted_by) else ""}}{{"; nothing is limited" if not summary.limited else ""}}</p></div><p class="acts">
{{!act("Cards and invoices", "POST /api/billing/portal", to="{url}", say="To Stripe's portal") if plan and not plan.granted_by else ""}}</p></div>
% if plan and plan.pending_tier:
<p class="calmly" id="pending">From {{plan.current_period_end[:10] if plan.current_period_end else "then"}} on, the plan is {{plan.pending_tier}}.</p>
% end
<section id="limits"><h2>What is used</h2><dl class="tiles">
% for name, words, show in (("agents", "Agents", look.number), ("tasks_per_month", "Tasks this month", look.number), ("api_keys", "API keys", look.number), ("storage_bytes", "Storage", look.size)):
%   one = getattr(summary.limits, name)
  <div id="l-{{name}}"><dt>{{words}}</dt><dd>{{show(one.used)}}</dd><dd class="small">{{"of %s, %g %%" % (show(one.limit), one.percent) if one.limit is not None else "no limit"}}</dd></div>
% end
</dl></section>
% if usage:
<section id="usage"><h2>By day, this month</h2><div class="charts">
{{!look.columns([(one.date, one.tasks) for one in usage.by_day], "Tasks", look.number)}}
{{!look.columns([(one.date, one.cost_micros) for one in usage.by_day], "Cost of models", look.money, "good")}}
</div><p><a class="act" href="/api/billing/usage?format=csv">As a table for a spreadsheet</a></p></section>
% end
% if pricing:
<section id="tiers"><h2>Plans</h2><ul class="rows" data-rows>
%   for one in pricing.tiers:
<li id="tier-{{one.tier}}" data-row tabindex="0">{{!look.mark("done" if one.tier == summary.tier else "todo")}}<div class="what"><b>{{one.name}}</b><p>{{", ".join(one.features)}}</p></div><span class="when">{{look.money(one.price_cents * 10000) if one.price_cents else "free"}}</span><div class="acts">{{!act("Change to it", "POST /api/billing/change-plan", {"tier": one.tier}, to="{url}", say="Changed to " + one.name, sure="Change to %s? Up is at once, for the rest of the month's price; down when what is paid for is over." % one.name) if one.tier != summary.tier else ""}}</div></li>
%   end
</ul></section>
% end
% if topup:
<section id="topup"><h2>Tokens</h2><p>{{look.number(topup.balance_tokens)}} are left.{{" More are bought by themselves below %s." % look.number(topup.threshold_tokens) if topup.enabled else ""}}{{" " + topup.last_error if topup.last_error else ""}}</p></section>
% end
% if overview:
<section id="overview"><h2>This server</h2><dl class="tiles"><div><dt>Comes in a month</dt><dd>{{look.money(overview.mrr_cents * 10000)}}</dd><dd class="small">{{overview.subscribers}} subscribers</dd></div><div><dt>Models, 30 days</dt><dd>{{look.money(overview.ai_cost_micros_30d)}}</dd><dd class="small">{{look.money(overview.infrastructure_cents * 10000)}} for the rest</dd></div><div><dt>What is left</dt><dd>{{look.money(overview.net_cents * 10000)}}</dd></div></dl></section>
% end
</main>
