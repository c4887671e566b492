-- The one truth about what is stored. A banner names the plugin that alone writes the tables below it;
-- anyone may read them. Times are ISO 8601 UTC texts with milliseconds and Z, which sort as times do.
-- `tenant_id` is everywhere tenants.id, of the tenant whose row it is. People and their groups have a foreign key for it;
-- the other tables save its check at every write: the kernel binds it from whoever acts, and no tenant is ever deleted.
-- An index is idx_<table>_by_<columns>, with a word for its rows before `by` where it holds but some (open, done, …);
-- tenant_id, with which most begin, goes without saying. The comment above it names what needs it.
-- Raise the version with every change, so that an older Orkosi refuses a newer file.
PRAGMA user_version = 23;

-- ════════════════════════════ tenants ════════════════════════════

CREATE TABLE tenants (
  id INTEGER PRIMARY KEY,                       -- 1 is the host: the operator of this machine
  name TEXT NOT NULL,
  founder_id INTEGER,                           -- has an editor's rights and the billing in it
  created_at TEXT NOT NULL
) STRICT;

CREATE TABLE tenant_shares (                    -- what a tenant has of this server; triggers of the tables keep it, each beside its own
  tenant_id INTEGER PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
  jobs INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0              -- of the texts that can be long, and 200 for each row
) STRICT;
CREATE TRIGGER tenants_added AFTER INSERT ON tenants BEGIN
  INSERT INTO tenant_shares (tenant_id) VALUES (new.id);
END;

-- ═════════════════════════════ users ═════════════════════════════

