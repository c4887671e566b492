// plainjob on better-sqlite3: add jobs one by one, then take and finish each by the queue's own verbs, without its worker's loop,
// which would only cost it time. Prints {"submit": …, "work": …} a second. plainjob.mjs FILE CALLS
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(process.env.PEER_HOME + "/");
const Database = require("better-sqlite3");
const {better, defineQueue} = await import(pathToFileURL(process.env.PEER_HOME + "/node_modules/plainjob/dist/plainjob.js"));
const [file, calls] = [process.argv[2], Number(process.argv[3])];
const quiet = {error: console.error, warn() {}, info() {}, debug() {}};
const queue = defineQueue({connection: better(new Database(file)), logger: quiet});

let began = performance.now();
for (let n = 0; n < calls; n++) queue.add("t", {n});
const submit = calls / ((performance.now() - began) / 1000);

began = performance.now();
let done = 0;
for (let taken; (taken = queue.getAndMarkJobAsProcessing("t")); done++) {
  queue.getJobById(taken.id);
  queue.markJobAsDone(taken.id);
}
if (done !== calls) throw new Error(`${done} of ${calls} jobs were done`);
console.log(JSON.stringify({submit, work: calls / ((performance.now() - began) / 1000)}));
queue.close();
process.exit(0);
