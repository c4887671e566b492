<main id="main" tabindex="-1" data-live="*">
<div class="head" id="head"><h1>Health</h1></div>
<section id="server"><h2>The server</h2><ul class="rows" data-rows>
% for name, one in looked.items():
<li id="s-{{name}}" data-row tabindex="0">{{!look.mark({"ok": "done", "warn": "warning", "fail": "error", "off": "idle"}[one.word])}}<div class="what"><b>{{name.replace("_", " ")}}</b><p>{{one.detail}}</p></div><span class="when">{{one.word}}</span><div class="acts"></div></li>
% end
% for name, one in sorted(checks.items()):
%   if "." not in name and name not in looked:
<li id="k-{{name}}" data-row tabindex="0">{{!look.mark("done" if one.ok else "error")}}<div class="what"><b>{{name}}</b><p>{{one.detail}}</p></div><span class="when">{{"ok" if one.ok else "fail"}}</span><div class="acts"></div></li>
%   end
% end
</ul></section>
% for name, section in company.sections.items():
<section id="c-{{name}}"><h2>{{name.capitalize()}} <span class="small">{{"%g" % section.score}} of 100</span></h2><ul class="rows" data-rows>
%   for point in section.checks:
<li id="p-{{name}}-{{point.code}}" data-row tabindex="0">{{!look.mark("done" if point.ok else "error")}}<div class="what"><b>{{point.code.replace("_", " ")}}</b><p>{{point.message}}{{" " + point.fix if not point.ok and point.fix else ""}}</p></div><span class="when">{{"ok" if point.ok else ""}}</span><div class="acts"></div></li>
%   end
</ul></section>
% end
</main>
