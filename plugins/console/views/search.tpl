<main id="main" tabindex="-1"><div class="head" id="head"><h1>Search</h1></div>
<form class="filters" action="/search"><input class="broad" name="q" type="search" value="{{q}}" aria-label="Search" autofocus><button class="act">Search</button></form>
% for kind, items in hits:
<section><h2>{{kind.capitalize()}}</h2><ul class="rows" data-rows>
%   for link, word, detail in items:
<li data-row tabindex="0">{{!look.glyph("dot")}}<div class="what"><a href="{{link or "/"}}">{{word}}</a><p>{{detail}}</p></div><span class="when"></span><div class="acts"></div></li>
%   end
</ul></section>
% end
% if not hits:
<p class="calmly">{{"Nothing is called like that." if q else "Type a word, or a task's number."}}</p>
% end
</main>