CREATE TABLE users (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL REFERENCES tenants (id),
  username TEXT NOT NULL,
  username_key TEXT NOT NULL UNIQUE,            -- folded, so that look-alikes are the same name
  email TEXT NOT NULL,
  email_key TEXT NOT NULL UNIQUE,               -- folded; what a log-in is looked up by
  email_proven_at TEXT,                         -- since when it is known that the address is theirs; by it alone, nothing is erased
  password TEXT NOT NULL,                       -- Argon2id, PHC string
  role TEXT NOT NULL DEFAULT 'member'
    CHECK (role IN ('admin', 'editor', 'member', 'builder', 'viewer', 'agent', 'demo')),
  avatar_url TEXT,
  terms_accepted_at TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
-- users.page
CREATE INDEX idx_users_by_id ON users (tenant_id, id);

CREATE TABLE sessions (                         -- one row a log-in on one device
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  access_hash BLOB NOT NULL UNIQUE,             -- SHA-256 of the token; the token itself is never stored
  access_expires_at TEXT NOT NULL,
  refresh_hash BLOB NOT NULL UNIQUE,
  refresh_expires_at TEXT NOT NULL,             -- idle limit, moved at each refresh
  ends_at TEXT NOT NULL,                        -- absolute limit, never moved
  previous_hash BLOB,                           -- the refresh token before this one: its reuse ends the session
  rotated_at TEXT,
  agent TEXT NOT NULL DEFAULT '',               -- the client's User-Agent
  created_at TEXT NOT NULL,
  last_used_at TEXT NOT NULL,
  seed BLOB                                     -- what the next tokens are derived from, together with the present one
) STRICT;
-- users.sessions_of, users.end_session
CREATE INDEX idx_sessions_by_user_id ON sessions (user_id);
-- users.refresh: a token that was spent
CREATE UNIQUE INDEX idx_sessions_by_previous_hash ON sessions (previous_hash) WHERE previous_hash IS NOT NULL;

CREATE TABLE spent_tokens (                     -- every refresh token of a session before the present one: its reuse ends the session
  hash BLOB PRIMARY KEY,
  session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
-- ON DELETE of a session
CREATE INDEX idx_spent_tokens_by_session_id ON spent_tokens (session_id);

CREATE TABLE tickets (                          -- single-use links: set-up, password reset, e-mail change
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('setup', 'reset', 'email')),
  hash BLOB NOT NULL UNIQUE,
  user_id INTEGER REFERENCES users (id) ON DELETE CASCADE,
  detail TEXT,
  expires_at TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;

CREATE TABLE invites (                          -- to a tenant, and with it perhaps to an organization or a team
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL REFERENCES tenants (id),
  kind TEXT NOT NULL CHECK (kind IN ('tenant', 'org', 'team')),
  target TEXT,                                  -- the organization's or team's id
  email TEXT NOT NULL,
  email_key TEXT NOT NULL,
  role TEXT NOT NULL,                           -- the role it gives there
  hash BLOB NOT NULL UNIQUE,                    -- SHA-256 of the code that a command prints
  mailed_hash BLOB,                             -- of the one in the mail, which is made when that is sent
  invited_by INTEGER REFERENCES users (id) ON DELETE CASCADE,
  expires_at TEXT NOT NULL,
  accepted_at TEXT,
  revoked_at TEXT,
  created_at TEXT NOT NULL
) STRICT;
-- users.invite: one that is open; users.open_invites
CREATE UNIQUE INDEX idx_invites_open_by_kind_target_email_key ON invites (kind, target, email_key) WHERE accepted_at IS NULL AND revoked_at IS NULL;
-- users.invited
CREATE UNIQUE INDEX idx_invites_by_mailed_hash ON invites (mailed_hash) WHERE mailed_hash IS NOT NULL;

-- ═════════════════════════════ orgs ══════════════════════════════

CREATE TABLE organizations (
  id TEXT PRIMARY KEY,                          -- org_…
  tenant_id INTEGER NOT NULL REFERENCES tenants (id),
  name TEXT NOT NULL,
  slug TEXT NOT NULL,
  avatar_url TEXT,
  deleted_at TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- orgs.page; a slug is one live organization's
CREATE UNIQUE INDEX idx_organizations_live_by_slug ON organizations (tenant_id, slug) WHERE deleted_at IS NULL;

CREATE TABLE org_members (                      -- of whatever tenant: an invitation makes anybody a member
  org_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
  joined_at TEXT NOT NULL,
  PRIMARY KEY (org_id, user_id)
) STRICT, WITHOUT ROWID;
-- orgs.hold_back, orgs.erase
CREATE INDEX idx_org_members_by_user_id ON org_members (user_id, org_id);

-- ═════════════════════════════ keys ══════════════════════════════

CREATE TABLE api_keys (
  id TEXT PRIMARY KEY,                          -- key_…
  tenant_id INTEGER NOT NULL REFERENCES tenants (id),
  org_id TEXT,                                  -- null: an agent's own key, or one made by the command for a whole tenant
  agent TEXT,                                   -- the agent it is bound to
  name TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '',
  hash BLOB NOT NULL UNIQUE,                    -- SHA-256; the key itself is shown once and never stored
  masked TEXT NOT NULL,
  scopes TEXT NOT NULL,                         -- JSON list
  created_by INTEGER REFERENCES users (id) ON DELETE SET NULL, -- a key whose person is gone is dead; an agent's has none
  is_active INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
  old_hash BLOB UNIQUE,                         -- the secret before a rotation, good until old_until
  old_until TEXT,
  version INTEGER NOT NULL DEFAULT 1,           -- two rotations at once: the second sees another version
  expires_at TEXT,
  revoked_at TEXT,
  deleted_at TEXT,
  last_used_at TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- keys.page
CREATE INDEX idx_api_keys_live_by_org_id ON api_keys (tenant_id, org_id, created_at, id) WHERE deleted_at IS NULL;
-- keys.drop_agent_key, agents.has_key
CREATE UNIQUE INDEX idx_api_keys_live_by_agent ON api_keys (tenant_id, agent) WHERE agent IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE logs.api_key_uses (                -- in logs.db: a power cut may cost the last ones
  id INTEGER PRIMARY KEY,
  key_id TEXT NOT NULL,
  method TEXT NOT NULL,
  route TEXT NOT NULL,                          -- the template, /api/tasks/{id}: no ids, no secrets
  status INTEGER NOT NULL,
  address TEXT NOT NULL,
  at TEXT NOT NULL
) STRICT;
-- keys.usage
CREATE INDEX logs.idx_api_key_uses_by_key_id ON api_key_uses (key_id, id);

-- ════════════════════════════ signing ════════════════════════════

CREATE TABLE signing_secrets (                  -- one for each purpose, random
  purpose TEXT PRIMARY KEY,
  secret BLOB NOT NULL
) STRICT;

-- ═════════════════════════════ queue ═════════════════════════════

CREATE TABLE jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,         -- job_<id> on the wire; never used twice
  tenant_id INTEGER NOT NULL,
  queue TEXT NOT NULL,
  task_type TEXT NOT NULL,
  payload TEXT NOT NULL DEFAULT '{}',
  priority INTEGER NOT NULL DEFAULT 0,          -- lower first; first in, first out within a number
  state TEXT NOT NULL                           -- OR, not IN: SQLite builds a table for an IN at every write
    CHECK (state = 'active' OR state = 'waiting' OR state = 'completed' OR state = 'delayed' OR state = 'failed'
           OR state = 'cancelled' OR state = 'dead'),
  attempt INTEGER NOT NULL DEFAULT 0,
  max_attempts INTEGER NOT NULL DEFAULT 3,
  backoff_kind TEXT NOT NULL DEFAULT 'exponential' CHECK (backoff_kind IN ('exponential', 'fixed')),
  backoff_ms INTEGER NOT NULL DEFAULT 5000,
  timeout_seconds INTEGER NOT NULL DEFAULT 300, -- how long a lease lasts
  idempotency_key TEXT,
  run_at TEXT,                                  -- delayed: when it becomes due
  lease_token TEXT,                             -- kept after completion, so that a repeat is known as one
  lease_expires_at TEXT,
  worker_id TEXT,
  progress TEXT,
  result TEXT,
  error TEXT,
  held_for TEXT,                                -- waits for what a plugin named, e.g. other tasks; not due before that
  schedule TEXT,                                -- the schedule it came from
  tokens_used INTEGER NOT NULL DEFAULT 0,
  deferrals INTEGER NOT NULL DEFAULT 0,         -- how often it was put off since its last attempt that counted
  deferred_since TEXT,
  created_at TEXT NOT NULL,
  claimed_at TEXT,
  finished_at TEXT,
  heard_at TEXT,                                -- the last heartbeat
  CHECK ((state = 'active') = (lease_expires_at IS NOT NULL)),
  CHECK ((state = 'completed' OR state = 'failed' OR state = 'cancelled' OR state = 'dead') = (finished_at IS NOT NULL))
) STRICT;
-- queue.submit: the same key is the same job
CREATE UNIQUE INDEX idx_jobs_by_queue_idempotency_key ON jobs (tenant_id, queue, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- Partial indexes, one for each stage of a life: a claim touches two, a completion three.
-- queue.claim, the next one
CREATE INDEX idx_jobs_waiting_by_queue_priority ON jobs (tenant_id, queue, priority, id, task_type) WHERE state = 'waiting';
-- queue.rescue: whose worker is gone
CREATE INDEX idx_jobs_active_by_lease_expires_at ON jobs (tenant_id, lease_expires_at, id) WHERE state = 'active';
-- queue.promote_due, of all tenants
CREATE INDEX idx_jobs_delayed_by_run_at ON jobs (run_at) WHERE state = 'delayed' AND held_for IS NULL;
-- queue.DELAYED
CREATE INDEX idx_jobs_delayed_by_queue_run_at ON jobs (tenant_id, queue, run_at, id) WHERE state = 'delayed';
-- queue.COMPLETED and the other ends, of all queues
CREATE INDEX idx_jobs_finished_by_state ON jobs (tenant_id, state, finished_at, id) WHERE finished_at IS NOT NULL;
-- queue.COMPLETED and the other ends, of one queue; queue.stats
CREATE INDEX idx_jobs_finished_by_queue_state ON jobs (tenant_id, queue, state, finished_at, id) WHERE finished_at IS NOT NULL;
-- queue.JOBS
CREATE INDEX idx_jobs_by_id ON jobs (tenant_id, id);
-- queue.JOBS of one queue; queue.names
CREATE INDEX idx_jobs_by_queue ON jobs (tenant_id, queue, id);
-- queue.JOBS of one type
CREATE INDEX idx_jobs_by_task_type ON jobs (tenant_id, task_type, id);
CREATE TRIGGER jobs_weighed AFTER INSERT ON jobs BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + octet_length(new.payload) + ifnull(octet_length(new.result), 0), jobs = jobs + 1 WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER jobs_lifted AFTER DELETE ON jobs BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - (octet_length(old.payload) + ifnull(octet_length(old.result), 0)), jobs = jobs - 1 WHERE tenant_id = old.tenant_id;
END;
CREATE TRIGGER jobs_reweighed AFTER UPDATE OF result ON jobs BEGIN
  UPDATE tenant_shares SET bytes = bytes + octet_length(new.payload) + ifnull(octet_length(new.result), 0) - (octet_length(old.payload) + ifnull(octet_length(old.result), 0)) WHERE tenant_id = new.tenant_id;
END;

CREATE TABLE queues (                           -- what is known of a queue beside its jobs
  tenant_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  paused_at TEXT,
  PRIMARY KEY (tenant_id, name)
) STRICT, WITHOUT ROWID;

-- ═══════════════════════════ schedules ═══════════════════════════

CREATE TABLE schedules (                        -- the job of the next slot is a row of jobs
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  queue TEXT NOT NULL,
  name TEXT NOT NULL,                           -- and what its jobs are called
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
  starts_at TEXT NOT NULL,                      -- no slot before it; every_ms counts from it
  slot TEXT,                                    -- of its newest job
  job_id INTEGER,
  runs INTEGER NOT NULL DEFAULT 0,
  missed INTEGER NOT NULL DEFAULT 0,            -- slots that passed without a job
  last_run_at TEXT,
  task_type TEXT,                               -- of its jobs, where that is not its name
  task_id INTEGER,                              -- the newest task it filed
  filed_slot TEXT,                              -- the slot that task was filed for
  last_error TEXT,                              -- why its newest job failed
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  CHECK ((cron IS NULL) <> (every_ms IS NULL)),
  UNIQUE (tenant_id, queue, name)
) STRICT;
-- schedules.pass_over_late
CREATE INDEX idx_schedules_by_job_id ON schedules (job_id);
CREATE TRIGGER schedules_weighed AFTER INSERT ON schedules BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + octet_length(new.payload) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER schedules_lifted AFTER DELETE ON schedules BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - octet_length(old.payload) WHERE tenant_id = old.tenant_id;
END;
CREATE TRIGGER schedules_reweighed AFTER UPDATE OF payload ON schedules BEGIN
  UPDATE tenant_shares SET bytes = bytes + octet_length(new.payload) - octet_length(old.payload) WHERE tenant_id = new.tenant_id;
END;

-- ════════════════════════════ factory ════════════════════════════

CREATE TABLE factory (                          -- what is wanted
  tenant_id INTEGER PRIMARY KEY,
  worker_count INTEGER NOT NULL CHECK (worker_count BETWEEN 0 AND 16),
  max_concurrent INTEGER NOT NULL CHECK (max_concurrent BETWEEN 1 AND 8),
  queues TEXT NOT NULL,                         -- JSON
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE factory_workers (
  tenant_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  wanted TEXT NOT NULL CHECK (wanted IN ('running', 'draining', 'held')),
  since TEXT NOT NULL,                          -- it is wanted so
  slots INTEGER NOT NULL,
  queues TEXT NOT NULL,                         -- JSON
  restarts INTEGER NOT NULL DEFAULT 0,
  last_error TEXT,
  completed INTEGER NOT NULL DEFAULT 0,         -- kept sums over its jobs
  failed INTEGER NOT NULL DEFAULT 0,
  ms INTEGER NOT NULL DEFAULT 0,                -- of the completed ones
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE factory_jobs (                     -- attempts of the last day
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  worker INTEGER NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('completed', 'failed')),
  ms INTEGER NOT NULL,
  finished_at TEXT NOT NULL
) STRICT;
-- factory.last_day
CREATE INDEX idx_factory_jobs_by_finished_at ON factory_jobs (tenant_id, finished_at);

-- ═════════════════════════════ costs ═════════════════════════════

CREATE TABLE cost_sums (                        -- kept: each run once, when it ends
  tenant_id INTEGER NOT NULL,
  agent TEXT NOT NULL,
  day TEXT NOT NULL,                            -- local
  product TEXT NOT NULL,                        -- '': of none
  model TEXT NOT NULL,                          -- '': not told
  runs INTEGER NOT NULL,
  done INTEGER NOT NULL DEFAULT 0,
  wasted INTEGER NOT NULL,                      -- that failed or made no progress
  tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL,
  cost_micros INTEGER NOT NULL,
  ms INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, agent, day, product, model)
) STRICT, WITHOUT ROWID;
-- costs._BY
CREATE INDEX idx_cost_sums_by_day ON cost_sums (tenant_id, day);

CREATE TABLE idle_days (                        -- runs that were saved
  tenant_id INTEGER NOT NULL,
  agent TEXT NOT NULL,
  day TEXT NOT NULL,                            -- local
  skipped INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, agent, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE agent_budgets (
  tenant_id INTEGER NOT NULL,
  agent TEXT NOT NULL,
  tokens_per_day INTEGER,
  tokens_per_month INTEGER,
  cost_micros_per_day INTEGER,                  -- millionths of a dollar
  cost_micros_per_month INTEGER,
  cost_micros_per_hour INTEGER,                 -- the breaker's
  runs_without_progress INTEGER NOT NULL DEFAULT 5, -- in a row; the breaker's
  micros_per_million_tokens_in INTEGER,         -- the price, where its tool tells no cost
  micros_per_million_tokens_out INTEGER,
  over TEXT,                                    -- why it is shut out
  over_until TEXT,
  warned TEXT,                                  -- what somebody was told of last
  in_a_row INTEGER NOT NULL DEFAULT 0,
  updated_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, agent)
) STRICT, WITHOUT ROWID;

-- ═════════════════════════ integrations ══════════════════════════

CREATE TABLE integrations (                     -- values that are no secrets; those are credentials
  tenant_id INTEGER NOT NULL,
  id TEXT NOT NULL,
  field TEXT NOT NULL,
  value TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, id, field)
) STRICT, WITHOUT ROWID;

CREATE TABLE integration_checks (
  tenant_id INTEGER NOT NULL,
  id TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('verified', 'failing')),
  detail TEXT NOT NULL,
  checked_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

-- ═══════════════════════════ discovery ═══════════════════════════

CREATE TABLE discovery_engines (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  slug TEXT NOT NULL,                           -- of its first name; it stays
  name TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '',
  layer TEXT NOT NULL,
  schedule_interval_ms INTEGER NOT NULL CHECK (schedule_interval_ms >= 60000),
  model TEXT,
  command TEXT,                                 -- JSON argv, of the layer command
  enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  last_run_at TEXT,
  last_status TEXT CHECK (last_status IN ('queued', 'running', 'done', 'failed')),
  total INTEGER NOT NULL DEFAULT 0,             -- kept sums over its runs
  failed INTEGER NOT NULL DEFAULT 0,
  wasted INTEGER NOT NULL DEFAULT 0,            -- that went well and filed nothing
  findings INTEGER NOT NULL DEFAULT 0,
  cost_micros INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  UNIQUE (tenant_id, slug)
) STRICT;

CREATE TABLE discovery_runs (                   -- of 90 days; they outlive their engine
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  engine_id INTEGER NOT NULL,
  slug TEXT NOT NULL,
  trigger TEXT NOT NULL CHECK (trigger IN ('schedule', 'manual')),
  status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed')),
  job_id INTEGER,
  started_at TEXT,
  finished_at TEXT,
  seconds REAL,
  findings INTEGER NOT NULL DEFAULT 0,
  new INTEGER NOT NULL DEFAULT 0,
  repeated INTEGER NOT NULL DEFAULT 0,
  dismissed INTEGER NOT NULL DEFAULT 0,
  cost_micros INTEGER NOT NULL DEFAULT 0,
  tokens INTEGER NOT NULL DEFAULT 0,
  error TEXT,
  created_at TEXT NOT NULL
) STRICT;
-- discovery.show
CREATE INDEX idx_discovery_runs_by_engine_id ON discovery_runs (tenant_id, engine_id, id);
-- discovery.prune
CREATE INDEX idx_discovery_runs_by_created_at ON discovery_runs (tenant_id, created_at);

CREATE TABLE discovery_tasks (                  -- a row for each task that was filed
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  engine_id INTEGER NOT NULL,
  run_id INTEGER NOT NULL,
  fingerprint TEXT NOT NULL,
  task_id INTEGER NOT NULL,
  previous_task_id INTEGER,                     -- which was done, and it came back
  dismissed_at TEXT,                            -- when a person archived it
  filed_at TEXT NOT NULL
) STRICT;
-- discovery._take
CREATE INDEX idx_discovery_tasks_by_fingerprint ON discovery_tasks (tenant_id, fingerprint, id);
-- discovery.seen
CREATE INDEX idx_discovery_tasks_by_engine_id ON discovery_tasks (tenant_id, engine_id, id);
-- discovery.dismissed
CREATE INDEX idx_discovery_tasks_by_task_id ON discovery_tasks (task_id);

-- ═════════════════════════════ mail ══════════════════════════════

CREATE TABLE letters (                          -- only until they are sent
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  email TEXT NOT NULL,                          -- '': to nobody
  email_key TEXT NOT NULL,
  subject TEXT NOT NULL,
  text TEXT NOT NULL,
  html TEXT,
  about INTEGER,                                -- the user it names: it goes with them
  wanted TEXT,                                  -- JSON: the link whose token is made when it is sent, and stands nowhere before
  created_at TEXT NOT NULL
) STRICT;
-- mail.erase
CREATE INDEX idx_letters_by_email_key ON letters (email_key);

-- ═════════════════════════ notifications ═════════════════════════

CREATE TABLE notifications (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  user_id INTEGER,                              -- null: for everybody of the tenant
  title TEXT NOT NULL,
  message TEXT NOT NULL,
  type TEXT NOT NULL DEFAULT 'info' CHECK (type IN ('info', 'warning', 'error', 'success')),
  source TEXT,
  link TEXT,
  read INTEGER NOT NULL DEFAULT 0 CHECK (read IN (0, 1)),  -- by its user; what is for everybody is read in notification_reads
  read_at TEXT,
  mailed_at TEXT,                               -- by itself, or in a digest
  created_at TEXT NOT NULL
) STRICT;
-- delivery._with_news
CREATE INDEX idx_notifications_unmailed_by_created_at ON notifications (created_at, tenant_id) WHERE mailed_at IS NULL AND user_id IS NULL;
-- notifications.page, notifications.unread
CREATE INDEX idx_notifications_by_id ON notifications (tenant_id, id);
-- notifications._marks, notifications.read_all
CREATE INDEX idx_notifications_unread_by_user_id ON notifications (tenant_id, user_id, id) WHERE read = 0 AND user_id IS NOT NULL;
-- notifications.page by type
CREATE INDEX idx_notifications_by_type ON notifications (tenant_id, type, id);
CREATE TRIGGER notifications_weighed AFTER INSERT ON notifications BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + octet_length(new.message) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER notifications_lifted AFTER DELETE ON notifications BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - (octet_length(old.message)) WHERE tenant_id = old.tenant_id;
END;

CREATE TABLE notification_reads (               -- what one reader has read of what is for everybody
  tenant_id INTEGER NOT NULL,
  reader TEXT NOT NULL,
  notification_id INTEGER NOT NULL,
  read_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, reader, notification_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE notification_read_alls (           -- up to where a reader has marked everything as read, each time
  tenant_id INTEGER NOT NULL,
  reader TEXT NOT NULL,
  up_to INTEGER NOT NULL,
  read_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, reader, up_to)
) STRICT, WITHOUT ROWID;

-- ═══════════════════════════ activity ════════════════════════════

CREATE TABLE activity (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  actor_type TEXT NOT NULL CHECK (actor_type IN ('agent', 'system', 'user')),
  actor_id TEXT NOT NULL,                       -- an id or an agent's name; never a person's name or address
  action TEXT NOT NULL,
  entity_type TEXT,
  entity_id TEXT,
  metadata TEXT,                                -- JSON
  created_at TEXT NOT NULL
) STRICT;
-- activity.page, activity.stats
CREATE INDEX idx_activity_by_id ON activity (tenant_id, id);
-- activity.page by actor_type
CREATE INDEX idx_activity_by_actor_type ON activity (tenant_id, actor_type, id);
-- activity.page by actor_id, with actor_type or without: one id is hardly ever of two types
CREATE INDEX idx_activity_by_actor_id ON activity (tenant_id, actor_id, id);
-- activity.page by action
CREATE INDEX idx_activity_by_action ON activity (tenant_id, action, id);
-- activity.RECENT, which it covers
CREATE INDEX idx_activity_by_created_at ON activity (tenant_id, created_at, action, actor_type);
CREATE TRIGGER activity_weighed AFTER INSERT ON activity BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + ifnull(octet_length(new.metadata), 0) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER activity_lifted AFTER DELETE ON activity BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - (ifnull(octet_length(old.metadata), 0)) WHERE tenant_id = old.tenant_id;
END;

-- ═════════════════════════════ logs ══════════════════════════════
-- In logs.db: a power cut may cost the last lines here, never a job, a task or a cent.

CREATE TABLE logs.log_lines (
  id INTEGER PRIMARY KEY,
  source TEXT NOT NULL CHECK (source IN ('file', 'db')),
  file TEXT,                                    -- relative to the data folder
  agent TEXT,
  level TEXT NOT NULL CHECK (level IN ('error', 'warn', 'info')),
  message TEXT NOT NULL,
  meta TEXT,                                    -- JSON
  task_id INTEGER,
  created_at TEXT NOT NULL
) STRICT;
-- logs.LINES by agent
CREATE INDEX logs.idx_log_lines_by_agent ON log_lines (agent, id);
-- Of what nearly every line is, an index would cost much and find nothing.
-- logs.LINES by source; an erasure
CREATE INDEX logs.idx_log_lines_sent_by_id ON log_lines (id) WHERE source = 'db';
-- logs.LINES by level
CREATE INDEX logs.idx_log_lines_errors_by_id ON log_lines (id) WHERE level = 'error';
-- logs.LINES by level
CREATE INDEX logs.idx_log_lines_warnings_by_id ON log_lines (id) WHERE level = 'warn';
-- logs.tail
CREATE INDEX logs.idx_log_lines_by_task_id ON log_lines (task_id, id) WHERE task_id IS NOT NULL;
-- No trigger fills this index: one statement for a whole batch of lines is three times as fast.
CREATE VIRTUAL TABLE logs.log_lines_fts USING fts5 (message, content = 'log_lines', content_rowid = 'id', columnsize = 0);
CREATE TRIGGER logs.log_lines_removed AFTER DELETE ON log_lines BEGIN
  INSERT INTO log_lines_fts (log_lines_fts, rowid, message) VALUES ('delete', old.id, old.message);
END;

CREATE TABLE logs.log_files (                   -- how far each file has been read: in the transaction of its lines
  path TEXT PRIMARY KEY,                        -- relative to the data folder
  device INTEGER NOT NULL,
  inode INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  head BLOB NOT NULL DEFAULT x'',               -- its first bytes: a copied-and-truncated file has others
  lost INTEGER NOT NULL DEFAULT 0,              -- lines known to be lost to copy-truncate
  midline INTEGER NOT NULL DEFAULT 0 CHECK (midline IN (0, 1)), -- at offset stands the rest of a line too long to keep
  updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- ═════════════════════════════ agents ════════════════════════════

CREATE TABLE agents (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  display_name TEXT NOT NULL,
  role TEXT NOT NULL DEFAULT 'agent',           -- its job title
  model TEXT,
  emoji TEXT,
  color TEXT,
  interval_sec INTEGER NOT NULL DEFAULT 60 CHECK (interval_sec >= 1),
  command TEXT,                                 -- JSON argv instead of the workspace's brain
  adapter TEXT,                                 -- the tool that is its brain, in place of both
  base_url TEXT,                                -- where that tool's model is, in place of its maker's
  template TEXT,                                -- the slug of what it was made from
  delegates INTEGER NOT NULL DEFAULT 0 CHECK (delegates IN (0, 1)), -- whether it may give tasks to other agents
  workspace_path TEXT,
  wanted TEXT NOT NULL DEFAULT 'running' CHECK (wanted IN ('running', 'paused', 'stopped')), -- what the operator asked for
  reported TEXT NOT NULL DEFAULT 'idle'         -- what a process-less agent last said of itself
    CHECK (reported IN ('idle', 'working', 'blocked', 'offline', 'paused', 'error')),
  note TEXT,
  current_task TEXT,
  steps TEXT NOT NULL DEFAULT '[]',             -- JSON: how far its creation came
  last_heartbeat TEXT,
  idle_skips INTEGER NOT NULL DEFAULT 0,        -- runs saved by the idle check
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  UNIQUE (tenant_id, name)
) STRICT;

CREATE TABLE agent_runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  agent TEXT NOT NULL,
  task_id INTEGER,
  job_id INTEGER,
  mode TEXT NOT NULL DEFAULT 'task',
  status TEXT NOT NULL DEFAULT 'running'
    CHECK (status IN ('running', 'done', 'failed', 'retry', 'stopped', 'lost', 'timeout')),
  exit_code INTEGER,
  tokens_in INTEGER NOT NULL DEFAULT 0,
  tokens_out INTEGER NOT NULL DEFAULT 0,
  cost_micros INTEGER NOT NULL DEFAULT 0,       -- millionths of a dollar
  duration_ms INTEGER,
  note TEXT,
  error TEXT,
  unpaid_tokens INTEGER NOT NULL DEFAULT 0,     -- what its tenant's balance did not cover
  counted INTEGER NOT NULL DEFAULT 0 CHECK (counted IN (0, 1)), -- in cost_sums,
  counted_product TEXT,                         -- and there under these; NULL: as earlier versions counted it
  counted_model TEXT,
  stdout_bytes INTEGER NOT NULL DEFAULT 0,      -- what its program wrote; how much of that is kept, its folder says
  stderr_bytes INTEGER NOT NULL DEFAULT 0,
  truncated INTEGER NOT NULL DEFAULT 0,         -- its task's resolution is but the beginning of that
  replay_of INTEGER,                            -- the run that it repeats
  started_at TEXT NOT NULL,
  finished_at TEXT
) STRICT;
-- agents.runs.page
CREATE INDEX idx_agent_runs_by_id ON agent_runs (tenant_id, id);
-- agents.runs.page by agent
CREATE INDEX idx_agent_runs_by_agent ON agent_runs (tenant_id, agent, id);
-- agents.runs.page by task_id
CREATE INDEX idx_agent_runs_by_task_id ON agent_runs (tenant_id, task_id, id);
-- agents.runs.page by status
CREATE INDEX idx_agent_runs_by_status ON agent_runs (tenant_id, status, id);
-- costs._uncounted
CREATE INDEX idx_agent_runs_uncounted_by_id ON agent_runs (id) WHERE counted = 0 AND finished_at IS NOT NULL;
-- agents.runs._lost
CREATE INDEX idx_agent_runs_running_by_started_at ON agent_runs (started_at) WHERE status = 'running';

CREATE TABLE agent_templates (                  -- what an agent may be made from
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  slug TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '',
  icon TEXT,
  category TEXT NOT NULL DEFAULT 'general',
  model TEXT,
  interval_sec INTEGER NOT NULL DEFAULT 60 CHECK (interval_sec >= 1),
  identity TEXT NOT NULL DEFAULT '',            -- the text of its SOUL.md
  tools TEXT NOT NULL DEFAULT '[]',             -- JSON lists of names
  capabilities TEXT NOT NULL DEFAULT '[]',
  config TEXT NOT NULL DEFAULT '{}',            -- JSON object, whatever its author likes
  is_featured INTEGER NOT NULL DEFAULT 0 CHECK (is_featured IN (0, 1)),
  sort_order INTEGER NOT NULL DEFAULT 0,
  archived_at TEXT,                             -- archived: on record, and shown nowhere
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
-- agents.templates.create: a slug is one live template's
CREATE UNIQUE INDEX idx_agent_templates_live_by_slug ON agent_templates (tenant_id, slug) WHERE archived_at IS NULL;
-- agents.templates.page
CREATE INDEX idx_agent_templates_live_by_sort_order ON agent_templates (tenant_id, sort_order, name, id) WHERE archived_at IS NULL;
-- agents.templates.page by category
CREATE INDEX idx_agent_templates_live_by_category ON agent_templates (tenant_id, category, sort_order, name, id) WHERE archived_at IS NULL;
-- agents.templates.page of featured ones
CREATE INDEX idx_agent_templates_featured_by_sort_order ON agent_templates (tenant_id, sort_order, name, id) WHERE archived_at IS NULL AND is_featured = 1;
CREATE TRIGGER agent_templates_weighed AFTER INSERT ON agent_templates BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + octet_length(new.identity) + octet_length(new.config) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER agent_templates_lifted AFTER DELETE ON agent_templates BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - (octet_length(old.identity) + octet_length(old.config)) WHERE tenant_id = old.tenant_id;
END;
CREATE TRIGGER agent_templates_reweighed AFTER UPDATE OF identity, config ON agent_templates BEGIN
  UPDATE tenant_shares SET bytes = bytes + octet_length(new.identity) + octet_length(new.config) - (octet_length(old.identity) + octet_length(old.config)) WHERE tenant_id = new.tenant_id;
END;

-- ═══════════════════════════ automations ═════════════════════════

CREATE TABLE automations (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  type TEXT NOT NULL,                           -- launchagent, script, …
  path TEXT NOT NULL,
  label TEXT,
  status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'disabled')),
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  UNIQUE (tenant_id, type, path)
) STRICT;
-- automations.LIST
CREATE INDEX idx_automations_by_id ON automations (tenant_id, id);
CREATE VIRTUAL TABLE automations_fts USING fts5 (name, agent_name, label, path, content = 'automations', content_rowid = 'id');
CREATE TRIGGER automations_added AFTER INSERT ON automations BEGIN
  INSERT INTO automations_fts (rowid, name, agent_name, label, path) VALUES (new.id, new.name, new.agent_name, new.label, new.path);
END;
CREATE TRIGGER automations_removed AFTER DELETE ON automations BEGIN
  INSERT INTO automations_fts (automations_fts, rowid, name, agent_name, label, path)
  VALUES ('delete', old.id, old.name, old.agent_name, old.label, old.path);
END;
CREATE TRIGGER automations_changed AFTER UPDATE OF name, agent_name, label, path ON automations BEGIN
  INSERT INTO automations_fts (automations_fts, rowid, name, agent_name, label, path)
  VALUES ('delete', old.id, old.name, old.agent_name, old.label, old.path);
  INSERT INTO automations_fts (rowid, name, agent_name, label, path) VALUES (new.id, new.name, new.agent_name, new.label, new.path);
END;

-- ═════════════════════════════ tasks ═════════════════════════════

CREATE TABLE tasks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  title TEXT NOT NULL,
  title_key TEXT NOT NULL,                      -- folded, to find an open task that is the same
  description TEXT NOT NULL DEFAULT '',
  type TEXT NOT NULL DEFAULT 'other'
    CHECK (type IN ('feature', 'bug', 'research', 'ops', 'infra', 'content', 'other')),
  status TEXT NOT NULL DEFAULT 'todo'
    CHECK (status IN ('todo', 'in_progress', 'review', 'done', 'blocked', 'archived')),
  priority TEXT NOT NULL DEFAULT 'P2' CHECK (priority IN ('P0', 'P1', 'P2', 'P3')),
  assignee TEXT,
  product_slug TEXT,
  category TEXT,
  tags TEXT,
  estimated_minutes INTEGER,
  due_date TEXT,
  max_duration_seconds INTEGER NOT NULL DEFAULT 3600,
  resolution TEXT,
  last_error TEXT,                              -- with the tail of stderr
  reason TEXT,                                  -- a code for why it is in review; last_error has the sentence
  note TEXT,                                    -- what a person says to whoever does it next
  job_id INTEGER,                               -- the job that gets it done, or got it done last
  parent_id INTEGER,                            -- the task that it is a part of
  root_id INTEGER,                              -- the first one above it, which nobody delegated
  depth INTEGER NOT NULL DEFAULT 0,             -- how far below that one
  created_by TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  finished_at TEXT
) STRICT;
-- dashboard.efficiency, dashboard.usage
CREATE INDEX idx_tasks_done_by_finished_at ON tasks (tenant_id, finished_at, assignee) WHERE status = 'done';

CREATE TABLE task_sums (                        -- how many tasks there are; kept by the triggers below
  tenant_id INTEGER NOT NULL,
  status TEXT NOT NULL,
  priority TEXT NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, status, priority)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER tasks_summed AFTER INSERT ON tasks BEGIN
  INSERT INTO task_sums (tenant_id, status, priority, n) VALUES (new.tenant_id, new.status, new.priority, 1)
    ON CONFLICT (tenant_id, status, priority) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER tasks_summed_anew AFTER UPDATE OF status, priority, tenant_id ON tasks
  WHEN old.status <> new.status OR old.priority <> new.priority OR old.tenant_id <> new.tenant_id BEGIN
  UPDATE task_sums SET n = n - 1 WHERE tenant_id = old.tenant_id AND status = old.status AND priority = old.priority;
  INSERT INTO task_sums (tenant_id, status, priority, n) VALUES (new.tenant_id, new.status, new.priority, 1)
    ON CONFLICT (tenant_id, status, priority) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER tasks_summed_less AFTER DELETE ON tasks BEGIN
  UPDATE task_sums SET n = n - 1 WHERE tenant_id = old.tenant_id AND status = old.status AND priority = old.priority;
END;
-- tasks.create: is there an open one like it?
CREATE INDEX idx_tasks_open_by_title_key ON tasks (tenant_id, title_key, id)
  WHERE status IN ('todo', 'in_progress', 'review', 'blocked');
-- tasks.page
CREATE INDEX idx_tasks_by_id ON tasks (tenant_id, id);
-- tasks.page by status
CREATE INDEX idx_tasks_by_status ON tasks (tenant_id, status, id);
-- console.cards: a column of the board, the most urgent on top
CREATE INDEX idx_tasks_open_by_status_priority ON tasks (tenant_id, status, priority, id)
  WHERE status = 'todo' OR status = 'in_progress' OR status = 'review' OR status = 'blocked';
-- tasks.page by assignee
CREATE INDEX idx_tasks_by_assignee ON tasks (tenant_id, assignee, id);
-- tasks.page by product
CREATE INDEX idx_tasks_by_product_slug ON tasks (tenant_id, product_slug, id);
-- tasks.page by priority
CREATE INDEX idx_tasks_by_priority ON tasks (tenant_id, priority, id);
-- tasks.page with next
CREATE INDEX idx_tasks_todo_by_assignee_priority ON tasks (tenant_id, assignee, priority, id) WHERE status = 'todo';
-- tasks.jobs._of, agents.busy
CREATE INDEX idx_tasks_by_job_id ON tasks (job_id) WHERE job_id IS NOT NULL;
-- tasks.delegation.subtasks
CREATE INDEX idx_tasks_by_parent_id ON tasks (parent_id, id) WHERE parent_id IS NOT NULL;
-- tasks.delegation: how many are below the first
CREATE INDEX idx_tasks_by_root_id ON tasks (root_id) WHERE root_id IS NOT NULL;
-- agents.completed
CREATE INDEX idx_tasks_done_by_assignee_finished_at ON tasks (tenant_id, assignee, finished_at, id) WHERE status = 'done';
CREATE TRIGGER tasks_weighed AFTER INSERT ON tasks BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + octet_length(new.description) + ifnull(octet_length(new.resolution), 0) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER tasks_lifted AFTER DELETE ON tasks BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - (octet_length(old.description) + ifnull(octet_length(old.resolution), 0)) WHERE tenant_id = old.tenant_id;
END;
CREATE TRIGGER tasks_reweighed AFTER UPDATE OF description, resolution ON tasks BEGIN
  UPDATE tenant_shares SET bytes = bytes + octet_length(new.description) + ifnull(octet_length(new.resolution), 0) - (octet_length(old.description) + ifnull(octet_length(old.resolution), 0)) WHERE tenant_id = new.tenant_id;
END;
CREATE VIRTUAL TABLE tasks_fts USING fts5 (title, description, content = 'tasks', content_rowid = 'id');
CREATE TRIGGER tasks_added AFTER INSERT ON tasks BEGIN
  INSERT INTO tasks_fts (rowid, title, description) VALUES (new.id, new.title, new.description);
END;
CREATE TRIGGER tasks_removed AFTER DELETE ON tasks BEGIN
  INSERT INTO tasks_fts (tasks_fts, rowid, title, description) VALUES ('delete', old.id, old.title, old.description);
END;
CREATE TRIGGER tasks_changed AFTER UPDATE OF title, description ON tasks BEGIN
  INSERT INTO tasks_fts (tasks_fts, rowid, title, description) VALUES ('delete', old.id, old.title, old.description);
  INSERT INTO tasks_fts (rowid, title, description) VALUES (new.id, new.title, new.description);
END;

CREATE TABLE task_links (                       -- task_id waits for blocked_by
  tenant_id INTEGER NOT NULL,
  task_id INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
  blocked_by INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
  PRIMARY KEY (task_id, blocked_by),
  CHECK (task_id <> blocked_by)
) STRICT, WITHOUT ROWID;
-- tasks._release: who waited for it
CREATE INDEX idx_task_links_by_blocked_by ON task_links (blocked_by, task_id);

-- ═════════════════════════════ hooks ═════════════════════════════

CREATE TABLE hooks (                            -- addresses at which other systems deliver, and what a delivery makes
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  token_hash BLOB NOT NULL UNIQUE,              -- SHA-256 of the token in its address; the token itself is never stored
  masked TEXT NOT NULL,                         -- its last four characters
  kind TEXT NOT NULL CHECK (kind IN ('github', 'stripe', 'slack', 'standard', 'token', 'none')),  -- how a sender proves itself
  header TEXT,                                  -- where the sender's token stands; of the kind token
  delivery_header TEXT,                         -- where the sender numbers its deliveries, if the kind does not say
  makes TEXT NOT NULL CHECK (makes IN ('task', 'job')),
  title TEXT NOT NULL,                          -- JSON {pointer, text}: what a pointer finds in the body, else the text; so the next two
  description TEXT NOT NULL,
  product TEXT NOT NULL,                        -- a slug
  assignee TEXT,
  priority TEXT NOT NULL DEFAULT 'P2' CHECK (priority IN ('P0', 'P1', 'P2', 'P3')),
  type TEXT NOT NULL DEFAULT 'other'
    CHECK (type IN ('feature', 'bug', 'research', 'ops', 'infra', 'content', 'other')),
  queue_name TEXT,                              -- of jobs; so the next one
  task_type TEXT,
  filter TEXT,                                  -- JSON {header or pointer, values}: all else makes nothing
  enabled INTEGER NOT NULL DEFAULT 1,
  vault_key_id INTEGER,                         -- the data key that seals the sender's secret
  nonce BLOB,
  sealed BLOB,
  received INTEGER NOT NULL DEFAULT 0,          -- deliveries that were proven, again and again ones included
  made INTEGER NOT NULL DEFAULT 0,
  skipped INTEGER NOT NULL DEFAULT 0,           -- that its filter left out
  repeated INTEGER NOT NULL DEFAULT 0,          -- that had come before
  refused INTEGER NOT NULL DEFAULT 0,           -- that were not proven, or could not be made
  last_at TEXT,
  last_error TEXT,                              -- why the last one was refused; null once one was made
  created_by TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  UNIQUE (tenant_id, name)
) STRICT;

CREATE TABLE hook_deliveries (                  -- what came in, for 14 days, so that it makes one thing however often it comes
  tenant_id INTEGER NOT NULL,
  hook_id INTEGER NOT NULL REFERENCES hooks (id) ON DELETE CASCADE,
  delivery TEXT NOT NULL,                       -- the sender's number for it, else a hash of its body
  task_id INTEGER,
  job_id INTEGER,
  received_at TEXT NOT NULL,
  PRIMARY KEY (hook_id, delivery)
) STRICT, WITHOUT ROWID;
-- hooks.receiving.forget
CREATE INDEX idx_hook_deliveries_by_received_at ON hook_deliveries (received_at);

CREATE TABLE hook_bodies (                      -- what a task was made of; text from outside, which nobody obeys
  task_id INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
  tenant_id INTEGER NOT NULL,
  source TEXT NOT NULL,                         -- the hook's name and kind, as they were
  delivery TEXT NOT NULL,
  taken TEXT NOT NULL,                          -- JSON: the fields of the task that were taken out of it
  warnings TEXT NOT NULL,                       -- JSON: what could not be had of it
  body TEXT NOT NULL,
  received_at TEXT NOT NULL
) STRICT;
CREATE TRIGGER hook_bodies_weighed AFTER INSERT ON hook_bodies BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + octet_length(new.body) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER hook_bodies_lifted AFTER DELETE ON hook_bodies BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - octet_length(old.body) WHERE tenant_id = old.tenant_id;
END;

-- ═════════════════════════════ products ══════════════════════════

CREATE TABLE products (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  slug TEXT NOT NULL,
  tagline TEXT,
  description TEXT,
  status TEXT NOT NULL DEFAULT 'building'
    CHECK (status IN ('idea', 'building', 'active', 'live', 'launched', 'placeholder', 'archived')),
  domain TEXT,
  brand_color TEXT,
  accent_color TEXT,
  folded TEXT,                                  -- its texts as a search compares them; null: not folded yet
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  UNIQUE (tenant_id, slug)
) STRICT;
-- products.page
CREATE INDEX idx_products_by_name ON products (tenant_id, name COLLATE NOCASE, id);
CREATE TRIGGER products_weighed AFTER INSERT ON products BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + ifnull(octet_length(new.description), 0) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER products_lifted AFTER DELETE ON products BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - ifnull(octet_length(old.description), 0) WHERE tenant_id = old.tenant_id;
END;
CREATE TRIGGER products_reweighed AFTER UPDATE OF description ON products BEGIN
  UPDATE tenant_shares SET bytes = bytes + ifnull(octet_length(new.description), 0) - ifnull(octet_length(old.description), 0) WHERE tenant_id = new.tenant_id;
END;

-- ═════════════════════════════ files ═════════════════════════════

CREATE TABLE files (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  path TEXT NOT NULL,                           -- relative: agents/<name>/… as synced, or as a client recorded it
  workspace TEXT,                               -- the agent whose workspace it is in
  file_type TEXT,
  ext TEXT NOT NULL DEFAULT '',
  category TEXT NOT NULL DEFAULT 'other',
  content TEXT,                                 -- null: not text, or too large
  size INTEGER NOT NULL DEFAULT 0,
  hash TEXT,                                    -- SHA-256 of the whole file: an unchanged one is not written again
  synced INTEGER NOT NULL DEFAULT 0 CHECK (synced IN (0, 1)), -- from the disk, not from a client
  modified_at TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  UNIQUE (tenant_id, path)
) STRICT;
-- files.page; files.known
CREATE INDEX idx_files_by_id ON files (tenant_id, id);
-- files.page by category
CREATE INDEX idx_files_by_category ON files (tenant_id, category, id);
CREATE TABLE file_versions (                    -- what a file in a workspace said before, the last ones of each
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  path TEXT NOT NULL,
  workspace TEXT NOT NULL,
  content TEXT,                                 -- null: not text, or too large
  hash TEXT,
  since TEXT NOT NULL,
  until TEXT NOT NULL
) STRICT;
-- files.keep_old
CREATE INDEX idx_file_versions_by_path ON file_versions (tenant_id, path, id);
-- files.changes
CREATE INDEX idx_file_versions_by_workspace ON file_versions (tenant_id, workspace, until);
-- files.changes
CREATE INDEX idx_files_by_workspace ON files (tenant_id, workspace, updated_at);
CREATE TRIGGER files_weighed AFTER INSERT ON files BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + ifnull(octet_length(new.content), 0) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER files_lifted AFTER DELETE ON files BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - (ifnull(octet_length(old.content), 0)) WHERE tenant_id = old.tenant_id;
END;
CREATE TRIGGER files_reweighed AFTER UPDATE OF content ON files BEGIN
  UPDATE tenant_shares SET bytes = bytes + ifnull(octet_length(new.content), 0) - (ifnull(octet_length(old.content), 0)) WHERE tenant_id = new.tenant_id;
END;
CREATE VIRTUAL TABLE files_fts USING fts5 (name, content, content = 'files', content_rowid = 'id');
CREATE TRIGGER files_added AFTER INSERT ON files BEGIN
  INSERT INTO files_fts (rowid, name, content) VALUES (new.id, new.name, new.content);
END;
CREATE TRIGGER files_removed AFTER DELETE ON files BEGIN
  INSERT INTO files_fts (files_fts, rowid, name, content) VALUES ('delete', old.id, old.name, old.content);
END;
CREATE TRIGGER files_changed AFTER UPDATE OF name, content ON files BEGIN
  INSERT INTO files_fts (files_fts, rowid, name, content) VALUES ('delete', old.id, old.name, old.content);
  INSERT INTO files_fts (rowid, name, content) VALUES (new.id, new.name, new.content);
END;

-- ═════════════════════════════ rules ═════════════════════════════

CREATE TABLE rules (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  rule TEXT NOT NULL,
  scope TEXT NOT NULL DEFAULT 'all',            -- an agent's name, or all
  category TEXT NOT NULL DEFAULT 'general',
  permanent INTEGER NOT NULL DEFAULT 0 CHECK (permanent IN (0, 1)), -- never deleted, and changed by administrators alone
  created_by TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
-- rules.page
CREATE INDEX idx_rules_by_permanent ON rules (tenant_id, permanent, id);

-- ═════════════════════════════ teams ═════════════════════════════

CREATE TABLE teams (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL REFERENCES tenants (id),
  name TEXT NOT NULL,
  name_key TEXT NOT NULL,                       -- folded; what a part of a name is looked for in
  description TEXT NOT NULL DEFAULT '',
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
-- teams.page
CREATE INDEX idx_teams_by_id ON teams (tenant_id, id);
CREATE TRIGGER teams_weighed AFTER INSERT ON teams BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + octet_length(new.description) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER teams_lifted AFTER DELETE ON teams BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - octet_length(old.description) WHERE tenant_id = old.tenant_id;
END;
CREATE TRIGGER teams_reweighed AFTER UPDATE OF description ON teams BEGIN
  UPDATE tenant_shares SET bytes = bytes + octet_length(new.description) - octet_length(old.description) WHERE tenant_id = new.tenant_id;
END;

CREATE TABLE team_members (
  team_id INTEGER NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
  user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
  joined_at TEXT NOT NULL,
  PRIMARY KEY (team_id, user_id)
) STRICT, WITHOUT ROWID;
-- teams.erase
CREATE INDEX idx_team_members_by_user_id ON team_members (user_id, team_id);

-- ═════════════════════════════ changelog ═════════════════════════

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
-- changelog.page, changelog.BY_DAY
CREATE INDEX idx_changelog_by_completed_at ON changelog (tenant_id, completed_at, id);
-- changelog.page by agent
CREATE INDEX idx_changelog_by_agent_completed_at ON changelog (tenant_id, agent, completed_at, id);
-- changelog.page by product
CREATE INDEX idx_changelog_by_product_completed_at ON changelog (tenant_id, product, completed_at, id);
-- changelog.page by task; changelog.entered
CREATE INDEX idx_changelog_by_task_id ON changelog (tenant_id, task_id, id);
CREATE TRIGGER changelog_weighed AFTER INSERT ON changelog BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + ifnull(octet_length(new.summary), 0) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER changelog_lifted AFTER DELETE ON changelog BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - ifnull(octet_length(old.summary), 0) WHERE tenant_id = old.tenant_id;
END;

-- ═════════════════════════════ vault ═════════════════════════════

CREATE TABLE vault_masters (                    -- the master key that wraps the data keys; it is in a file elsewhere
  kek_id TEXT PRIMARY KEY,
  created_at TEXT NOT NULL,
  confirmed_at TEXT                             -- since when somebody says that the recovery key is kept
) STRICT;

CREATE TABLE vault_keys (                       -- data keys, wrapped; the newest one seals
  id INTEGER PRIMARY KEY,
  kek_id TEXT NOT NULL,
  nonce BLOB NOT NULL,
  wrapped BLOB NOT NULL,
  canary_nonce BLOB NOT NULL,
  canary BLOB NOT NULL,
  created_at TEXT NOT NULL
) STRICT;

-- ══════════════════════════ webhooks ═════════════════════════════

CREATE TABLE webhooks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  url TEXT NOT NULL,
  description TEXT NOT NULL,
  types TEXT NOT NULL,                          -- JSON: types of events, and beginnings of them that end in .*; [] is all
  status TEXT NOT NULL CHECK (status IN ('active', 'paused')),
  paused_for TEXT CHECK (paused_for IN ('asked', 'failing', 'gone')),
  seen INTEGER NOT NULL,                        -- the activity up to which deliveries are made
  failures INTEGER NOT NULL DEFAULT 0,          -- in a row
  failing_since TEXT,
  held_until TEXT,                              -- after a failure, nothing is sent there before
  last_sent_at TEXT,
  last_response INTEGER,                        -- the status it answered; NULL where there was no answer
  last_took_ms INTEGER,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
-- webhooks.everything
CREATE INDEX idx_webhooks_by_id ON webhooks (tenant_id, id);

CREATE TABLE webhook_secrets (
  webhook_id INTEGER NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
  version INTEGER NOT NULL,
  vault_key_id INTEGER NOT NULL,
  nonce BLOB NOT NULL,
  sealed BLOB NOT NULL,
  until TEXT,                                   -- of one that was rotated away: signs as well, until then
  PRIMARY KEY (webhook_id, version)
) STRICT;

CREATE TABLE webhook_deliveries (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  webhook_id INTEGER NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
  event_id INTEGER,                             -- the activity; NULL for a test
  message_id TEXT NOT NULL,                     -- webhook-id: the same at each attempt and replay
  type TEXT NOT NULL,
  entity TEXT NOT NULL,                         -- what it speaks of: of two with the same, the earlier is sent first
  body TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('waiting', 'sending', 'delivered', 'dead')),
  attempts INTEGER NOT NULL DEFAULT 0,
  due_at TEXT NOT NULL,
  job_id INTEGER,                               -- the job that sends it
  first_sent_at TEXT,
  sent_at TEXT,
  took_ms INTEGER,
  response_status INTEGER,
  response_headers TEXT,                        -- JSON
  response_body TEXT,                           -- its first 4 KiB
  error TEXT,
  created_at TEXT NOT NULL,
  UNIQUE (webhook_id, event_id)
) STRICT;
-- webhooks.page
CREATE INDEX idx_webhook_deliveries_by_webhook_id ON webhook_deliveries (webhook_id, id);
-- webhooks.page by status
CREATE INDEX idx_webhook_deliveries_by_webhook_id_status ON webhook_deliveries (webhook_id, status, id);
-- webhooks.sending.NEXT
CREATE INDEX idx_webhook_deliveries_waiting_by_webhook_id_due_at ON webhook_deliveries (webhook_id, due_at, id) WHERE status = 'waiting';
-- webhooks.sending.NEXT, for what is before it
CREATE INDEX idx_webhook_deliveries_unfinished_by_webhook_id_entity ON webhook_deliveries (webhook_id, entity, id) WHERE status IN ('waiting', 'sending');
-- webhooks.sending.prune
CREATE INDEX idx_webhook_deliveries_by_created_at ON webhook_deliveries (created_at);

-- ══════════════════════════ credentials ══════════════════════════

CREATE TABLE credentials (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  key TEXT NOT NULL,
  description TEXT,
  version INTEGER NOT NULL,
  last_used_at TEXT,
  used_by TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  UNIQUE (tenant_id, key)
) STRICT;

CREATE TABLE credential_versions (
  credential_id INTEGER NOT NULL REFERENCES credentials (id) ON DELETE CASCADE,
  version INTEGER NOT NULL,
  vault_key_id INTEGER NOT NULL,
  nonce BLOB NOT NULL,
  sealed BLOB NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (credential_id, version)
) STRICT;
-- credentials.reseal
CREATE INDEX idx_credential_versions_by_vault_key_id ON credential_versions (vault_key_id);

CREATE TABLE credential_grants (
  credential_id INTEGER NOT NULL REFERENCES credentials (id) ON DELETE CASCADE,
  agent TEXT NOT NULL,
  PRIMARY KEY (credential_id, agent)
) STRICT, WITHOUT ROWID;

CREATE TABLE credential_reads (                 -- append-only: who was given which value
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  key TEXT NOT NULL,
  version INTEGER NOT NULL,
  actor TEXT NOT NULL,
  read_at TEXT NOT NULL
) STRICT;
CREATE TRIGGER credential_reads_stay BEFORE DELETE ON credential_reads BEGIN
  SELECT RAISE(ABORT, 'the record of readings is append-only');
END;
CREATE TRIGGER credential_reads_stay_as_they_are BEFORE UPDATE ON credential_reads BEGIN
  SELECT RAISE(ABORT, 'the record of readings is append-only');
END;

-- ═════════════════════════════ tokens ════════════════════════════

CREATE TABLE token_accounts (
  tenant_id INTEGER PRIMARY KEY REFERENCES tenants (id),
  balance INTEGER NOT NULL CHECK (balance >= 0),
  granted INTEGER NOT NULL,
  purchased INTEGER NOT NULL,
  consumed INTEGER NOT NULL,
  out_since TEXT,                               -- since a run was not covered, until something is added
  updated_at TEXT NOT NULL,
  CHECK (balance = granted + purchased - consumed)
) STRICT;

CREATE TABLE token_ledger (                     -- append-only
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL REFERENCES tenants (id),
  type TEXT NOT NULL,
  amount INTEGER NOT NULL CHECK (amount <> 0),  -- what it adds
  balance_after INTEGER NOT NULL CHECK (balance_after >= 0),
  action TEXT NOT NULL,
  reference_id TEXT,
  metadata TEXT,
  actor TEXT NOT NULL,
  created_at TEXT NOT NULL,
  CHECK (type IN ('consume', 'purchase', 'bonus', 'signup_bonus', 'admin_grant', 'refund') AND (type = 'consume') = (amount < 0))
) STRICT;
-- tokens._repeated, tokens.charge
CREATE UNIQUE INDEX idx_token_ledger_by_type_reference_id ON token_ledger (tenant_id, type, reference_id) WHERE reference_id IS NOT NULL;
-- tokens.page, tokens.reconcile
CREATE INDEX idx_token_ledger_by_id ON token_ledger (tenant_id, id);
-- tokens.page by type
CREATE INDEX idx_token_ledger_by_type ON token_ledger (tenant_id, type, id);
-- tokens.page by actor
CREATE INDEX idx_token_ledger_by_actor ON token_ledger (tenant_id, actor, id);
CREATE TRIGGER token_ledger_stays BEFORE DELETE ON token_ledger BEGIN
  SELECT RAISE(ABORT, 'the ledger of tokens is append-only');
END;
CREATE TRIGGER token_ledger_stays_as_it_is BEFORE UPDATE ON token_ledger BEGIN
  SELECT RAISE(ABORT, 'the ledger of tokens is append-only');
END;
CREATE TRIGGER token_ledger_weighed AFTER INSERT ON token_ledger BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + ifnull(octet_length(new.metadata), 0) WHERE tenant_id = new.tenant_id;
END;

-- ═════════════════════════════ billing ═══════════════════════════

CREATE TABLE stripe_customers (                 -- whom Stripe knows: a tenant, as user 0, or one of its users
  tenant_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL DEFAULT 0,
  customer TEXT UNIQUE,                         -- null until Stripe has answered
  idempotency_key TEXT NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE stripe_prices (                    -- of tiers; one for each amount that ever was asked
  tier TEXT NOT NULL,
  price_cents INTEGER NOT NULL,
  price TEXT NOT NULL UNIQUE,
  PRIMARY KEY (tier, price_cents)
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriptions (                    -- as Stripe last said
  tenant_id INTEGER PRIMARY KEY,
  subscription TEXT NOT NULL UNIQUE,
  tier TEXT NOT NULL,                           -- of the price that is paid from the next period on
  status TEXT NOT NULL,
  price_cents INTEGER NOT NULL,                 -- a month
  held_tier TEXT,                               -- what is paid for until `held_until`, where somebody goes down
  held_until TEXT,
  cancel_at_period_end INTEGER NOT NULL,
  current_period_start TEXT NOT NULL,
  current_period_end TEXT NOT NULL,
  fetched_at TEXT NOT NULL                      -- when Stripe was asked: an answer to an earlier question changes nothing
) STRICT;

CREATE TABLE plan_grants (                      -- plans that an administrator of the host gave
  tenant_id INTEGER PRIMARY KEY,
  tier TEXT NOT NULL,
  granted_by TEXT NOT NULL,
  granted_at TEXT NOT NULL,
  until TEXT
) STRICT;

CREATE TABLE plan_days (                        -- tasks that were made, by local day
  tenant_id INTEGER NOT NULL,
  day TEXT NOT NULL,
  tasks INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkouts (                        -- the last one of each tenant: two that are open could both be paid
  tenant_id INTEGER PRIMARY KEY,
  tier TEXT NOT NULL,
  price TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  session TEXT,                                 -- null until Stripe has answered
  url TEXT,
  created_at TEXT NOT NULL
) STRICT;

CREATE TABLE purchases (                        -- of packages, by a buyer or as a top-up
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL DEFAULT 0,           -- whose credits; tokens are the tenant's
  kind TEXT NOT NULL,
  package TEXT NOT NULL,
  amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
  units INTEGER NOT NULL CHECK (units > 0),     -- tokens, or millionths of a dollar
  status TEXT NOT NULL,
  slot TEXT,                                    -- of a top-up: its month and number
  request_key TEXT,                             -- what the client calls it
  idempotency_key TEXT NOT NULL UNIQUE,
  payment_intent TEXT UNIQUE,
  refunded_units INTEGER NOT NULL DEFAULT 0,    -- taken back
  error TEXT,
  created_at TEXT NOT NULL,
  paid_at TEXT,
  CHECK (kind IN ('tokens', 'credits') AND status IN ('open', 'charging', 'paid', 'failed'))
) STRICT;
-- billing.under_way: one top-up at a time
CREATE UNIQUE INDEX idx_purchases_charging_by_user_id_kind ON purchases (tenant_id, user_id, kind) WHERE status = 'charging';
-- billing.taken_slots: a slot of a month is used once
CREATE UNIQUE INDEX idx_purchases_by_user_id_kind_slot ON purchases (tenant_id, user_id, kind, slot) WHERE slot IS NOT NULL;
-- billing.asked_before
CREATE UNIQUE INDEX idx_purchases_by_request_key ON purchases (tenant_id, request_key) WHERE request_key IS NOT NULL;

CREATE TABLE topups (                           -- what is bought by itself: tokens of a tenant, as user 0, or credits of a user
  tenant_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL DEFAULT 0,
  kind TEXT NOT NULL,
  enabled INTEGER NOT NULL,
  threshold INTEGER NOT NULL,                   -- tokens, or cents
  package TEXT NOT NULL,
  max_monthly INTEGER NOT NULL,
  payment_method TEXT,                          -- null until there is one
  brand TEXT,
  last4 TEXT,
  setup_key TEXT NOT NULL,                      -- under which Stripe is asked to take one in
  last_error TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, user_id, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE credit_accounts (                  -- of users
  tenant_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL,
  balance_micros INTEGER NOT NULL CHECK (balance_micros >= 0),
  updated_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE credit_ledger (                    -- append-only
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('purchase', 'consume', 'refund')),
  amount_micros INTEGER NOT NULL CHECK (amount_micros <> 0),
  balance_after_micros INTEGER NOT NULL CHECK (balance_after_micros >= 0),
  reference_id TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;
-- billing.move_credits: each movement once
CREATE UNIQUE INDEX idx_credit_ledger_by_user_id_type_reference_id ON credit_ledger (tenant_id, user_id, type, reference_id);
CREATE TRIGGER credit_ledger_stays BEFORE DELETE ON credit_ledger BEGIN
  SELECT RAISE(ABORT, 'the ledger of credits is append-only');
END;
CREATE TRIGGER credit_ledger_stays_as_it_is BEFORE UPDATE ON credit_ledger BEGIN
  SELECT RAISE(ABORT, 'the ledger of credits is append-only');
END;

CREATE TABLE billing_events (                   -- what Stripe told, without what it was about: that is asked anew
  id TEXT PRIMARY KEY,
  type TEXT NOT NULL,
  object TEXT NOT NULL,                         -- its id
  created_at TEXT NOT NULL,
  received_at TEXT NOT NULL,
  outcome TEXT                                  -- null until it is done
) STRICT, WITHOUT ROWID;
-- billing.forget_events
CREATE INDEX idx_billing_events_by_received_at ON billing_events (received_at);

-- ══════════════════════════════ once ═════════════════════════════

CREATE TABLE public_answers (                   -- what a request with an Idempotency-Key was answered, for a day
  tenant_id INTEGER NOT NULL,
  principal TEXT NOT NULL,                      -- who asked: another's key of the same text is another key
  key TEXT NOT NULL,
  fingerprint BLOB NOT NULL,                    -- SHA-256 of the operation and its body
  status INTEGER NOT NULL,
  body TEXT NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (tenant_id, principal, key)
) STRICT, WITHOUT ROWID;
-- once.forget
CREATE INDEX idx_public_answers_by_created_at ON public_answers (created_at);
CREATE TRIGGER public_answers_weighed AFTER INSERT ON public_answers BEGIN
  UPDATE tenant_shares SET bytes = bytes + 200 + octet_length(new.body) WHERE tenant_id = new.tenant_id;
END;
CREATE TRIGGER public_answers_lifted AFTER DELETE ON public_answers BEGIN
  UPDATE tenant_shares SET bytes = bytes - 200 - octet_length(old.body) WHERE tenant_id = old.tenant_id;
END;
CREATE TRIGGER public_answers_reweighed AFTER UPDATE OF body ON public_answers BEGIN
  UPDATE tenant_shares SET bytes = bytes + octet_length(new.body) - octet_length(old.body) WHERE tenant_id = new.tenant_id;
END;
