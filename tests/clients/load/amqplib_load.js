// Publishes and consumes with amqplib until standard input ends: load HOST PORT QUEUE NAME.
// Writes a line for what happened to each message: acked ID, nacked ID, got ID; at the end: done.
const amqp = require("amqplib");

const [host, port, queue, name] = process.argv.slice(2);
const say = (...words) => process.stdout.write(words.join(" ") + "\n");
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let stopping = false;
process.stdin.on("end", () => (stopping = true)).resume();

async function connect() {
  const connection = await amqp.connect(`amqp://${host}:${port}`);
  connection.on("error", (e) => fail(e));
  connection.on("close", () => stopping || fail(new Error("closed")));
  return connection;
}

function fail(error) {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}

async function publish() {
  const connection = await connect();
  const channel = await connection.createConfirmChannel();
  channel.on("error", fail);
  let open = 0;
  for (let n = 1; !stopping; n++) {
    const message = `${name}-${n}`;
    open++;
    channel.sendToQueue(queue, Buffer.from(message), { persistent: true }, (error) => {
      open--;
      say(error ? "nacked" : "acked", message);
    });
    do await sleep(5); while (open >= 20 && !stopping);
  }
  while (open > 0) await sleep(5);
  await connection.close();
}

async function consume() {
  const connection = await connect();
  const channel = await connection.createChannel();
  channel.on("error", fail);
  await channel.prefetch(10);
  await channel.consume(queue, (message) => {
    if (message === null) return fail(new Error("cancelled"));
    say("got", message.content.toString());
    channel.ack(message);
  });
  while (!stopping) await sleep(50);
  await connection.close();
}

Promise.all([publish(), consume()]).then(() => { say("done"); process.exit(0); }, fail);
