<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
<title>{{title}} · Orkosi</title>
<meta name="color-scheme" content="light dark">
<meta name="theme-color" media="(prefers-color-scheme: light)" content="#faf9f6"><meta name="theme-color" media="(prefers-color-scheme: dark)" content="#161513">
<link rel="icon" href="{{assets}}/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{{assets}}/console.css">
<script type="module" src="{{assets}}/console.js"></script>
% for name in ("live", "act"):
<link rel="modulepreload" href="{{assets}}/{{name}}.js">
% end
<noscript><meta http-equiv="refresh" content="30"></noscript>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top">
  <a class="brand" href="/"><svg class="g" aria-hidden="true"><use href="#g-brand"/></svg>Orkosi</a>
  <nav aria-label="Pages">
    <a href="/"{{!' aria-current="page"' if path == "/" else ""}}>Now</a>
    <a href="/api/docs">API</a>
  </nav>
  <p class="live" role="status" data-live-sign>{{!look.glyph("dot")}}<span>as of {{!look.this_moment()}}</span></p>
  <form method="post" action="/logout"><span class="who">{{who}}</span> <button class="act">Log out</button></form>
</header>
<p class="stale" role="alert" hidden data-stale></p>
<div id="page">
{{!base}}
</div>
<div class="toasts" role="status" aria-live="polite" data-toasts></div>
% include("sprite.tpl")
</body>
</html>
