% if not lines:
<p class="calmly" id="nolog">Nothing was written.</p>
% else:
<ol class="log" id="log" tabindex="0" aria-label="Log" data-log>
%   for line in lines:
{{!look.log_line(line)}}
%   end
</ol>
% end
