<main id="main" tabindex="-1" class="wide" data-live="task run">
<div class="head" id="head"><h1>Tasks</h1>
  <form class="filters" action="/tasks" id="filters">
% for name, label, none, options, chosen in (("assignee", "Agent", "everybody", names, assignee), ("product", "Product", "all", products, product)):
    <label>{{label}} <select name="{{name}}" data-go><option value="">{{none}}</option>
%   for option in options:
      <option{{!" selected" if option == chosen else ""}}>{{option}}</option>
%   end
    </select></label>
% end
    <noscript><button class="act">Show</button></noscript>
  </form>
</div>
{{!act.form("Give it", "POST /api/tasks", forms.a_task(names, products), title="Give a task", say="Given")}}
<div class="board" id="board" tabindex="0" role="region" aria-label="Board">
% for status in columns:
  <section class="column" id="col-{{status}}" data-column="{{status}}" aria-labelledby="h-{{status}}">
    <h2 id="h-{{status}}"><a href="/tasks?status={{status}}{{narrowed}}">{{!look.state(status, look.WORDS[status])}}</a><span class="count" id="n-{{status}}">{{look.number(counts[status])}}</span></h2>
    <ul data-rows>
%   for card in cards[status]:
      <li class="card" id="t{{card.id}}" data-row data-card="{{card.id}}" data-status="{{status}}" data-moves="{{" ".join(moves.get(status, ())) if may_move else ""}}" tabindex="0"{{!' draggable="true"' if may_move else ""}}>
        <a href="/tasks/{{card.id}}" draggable="false">{{card.title}}</a>
        <p class="meta"><span class="prio {{card.priority}}">{{card.priority}}</span><span class="who">{{card.assignee or "nobody"}}</span>
%     if card.waits:
          <span>{{!look.glyph("clock")}}waits for {{card.waits}}</span>
%     end
          <span class="when">{{!look.age(card.at)}}</span></p>
%     if status == "blocked" and card.last_error:
        <p class="why">{{look.last_line(card.last_error, 120)}}</p>
%     end
      </li>
%   end
    </ul>
%   if counts[status] > len(cards[status]):
    <p class="more"><a href="/tasks?status={{status}}{{narrowed}}">all {{look.number(counts[status])}}</a></p>
%   elif not cards[status]:
    <p class="none">none</p>
%   end
  </section>
% end
</div>
</main>
