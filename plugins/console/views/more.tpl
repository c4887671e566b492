<main id="main" tabindex="-1">
<div class="head" id="head"><h1>More</h1></div>
% for group in ("Work", "Company", "Server"):
%   pages_of = [one for one in there if one[0] == group]
%   if pages_of:
<section><h2>{{group}}</h2><ul class="rooms">
%     for _, where, name, says in pages_of:
<li><a href="{{where}}"><b>{{name}}</b><span>{{says}}</span></a></li>
%     end
</ul></section>
%   end
% end
<section><h2>You</h2><ul class="rooms"><li><a href="/api/docs"><b>API</b><span>Every operation, to be tried with your log-in</span></a></li></ul>
<form class="acts out-here" method="post" action="/logout"><span class="who">{{who}}</span> <button class="act">Log out</button></form></section>
</main>
