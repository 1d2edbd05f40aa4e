// The cases of tests/clients/README.md, done by node's amqplib.
'use strict';

const amqp = require('amqplib');
const steps = require('../steps/steps.js');

const { report } = steps;

const connect = (heartbeat) => amqp.connect({
  hostname: steps.host,
  port: steps.port,
  vhost: steps.vhost,
  username: 'guest',
  password: steps.password,
  heartbeat,
});

async function declare(channel) {
  const durable = await channel.assertQueue('durable', { durable: true });
  const generated = await channel.assertQueue('', { durable: false });
  const exclusive = await channel.assertQueue('exclusive', { exclusive: true });
  await channel.assertExchange('events', 'topic', { durable: false });
  await channel.bindQueue('durable', 'events', 'job.#');
  const other = await connect();
  const channelOfOther = await other.createChannel();
  channelOfOther.on('error', () => {});
  const locked = await channelOfOther.checkQueue('exclusive').then(() => 0, (error) => error.code);
  await other.close();
  report('declare', {
    durable: durable.queue,
    exclusive: exclusive.queue,
    generated: generated.queue.startsWith('amq.gen-'),
    locked,
  });
  return generated.queue;
}

async function publish(channel) {
  let confirmed = 0;
  let nacked = 0;
  for (let n = 0; n < steps.MESSAGES; n++) {
    const options = { persistent: true, headers: { n } };
    channel.publish('events', `job.${n}`, Buffer.from(`message ${n}`), options, (error) => {
      if (error) nacked++;
      else confirmed++;
    });
  }
  await channel.waitForConfirms();
  report('publish', { confirmed, nacked });
}

async function consume(channel) {
  let received = 0;
  let redelivered = 0;
  let inOrder = true;
  await channel.prefetch(50);
  let tag;
  await new Promise((resolve, reject) => {
    const taken = (message) => {
      if (message === null) {
        reject(new Error('the server cancelled the consumer'));
        return;
      }
      inOrder &&= message.content.toString() === `message ${received}` && message.properties.headers.n === received;
      redelivered += message.fields.redelivered ? 1 : 0;
      received++;
      channel.ack(message);
      if (received === steps.MESSAGES) resolve();
    };
    channel.consume('durable', taken).then((ok) => { tag = ok.consumerTag; }, reject);
  });
  await channel.cancel(tag);
  const left = (await channel.checkQueue('durable')).messageCount;
  report('consume', { received, in_order: inOrder, redelivered, left });
}

async function get(channel, queue) {
  channel.sendToQueue(queue, Buffer.from('got'));
  await channel.waitForConfirms();
  const message = await channel.get(queue);
  channel.ack(message);
  const empty = await channel.get(queue);
  report('get', { body: message.content.toString(), count: message.fields.messageCount, empty: empty === false });
}

async function unroutable(channel) {
  const returned = new Promise((resolve) => { channel.once('return', resolve); });
  channel.publish('', 'nowhere', Buffer.from('lost'), { mandatory: true });
  const { fields, content } = await returned;
  await channel.waitForConfirms();
  report('return', {
    code: fields.replyCode,
    text: fields.replyText,
    exchange: fields.exchange,
    key: fields.routingKey,
    body: content.toString(),
  });
}

async function nextMessage(channel, queue) {
  let tag;
  const body = await new Promise((resolve, reject) => {
    const taken = (message) => {
      channel.ack(message);
      resolve(message.content);
    };
    channel.consume(queue, taken).then((ok) => { tag = ok.consumerTag; }, reject);
  });
  await channel.cancel(tag);
  return body;
}

async function job() {
  const model = await connect();
  const channel = await model.createConfirmChannel();
  report('connect', { product: model.connection.serverProperties.product });
  const generated = await declare(channel);
  await publish(channel);
  await consume(channel);
  await get(channel, generated);
  await unroutable(channel);
  channel.sendToQueue('exclusive', steps.LARGE);
  await channel.waitForConfirms();
  steps.reportLarge(await nextMessage(channel, 'exclusive'));
  await channel.deleteQueue('durable');
  await channel.deleteExchange('events');
  await channel.close();
  const closed = new Promise((resolve) => { model.once('close', resolve); });
  await model.close();
  report('close', { clean: (await closed) === undefined });
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
  const model = await connect();
  const opened = await Promise.all(Array.from({ length: steps.CHANNELS }, () => model.createChannel()));
  const received = await Promise.all(opened.map(async (channel, n) => {
    await channel.assertQueue(`many.${n}`, { exclusive: true });
    return { body: nextMessage(channel, `many.${n}`) };
  }));
  opened.forEach((channel, n) => {
    const to = (n + 1) % steps.CHANNELS;
    channel.sendToQueue(`many.${to}`, Buffer.from(`to ${to}`));
  });
  const bodies = await Promise.all(received.map(({ body }) => body));
  steps.reportChannels(bodies.map(String));
  await model.close();
}

async function prove(step, model, channel) {
  const { queue } = await channel.assertQueue('', { exclusive: true });
  channel.sendToQueue(queue, Buffer.from(steps.PROOF));
  report(step, { alive: String(await nextMessage(channel, queue)) === steps.PROOF });
  await model.close();
}

async function busy() {
  const model = await connect(steps.HEARTBEAT);
  const channel = await model.createChannel();
  await steps.whileHeartbeatsCount(async () => {
    for (let n = 0; n < steps.BURST; n++) channel.sendToQueue('nowhere', Buffer.alloc(100));
    await steps.sleep(steps.PAUSE);
  });
  await prove('busy', model, channel);
}

async function idle() {
  const model = await connect(steps.HEARTBEAT);
  const channel = await model.createChannel();
  await steps.sleep(steps.HEARTBEATS_FOR);
  await prove('idle', model, channel);
}

steps.run({ job, refused, channels, busy, idle });
