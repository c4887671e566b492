// Sixty steps against the real BullMQ on Redis, and what it said: `node bench/bullmq_transcript.mjs PEERS_HOME REDIS_PORT > tests/bullmq.json`.
//
// Each step is what a program does - submit, work, pause, promote, retry, clean - and after it stands what the queue looks like: the counts, and the
// jobs of every state with what is not a matter of the moment. tests/test_bull_transcript.py does the same steps here and compares.
import { createRequire } from 'node:module'
const require = createRequire(`${process.argv[2]}/node_modules/`)
const { Queue, Worker } = require('bullmq')
const connection = { host: '127.0.0.1', port: Number(process.argv[3]) }
const version = require('bullmq/package.json').version
const STATES = ['waiting', 'active', 'completed', 'failed', 'delayed', 'paused', 'prioritized']

const queue = new Queue('t', { connection })
const worker = new Worker('t', null, { connection, autorun: false, lockDuration: 60000, stalledInterval: 60000 })
await queue.waitUntilReady()
await worker.waitUntilReady()
const held = new Map() // name → a job that is being worked on

const numbers = new Map() // BullMQ's own ids → the number of the step that submitted it
const known = id => (numbers.has(id) ? `#${numbers.get(id)}` : id)

function shown (job, state) {
  return { id: known(job.id), name: job.name, data: job.data, priority: job.opts.priority ?? 0, attempts: job.opts.attempts || 1,
    attempts_made: job.attemptsMade, failed_reason: job.failedReason ?? null, return_value: job.returnvalue ?? null, progress: job.progress, state }
}

