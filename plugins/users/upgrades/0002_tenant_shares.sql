-- What every tenant has so far; from now on, triggers keep it.
CREATE TABLE tenant_shares (                    -- what a tenant has of this server; triggers of the tables keep it, each beside its own
  tenant_id INTEGER PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
  jobs INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0              -- of the texts that can be long, and 200 for each row
) STRICT;
INSERT INTO tenant_shares (tenant_id, jobs, bytes)
SELECT id, (SELECT count(*) FROM jobs WHERE tenant_id = tenants.id),
       ifnull((SELECT sum(200 + octet_length(jobs.payload) + ifnull(octet_length(jobs.result), 0)) FROM jobs WHERE tenant_id = tenants.id), 0) +
       ifnull((SELECT sum(200 + octet_length(tasks.description) + ifnull(octet_length(tasks.resolution), 0)) FROM tasks WHERE tenant_id = tenants.id), 0) +
       ifnull((SELECT sum(200 + ifnull(octet_length(files.content), 0)) FROM files WHERE tenant_id = tenants.id), 0) +
       ifnull((SELECT sum(200 + ifnull(octet_length(activity.metadata), 0)) FROM activity WHERE tenant_id = tenants.id), 0) +
       ifnull((SELECT sum(200 + octet_length(notifications.message)) FROM notifications WHERE tenant_id = tenants.id), 0) +
       ifnull((SELECT sum(200 + octet_length(agent_templates.identity) + octet_length(agent_templates.config)) FROM agent_templates WHERE tenant_id = tenants.id), 0)
  FROM tenants;
