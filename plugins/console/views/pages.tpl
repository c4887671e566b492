<nav class="pages" id="pages" aria-label="Pages of the list"><span>{{look.number(found.offset + 1)}}–{{look.number(found.offset + len(found.items))}} of {{look.number(found.total, found.exceeded)}}</span>
% if found.offset:
<a class="act" rel="prev" href="?{{!look.turned(query, found.offset - found.limit)}}">Newer</a>
% end
% if found.exceeded or found.offset + len(found.items) < found.total:
<a class="act" rel="next" href="?{{!look.turned(query, found.offset + found.limit)}}">Older</a>
% end
</nav>
