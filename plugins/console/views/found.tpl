% for kind, items in hits:
<p class="group" role="presentation">{{kind.capitalize()}}</p>
%   for link, word, detail in items:
<a role="option" href="{{link or "/"}}"><span>{{word}}</span><small>{{detail}}</small></a>
%   end
% end
