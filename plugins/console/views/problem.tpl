<main id="main" tabindex="-1">
<div class="head" id="head"><h1>{{title}}</h1></div><p>{{message}}</p><p class="acts"><a class="act" href="/">Back to the first page</a> <a class="act" href="{{path}}">Try again</a></p>
</main>
