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
% for name in ("live", "act", "keys", "board"):
<link rel="modulepreload" href="{{assets}}/{{name}}.js">
% end
<noscript><meta http-equiv="refresh" content="30"></noscript>
</head>
<body{{!" data-streams" if streams else ""}}>
<a class="skip" href="#main">Skip to the content</a>
<header class="top">
  <a class="brand" href="/" aria-label="Orkosi, the first page"><svg class="g" aria-hidden="true"><use href="#g-brand"/></svg><span>Orkosi</span></a>
  <nav aria-label="Pages">
% at = next((link for link, *_ in pages if path == link or (link != "/" and path.startswith(link + "/"))), "/more")
% for link, word, key, shape in pages:
%   here = link == at
    <a href="{{link}}" data-key="{{key}}"{{!' aria-current="page"' if here else ""}}>{{!look.glyph(shape)}}{{word}}</a>
% end
  </nav>
  <form class="find" action="/search" role="search"><input name="q" type="search" placeholder="Search" aria-label="Search everything" autocomplete="off"><kbd aria-hidden="true">/</kbd></form>
  <p class="live" role="status" data-live-sign>{{!look.glyph("dot")}}<span>as of {{!look.this_moment()}}</span></p>
  <form class="out" method="post" action="/logout"><span class="who">{{who}}</span> <button class="act">Log out</button></form>
</header>
<p class="stale" role="alert" hidden data-stale></p>
<div id="page">
{{!base}}
</div>
<div class="toasts" role="status" aria-live="polite" data-toasts></div>
<dialog class="palette" aria-label="Search and go" data-palette>
  <input type="search" aria-label="Search, or a command" placeholder="Search, go, or do …" role="combobox" aria-expanded="true" aria-controls="found" autocomplete="off" spellcheck="false">
  <div id="found" role="listbox" aria-label="Found"></div>
</dialog>
<dialog class="help" aria-labelledby="help-title" data-help>
  <h2 id="help-title">Keys</h2>
  <dl>
% for keys, words in (("/", "search, go anywhere, do anything"), ("g n", "now; and t a r q c m: tasks, agents, runs, queues, costs, more"), ("j k", "next, previous row or card"), ("Enter", "open it"), ("x", "choose it"), ("[ ]", "move the card to the column before, after"), ("1 2 3", "press its first, second, third button"), ("u", "undo what was just done"), ("f", "follow the log, or stop following"), ("?", "this list"), ("Esc", "close, or let go of what is chosen")):
    <dt>{{!look.keys(keys)}}</dt><dd>{{words}}</dd>
% end
  </dl>
  <label class="check"><input type="checkbox" data-keys-on checked> Single keys work on this device</label>
  <form method="dialog"><button class="act">Close</button></form>
</dialog>
<dialog class="question" aria-labelledby="ask-title" data-ask>
  <h2 id="ask-title" data-ask-words></h2><pre hidden tabindex="0" data-ask-secret></pre>
  <form method="dialog" class="acts"><button class="act strong" value="yes" data-ask-yes>Yes</button> <button class="act" value="no" data-ask-no>No</button></form>
</dialog>
% include("sprite.tpl")
</body>
</html>
