% include("outside.tpl", title="Set up", assets=assets)
<h1>Set up Orkosi</h1>
<p>Make the first administrator. The link you followed is good once.</p>
<form method="post">
<label>Name <input name="username" autocomplete="name" required maxlength="60" value="{{username}}" autofocus></label>
<label>E-mail <input name="email" type="email" autocomplete="username" required value="{{email}}"></label>
<label>Password, 8 characters or more; 15 are good <input name="password" type="password" autocomplete="new-password" required minlength="8" maxlength="128"></label>
% if said:
<p class="bad" role="alert">{{said}}</p>
% end
<button class="act strong">Make the administrator</button></form>
</main></body></html>
