<main id="main" tabindex="-1" data-live="file">
<div class="head" id="head"><h1>{{file.name}}</h1></div>
<p class="facts" id="facts"><span>{{file.path}}</span> <span>{{!look.size(file.size)}}</span>
% if file.workspace:
 <span><a href="/agents/{{file.workspace}}">{{file.workspace}}</a></span>
% end
 <span>changed {{!look.age(file.modified_at)}}</span></p>
% if file.content is None:
<p class="calmly">It is no text, or too long to be kept.</p>
% else:
<section id="content"><h2>Content</h2><pre class="result" tabindex="0">{{look.printable(file.content)}}</pre></section>
% end
</main>
