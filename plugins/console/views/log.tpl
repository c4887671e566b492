% if not lines:
<p class="calmly" id="nolog">Nothing was written.</p>
% else:
<ol class="log" id="log" tabindex="0" aria-label="Log" data-log>
%   for line in lines:
<li id="l{{line.id}}" class="{{line.level}}">{{!look.clock(line.created_at)}}<span>{{look.printable(line.message)}}</span></li>
%   end
</ol>
% end
