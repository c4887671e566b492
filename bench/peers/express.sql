-- What Express works on: the columns of our own tables, and the indexes that its requests need.
CREATE TABLE api_keys (
  id text PRIMARY KEY,
  tenant_id integer NOT NULL,
  hash bytea NOT NULL UNIQUE,
  name text NOT NULL,
  scopes jsonb NOT NULL,
  is_active boolean NOT NULL DEFAULT true,
  expires_at timestamptz,
  revoked_at timestamptz,
  deleted_at timestamptz
);

CREATE TABLE tasks (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id integer NOT NULL,
  title text NOT NULL,
  title_key text NOT NULL,
  description text NOT NULL DEFAULT '',
  type text NOT NULL DEFAULT 'other',
  status text NOT NULL DEFAULT 'todo',
  priority text NOT NULL DEFAULT 'P2',
  assignee text,
  product_slug text,
  category text,
  tags text,
  estimated_minutes integer,
  due_date text,
  max_duration_seconds integer NOT NULL DEFAULT 3600,
  resolution text,
  last_error text,
  job_id bigint,
  created_by text NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  finished_at timestamptz(3)
);
CREATE INDEX tasks_by_tenant ON tasks (tenant_id, id);

CREATE TABLE jobs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id integer NOT NULL,
  queue text NOT NULL,
  task_type text NOT NULL,
  payload jsonb NOT NULL DEFAULT '{}',
  priority integer NOT NULL DEFAULT 0,
  state text NOT NULL CHECK (state IN ('waiting', 'delayed', 'active', 'completed', 'failed', 'cancelled', 'dead')),
  attempt integer NOT NULL DEFAULT 0,
  max_attempts integer NOT NULL DEFAULT 3,
  backoff_kind text NOT NULL DEFAULT 'exponential',
  backoff_ms integer NOT NULL DEFAULT 5000,
  timeout_seconds integer NOT NULL DEFAULT 300,
  idempotency_key text,
  run_at timestamptz(3),
  lease_token text,
  lease_expires_at timestamptz(3),
  worker_id text,
  progress jsonb,
  result jsonb,
  error text,
  held_for text,
  schedule text,
  tokens_used bigint NOT NULL DEFAULT 0,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  claimed_at timestamptz(3),
  finished_at timestamptz(3)
);
CREATE UNIQUE INDEX jobs_once ON jobs (tenant_id, queue, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_next ON jobs (tenant_id, queue, priority, id) WHERE state = 'waiting';
CREATE INDEX jobs_leased ON jobs (lease_expires_at) WHERE state = 'active';
CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 'delayed';
CREATE INDEX jobs_finished ON jobs (tenant_id, state, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_by_tenant ON jobs (tenant_id, id);
