// BullMQ on Redis, in one process: add jobs one by one, then work them off. Prints {"submit": …, "work": …} a second.
// bullmq.mjs PORT CALLS CALLERS
import {createRequire} from "node:module";

const {Queue, Worker} = createRequire(process.env.PEER_HOME + "/")("bullmq");
const [port, calls, callers] = process.argv.slice(2).map(Number);
const connection = {port, host: "127.0.0.1", maxRetriesPerRequest: null};
const queue = new Queue("bench", {connection});
await queue.waitUntilReady();

let began = performance.now();
await Promise.all(Array.from({length: callers}, async () => {
  for (let n = 0; n < calls / callers; n++) await queue.add("t", {n});
}));
const submit = calls / ((performance.now() - began) / 1000);

began = performance.now();
let done = 0;
await new Promise((resolve) => {
  const worker = new Worker("bench", async () => "ok", {connection, concurrency: callers});
  worker.on("completed", () => { if (++done === calls) resolve(worker.close()); });
});
console.log(JSON.stringify({submit, work: calls / ((performance.now() - began) / 1000)}));
process.exit(0);