async function look () {
  const counts = await queue.getJobCounts(...STATES.map(s => s === 'waiting' ? 'wait' : s))
  const jobs = {}
  for (const state of STATES) {
    const name = state === 'waiting' ? 'wait' : state
    jobs[state] = (await queue.getJobs([name], 0, -1, state !== 'completed' && state !== 'failed')).filter(Boolean).map(job => shown(job, state))
  }
  return { paused: await queue.isPaused(), counts: Object.fromEntries(STATES.map(s => [s, counts[s === 'waiting' ? 'wait' : s] ?? counts[s] ?? 0])), jobs }
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const done = {
  async submit ({ name, data = {}, ...opts }, number) {
    const given = {}
    for (const [ours, theirs] of [['priority', 'priority'], ['attempts', 'attempts'], ['backoff', 'backoff'], ['delay', 'delay'], ['job_id', 'jobId']]) {
      if (opts[ours] !== undefined) given[theirs] = opts[ours]
    }
    const job = await queue.add(name, data, given)
    if (given.jobId === undefined) numbers.set(job.id, number)
    return known(job.id)
  },
  async claim () {
    const job = await worker.getNextJob('token', { block: false })
    if (!job) return null
    held.set(job.name, job)
    return known(job.id)
  },
  async complete ({ name, result }) {
    await held.get(name).moveToCompleted(result ?? null, 'token', false)
    held.delete(name)
  },
  async fail ({ name, error }) {
    await held.get(name).moveToFailed(new Error(error), 'token', false)
    held.delete(name)
  },
  async progress ({ name, value }) { await held.get(name).updateProgress(value) },
  async pause () { await queue.pause() },
  async resume () { await queue.resume() },
  async promote ({ id }) { await (await queue.getJob(real(id))).promote() },
  async retry ({ id }) { await (await queue.getJob(real(id))).retry('failed') },
  async remove ({ id }) { await (await queue.getJob(real(id))).remove() },
  async clean ({ status, limit }) { return (await queue.clean(0, limit ?? 1000, status === 'waiting' ? 'wait' : status)).map(known) },
  async retry_all () { await queue.retryJobs({ state: 'failed' }) },
  async wait ({ ms }) { await sleep(ms) },
  async range ({ status, start, end }) { // as a page asks: completed and failed newest first, the rest next-first
    const name = status === 'waiting' ? 'wait' : status
    return (await queue.getJobs([name], start, end, status !== 'completed' && status !== 'failed')).filter(Boolean).map(job => known(job.id))
  }
}
const real = id => id.startsWith('#') ? [...numbers].find(([, number]) => `#${number}` === id)[0] : id

const STEPS = [
  ['submit', { name: 'a', data: { n: 1 } }], ['submit', { name: 'b', data: { n: 2 } }], ['submit', { name: 'c' }],
  ['submit', { name: 'low', priority: 10 }], ['submit', { name: 'high', priority: 1 }], ['submit', { name: 'mid', priority: 5 }],
  ['submit', { name: 'mine', job_id: 'mine' }], ['submit', { name: 'again', job_id: 'mine', data: { other: true } }],
  ['submit', { name: 'later', delay: 3600000 }], ['submit', { name: 'soon', delay: 1800000 }],
  ['range', { status: 'waiting', start: 0, end: -1 }], ['range', { status: 'waiting', start: 1, end: 2 }], ['range', { status: 'waiting', start: -2, end: -1 }],
  ['range', { status: 'prioritized', start: 0, end: 0 }], ['range', { status: 'delayed', start: 0, end: 1 }],
  ['claim', {}], ['progress', { name: 'a', value: 40 }], ['complete', { name: 'a', result: { ok: true } }],
  ['claim', {}], ['complete', { name: 'b', result: 'text' }], ['claim', {}], ['fail', { name: 'c', error: 'no such host' }],
  ['claim', {}], ['claim', {}], ['complete', { name: 'mine' }], ['complete', { name: 'high' }],
  ['claim', {}], ['complete', { name: 'mid' }], ['range', { status: 'completed', start: 0, end: -1 }], ['range', { status: 'completed', start: 1, end: 3 }],
  ['range', { status: 'completed', start: -2, end: -1 }],
  ['retry', { id: '#3' }], ['claim', {}], ['complete', { name: 'c', result: 3 }],
  ['pause', {}], ['submit', { name: 'p1' }], ['submit', { name: 'p2', priority: 3 }], ['claim', {}], ['resume', {}],
  ['claim', {}], ['complete', { name: 'p1' }], ['claim', {}], ['complete', { name: 'p2' }], ['claim', {}], ['complete', { name: 'low' }], ['claim', {}],
  ['promote', { id: '#9' }], ['claim', {}], ['complete', { name: 'later' }],
  ['submit', { name: 'twice', attempts: 2, backoff: 3600000 }], ['claim', {}], ['fail', { name: 'twice', error: 'first' }], ['promote', { id: '#50' }],
  ['claim', {}], ['fail', { name: 'twice', error: 'second' }],
  ['submit', { name: 'thrice', attempts: 3, backoff: { type: 'exponential', delay: 3600000 } }], ['claim', {}], ['fail', { name: 'thrice', error: 'once' }],
  ['remove', { id: '#56' }], ['retry_all', {}], ['claim', {}], ['complete', { name: 'twice' }],
  ['submit', { name: 'bad' }], ['claim', {}], ['fail', { name: 'bad', error: 'no' }], ['claim', {}], ['clean', { status: 'failed' }], ['clean', { status: 'completed', limit: 2 }], ['clean', { status: 'delayed' }],
  ['submit', { name: 'mine2', job_id: 'mine' }], ['clean', { status: 'completed' }], ['submit', { name: 'mine3', job_id: 'mine' }], ['claim', {}], ['complete', { name: 'mine3' }]
]

const steps = []
for (const [index, [verb, what]] of STEPS.entries()) {
  let answer
  try { answer = await done[verb](what, index + 1) } catch (error) { answer = { error: true } }
  await sleep(5)
  steps.push({ number: index + 1, verb, what, answer: answer ?? null, after: await look() })
}
await worker.close()
await queue.obliterate({ force: true })
await queue.close()
console.log(JSON.stringify({ bullmq: version, steps }, null, 0).replaceAll('{"number"', '\n{"number"'))
process.exit(0)
