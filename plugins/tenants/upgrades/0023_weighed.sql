-- Schedules and answers that are kept for an Idempotency-Key count, too; from now on, triggers keep them.
-- The tables are made here for a folder that is older than they are, so that it can be asked in the same words.
CREATE TABLE IF NOT EXISTS schedules (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  queue TEXT NOT NULL,
  name TEXT NOT NULL,
  cron TEXT,
  every_ms INTEGER CHECK (every_ms > 0),
  tz TEXT NOT NULL,
  payload TEXT NOT NULL DEFAULT '{}',
  priority INTEGER NOT NULL DEFAULT 0,
  max_attempts INTEGER NOT NULL DEFAULT 1,
  backoff_kind TEXT NOT NULL DEFAULT 'fixed' CHECK (backoff_kind IN ('exponential', 'fixed')),
  backoff_ms INTEGER NOT NULL DEFAULT 0,
  catch_up TEXT NOT NULL DEFAULT 'skip' CHECK (catch_up IN ('skip', 'once')),
  overlap TEXT NOT NULL DEFAULT 'skip' CHECK (overlap IN ('skip', 'queue')),
  enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  starts_at TEXT NOT NULL,
  slot TEXT,
  job_id INTEGER,
  runs INTEGER NOT NULL DEFAULT 0,
  missed INTEGER NOT NULL DEFAULT 0,
  last_run_at TEXT,
  task_type TEXT,
  task_id INTEGER,
  filed_slot TEXT,
  last_error TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  CHECK ((cron IS NULL) <> (every_ms IS NULL)),
  UNIQUE (tenant_id, queue, name)
) STRICT;
CREATE TABLE IF NOT EXISTS public_answers (
  tenant_id INTEGER NOT NULL,
  principal TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint BLOB NOT NULL,
  status INTEGER NOT NULL,
  body TEXT NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, principal, key)
) STRICT, WITHOUT ROWID;
UPDATE tenant_shares SET bytes = bytes
  + ifnull((SELECT sum(200 + octet_length(payload)) FROM schedules WHERE schedules.tenant_id = tenant_shares.tenant_id), 0)
  + ifnull((SELECT sum(200 + octet_length(body)) FROM public_answers WHERE public_answers.tenant_id = tenant_shares.tenant_id), 0);
