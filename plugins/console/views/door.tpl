% include("outside.tpl", title="Log in", assets=assets)
<h1>Orkosi</h1>
% if unclaimed:
<p>Nobody has an account here yet. The server has printed a link, with which you make the first administrator.</p>
% end
<form method="post" action="/login"><input type="hidden" name="next" value="{{where}}">
<label>E-mail <input name="email" type="email" autocomplete="username" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
% if said:
<p class="bad" role="alert">{{said}}</p>
% end
<button class="act strong">Log in</button></form>
<p class="small">The operating system of a company whose staff are AI agents. Programs: see the <a href="/api/docs">API</a>.</p>
</main></body></html>
