% who = agent.display_name
% if agent.wanted == "running":
{{!act("Pause", "POST /api/agents/{name}/pause", undo="POST /api/agents/{name}/resume", say="Paused " + who, name=agent.name)}}
{{!act("Stop", "POST /api/agents/{name}/stop", undo="POST /api/agents/{name}/start", say="Stopped " + who, name=agent.name)}}
% elif agent.wanted == "paused":
{{!act("Resume", "POST /api/agents/{name}/resume", undo="POST /api/agents/{name}/pause", say="Resumed " + who, name=agent.name)}}
% else:
{{!act("Start", "POST /api/agents/{name}/start", undo="POST /api/agents/{name}/stop", say="Started " + who, name=agent.name)}}
% end
