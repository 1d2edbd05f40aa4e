// The cases of tests/clients/README.md, done by @cloudamqp/amqp-client.
'use strict';

const { AMQPClient } = require('@cloudamqp/amqp-client');
const steps = require('../steps/steps.js');

const { report } = steps;

function connect(heartbeat = 0) {
  const vhost = encodeURIComponent(steps.vhost);
  const url = `amqp://guest:${steps.password}@${steps.host}:${steps.port}/${vhost}?heartbeat=${heartbeat}`;
  return new AMQPClient(url, undefined, null).connect();
}

async function declare(channel) {
  const durable = await channel.queueDeclare('durable', { durable: true });
  const generated = await channel.queueDeclare('', { durable: false, exclusive: false, autoDelete: false });
  const exclusive = await channel.queueDeclare('exclusive', { exclusive: true });
  await channel.exchangeDeclare('events', 'topic', { durable: false });
  await channel.queueBind('durable', 'events', 'job.#');
  const other = await connect();
  const channelOfOther = await other.channel();
  // The library gives the reply code within the text of its error.
  const locked = await channelOfOther.queueDeclare('exclusive', { passive: true }).then(
    () => 0,
    (error) => Number(/\((\d{3})\)/.exec(error.message)?.[1] ?? 0),
  );
  await other.close();
  report('declare', {
    durable: durable.name,
    exclusive: exclusive.name,
    generated: generated.name.startsWith('amq.gen-'),
    locked,
  });
  return generated.name;
}

async function publish(channel) {
  await channel.confirmSelect();
  const answers = [];
  for (let n = 0; n < steps.MESSAGES; n++) {
    answers.push(channel.basicPublish('events', `job.${n}`, `message ${n}`, { deliveryMode: 2, headers: { n } }));
  }
  const settled = await Promise.allSettled(answers);
  const confirmed = settled.filter(({ status }) => status === 'fulfilled').length;
  report('publish', { confirmed, nacked: settled.length - confirmed });
}

async function consume(channel) {
  let received = 0;
  let redelivered = 0;
  let inOrder = true;
  await channel.prefetch(50);
  const consumer = await channel.basicConsume('durable', { noAck: false });
  for await (const message of consumer.messages) {
    inOrder &&= message.bodyString() === `message ${received}` && message.properties.headers.n === received;
    redelivered += message.redelivered ? 1 : 0;
    received++;
    await message.ack();
    if (received === steps.MESSAGES) break;
  }
  await consumer.cancel();
  const left = (await channel.queueDeclare('durable', { passive: true })).messageCount;
  report('consume', { received, in_order: inOrder, redelivered, left });
}

async function get(channel, queue) {
  await channel.basicPublish('', queue, 'got');
  const message = await channel.basicGet(queue, { noAck: false });
  await message.ack();
  const empty = await channel.basicGet(queue);
  report('get', { body: message.bodyString(), count: message.messageCount, empty: empty === null });
}

async function unroutable(channel) {
  const returned = new Promise((resolve) => { channel.onReturn = resolve; });
  await channel.basicPublish('', 'nowhere', 'lost', {}, true);
  const message = await returned;
  report('return', {
    code: message.replyCode,
    text: message.replyText,
    exchange: message.exchange,
    key: message.routingKey,
    body: message.bodyString(),
  });
}

async function nextMessage(channel, queue) {
  const consumer = await channel.basicConsume(queue, { noAck: false });
  for await (const message of consumer.messages) {
    await message.ack();
    await consumer.cancel();
    return Buffer.from(message.body);
  }
  throw new Error(`no message came from ${queue}`);
}

async function job() {
  const client = await connect();
  const channel = await client.channel();
  report('connect', {
    product: null,
    note: 'The library keeps the properties of the server to itself.',
  });
  const generated = await declare(channel);
  await publish(channel);
  await consume(channel);
  await get(channel, generated);
  await unroutable(channel);
  await channel.basicPublish('', 'exclusive', steps.LARGE);
  steps.reportLarge(await nextMessage(channel, 'exclusive'));
  await channel.queueDelete('durable');
  await channel.exchangeDelete('events');
  await channel.close();
  await client.close();
  report('close', { clean: client.closed });
}

async function refused() {
  try {
    await (await connect()).close();
    report('refused', { error: null });
  } catch (error) {
    report('refused', { error: String(error) });
  }
}

async function channels() {
  const client = await connect();
  const opened = await Promise.all(Array.from({ length: steps.CHANNELS }, () => client.channel()));
  const received = await Promise.all(opened.map(async (channel, n) => {
    await channel.queueDeclare(`many.${n}`, { exclusive: true });
    return { body: nextMessage(channel, `many.${n}`) };
  }));
  await Promise.all(opened.map((channel, n) => {
    const to = (n + 1) % steps.CHANNELS;
    return channel.basicPublish('', `many.${to}`, `to ${to}`);
  }));
  const bodies = await Promise.all(received.map(({ body }) => body));
  steps.reportChannels(bodies.map(String));
  await client.close();
}

async function prove(step, client, channel) {
  const { name } = await channel.queueDeclare('', { exclusive: true });
  await channel.basicPublish('', name, steps.PROOF);
  report(step, { alive: String(await nextMessage(channel, name)) === steps.PROOF });
  await client.close();
}

async function busy() {
  const client = await connect(steps.HEARTBEAT);
  const channel = await client.channel();
  await steps.whileHeartbeatsCount(async () => {
    for (let n = 0; n < steps.BURST; n++) await channel.basicPublish('', 'nowhere', Buffer.alloc(100));
    await steps.sleep(steps.PAUSE);
  });
  await prove('busy', client, channel);
}

async function idle() {
  const client = await connect(steps.HEARTBEAT);
  const channel = await client.channel();
  await steps.sleep(steps.HEARTBEATS_FOR);
  await prove('idle', client, channel);
}

steps.run({ job, refused, channels, busy, idle });
