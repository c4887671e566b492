<main id="main" tabindex="-1">
<div class="head"><h1>{{title}}</h1></div><p>{{message}}</p><p><a href="/">Back to the first page</a></p>
</main>
