// Express 5 with pg: the same requests as ours, each with its token looked up in the database. One process, prepared statements.
// express.mjs PORT FOLDER_OF_THE_SOCKET CONNECTIONS
import {createHash, randomBytes} from "node:crypto";
import {createRequire} from "node:module";

const require = createRequire(process.env.PEER_HOME + "/");
const express = require("express"), pg = require("pg");
const [port, host, connections] = process.argv.slice(2);
const where = {host, user: "bench", database: "postgres", max: Number(connections)};
pg.types.setTypeParser(1184, (text) => text); // a time stays the text it came as: no Date is made, only to be written out again
const pool = new pg.Pool(where);
const relaxed = new pg.Pool({...where, options: "-c synchronous_commit=off"}); // a claim that a power cut undoes is only made again
for (const one of [pool, relaxed]) one.on("error", (error) => console.error(error.message));

const KEY = `SELECT id, tenant_id, scopes FROM api_keys WHERE hash = $1 AND is_active AND revoked_at IS NULL AND deleted_at IS NULL
               AND (expires_at IS NULL OR expires_at > now())`;
const LIST = `SELECT id, title, description, type, status, priority, assignee, product_slug, category, tags, estimated_minutes, due_date,
                     max_duration_seconds, resolution, last_error, job_id, created_by, created_at, updated_at, finished_at
                FROM tasks WHERE tenant_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3`;
const TOTAL = "SELECT count(*)::int AS total FROM tasks WHERE tenant_id = $1";
const SUBMIT = `INSERT INTO jobs (tenant_id, queue, task_type, payload, priority, state, max_attempts, timeout_seconds, idempotency_key)
                VALUES ($1, $2, $3, $4, $5, 'waiting', $6, $7, $8) ON CONFLICT DO NOTHING RETURNING *`;
const SAME = "SELECT * FROM jobs WHERE tenant_id = $1 AND queue = $2 AND idempotency_key = $3";
const CLAIM = `UPDATE jobs SET state = 'active', attempt = attempt + 1, progress = NULL, worker_id = $3, claimed_at = now(), lease_token = $4,
                      lease_expires_at = now() + timeout_seconds * interval '1 second'
                WHERE id = (SELECT id FROM jobs WHERE tenant_id = $1 AND queue = $2 AND state = 'waiting'
                             ORDER BY priority, id FOR UPDATE SKIP LOCKED LIMIT 1)
            RETURNING id, task_type, queue, payload, priority, attempt, max_attempts, lease_token, lease_expires_at`;
const ask = (of, name, text, values) => of.query({name, text, values});

const app = express();
app.disable("x-powered-by");
app.disable("etag"); // ours makes none
app.use(express.json());
app.get("/api/health", async (request, response) => {
  if (request.query.database) await ask(pool, "alive", "SELECT 1", []);
  response.json({status: "ok", uptime: Math.floor(process.uptime())});
});

app.use(async (request, response, next) => {
  const token = (request.get("authorization") ?? "").replace(/^Bearer /, "");
  const {rows} = await ask(pool, "key", KEY, [createHash("sha256").update(token).digest()]);
  if (!rows.length) return response.status(401).json({error: {code: "unauthorized", message: "That token is unknown"}});
  request.key = rows[0];
  next();
});

app.get("/api/tasks", async (request, response) => {
  const limit = Math.min(Number(request.query.limit ?? 20), 200), offset = Number(request.query.offset ?? 0);
  const list = ask(pool, "list", LIST, [request.key.tenant_id, limit, offset]);
  if (!request.query.total) return response.json({data: (await list).rows, limit, offset});
  const [found, counted] = await Promise.all([list, ask(pool, "total", TOTAL, [request.key.tenant_id])]);
  response.json({data: found.rows, total: counted.rows[0].total, limit, offset});
});

app.post("/api/task-queue/submit", async (request, response) => {
  const {task_type, payload = {}, queue_name = "default", priority = 0, max_attempts = 3, timeout_seconds = 300, idempotency_key = null} = request.body;
  if (typeof task_type !== "string" || !task_type) return response.status(400).json({error: {code: "invalid", message: "task_type is missing"}});
  const tenant = request.key.tenant_id;
  const {rows} = await ask(pool, "submit", SUBMIT, [tenant, queue_name, task_type, payload, priority, max_attempts, timeout_seconds, idempotency_key]);
  if (rows.length) return response.status(201).json({data: rows[0]});
  const same = await ask(pool, "same", SAME, [tenant, queue_name, idempotency_key]);
  response.json({data: same.rows[0], meta: {duplicate: true}});
});

app.post("/api/task-queue/claim", async (request, response) => {
  const {worker_id, queue_name = "default"} = request.body;
  const {rows} = await ask(relaxed, "claim", CLAIM, [request.key.tenant_id, queue_name, worker_id, randomBytes(16).toString("hex")]);
  response.json({data: rows[0] ?? null});
});

app.listen(Number(port), "127.0.0.1");
