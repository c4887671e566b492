-- What is done so far is kept as it is now; from here on, each completion is written down when it happens.
DROP VIEW IF EXISTS changelog;
CREATE TABLE changelog (                        -- what was completed, as it was then, whatever became of the task
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  guid TEXT NOT NULL,                           -- how feed readers know it again
  task_id INTEGER,                              -- null: no task, as when a product goes live
  title TEXT NOT NULL,
  summary TEXT,
  type TEXT NOT NULL,
  product TEXT,
  agent TEXT,                                   -- who was to do it
  priority TEXT NOT NULL,
  completed_at TEXT NOT NULL
) STRICT;
INSERT INTO changelog (id, tenant_id, guid, task_id, title, summary, type, product, agent, priority, completed_at)
SELECT id, tenant_id, 'orkosi-task-' || id, id, title, resolution, type, product_slug, assignee, priority, ifnull(finished_at, updated_at)
  FROM tasks WHERE status = 'done' ORDER BY id;
UPDATE tenant_shares SET bytes = bytes + ifnull((SELECT sum(200 + ifnull(octet_length(summary), 0)) FROM changelog
                                                  WHERE changelog.tenant_id = tenant_shares.tenant_id), 0);
