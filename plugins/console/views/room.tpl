<main id="main" tabindex="-1" data-live="{{room.live}}">
<div class="head" id="head"><div><h1>{{room.title}}</h1><p class="small">{{room.says}}</p><p class="small">{{!note}}</p></div>
% if room.chips:
%   name, values = room.chips
<ul class="chips">
%   for value in ("", *values):
<li><a href="{{room.path}}{{"?%s=%s" % (name, value) if value else ""}}"{{!' aria-current="true"' if given.get(name, "") == value else ""}}>{{!look.state(value) if value else "all"}}</a></li>
%   end
</ul>
% end
</div>
% if room.search:
<form class="filters" action="{{room.path}}"><input name="{{room.search}}" type="search" value="{{given.get(room.search, "")}}" placeholder="Words" aria-label="Words"><button class="act">Look</button></form>
% end
<div class="heads" id="heads">{{!room.head(act)}}</div>
% if not found.items:
<p class="calmly">{{room.empty or "There is nothing."}}</p>
% else:
<div class="scroll" tabindex="0" role="region" aria-label="{{room.title}}" id="list"><table class="stack"><thead><tr>
%   for column in room.columns:
<th scope="col" class="{{column[2] if len(column) > 2 else ""}}">{{column[0]}}</th>
%   end
<th scope="col"><span class="hear">What may be done</span></th></tr></thead><tbody data-rows>
%   for one in found.items:
<tr id="row-{{room.key(one)}}" data-row tabindex="0">
%     for column in room.columns:
<td class="{{column[2] if len(column) > 2 else ""}}" data-label="{{column[0]}}">{{!column[1](one)}}</td>
%     end
<td><div class="acts">{{!room.acts(one, act)}}</div></td></tr>
%   end
</tbody></table></div>
%   if len(found.items) < found.total or found.offset:
% include("pages.tpl", found=found)
%   end
% end
</main>
