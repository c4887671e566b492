% if not staff:
  <p class="calmly">There is no agent yet. The page Agents has a form; <code>python3 orkosi.py agent add felix --adapter claude-code</code> makes one, too.</p>
% else:
  <ul class="rows" data-rows>
%   for agent in staff:
    <li id="agent-{{agent.name}}" data-row tabindex="0" class="agent">
      {{!look.mark(agent.status)}}
      <div class="what"><a href="/agents/{{agent.name}}">{{agent.display_name}}</a><p>{{look.said(agent.status)}}{{" · " + agent.lease.title if agent.lease and agent.lease.title else " · " + agent.note if agent.note else ""}}</p></div>
      <span class="when">{{!look.counting(agent.lease.claimed_at) if agent.lease else look.age(agent.last_heartbeat)}}</span>
      <div class="acts">
% include("turns.tpl", agent=agent)
      </div>
    </li>
%   end
  </ul>
% end
