// The job of tests/clients/README.md, done by node's amqplib.
'use strict';

const amqp = require('amqplib');
const { createHash } = require('node:crypto');

const [hostname, port, vhost] = process.argv.slice(2);
const MESSAGES = 1000;
const LARGE = Buffer.alloc(10 * 1024 * 1024, Buffer.from(Array.from({ length: 251 }, (_, i) => i)));

const report = (step, fields) => console.log(JSON.stringify({ step, ...fields }));

const connect = () => amqp.connect({ hostname, port: Number(port), vhost, username: 'guest', password: 'guest' });

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
  for (let n = 0; n < MESSAGES; n++) {
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
      if (received === MESSAGES) resolve();
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
  const returned = new Promise((resolve) => channel.once('return', resolve));
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

async function large(channel) {
  channel.sendToQueue('exclusive', LARGE);
  await channel.waitForConfirms();
  let tag;
  const body = await new Promise((resolve, reject) => {
    const taken = (message) => {
      channel.ack(message);
      resolve(message.content);
    };
    channel.consume('exclusive', taken).then((ok) => { tag = ok.consumerTag; }, reject);
  });
  await channel.cancel(tag);
  report('large', { size: body.length, sha256: createHash('sha256').update(body).digest('hex') });
}

async function main() {
  const model = await connect();
  const channel = await model.createConfirmChannel();
  report('connect', { product: model.connection.serverProperties.product });
  const generated = await declare(channel);
  await publish(channel);
  await consume(channel);
  await get(channel, generated);
  await unroutable(channel);
  await large(channel);
  await channel.deleteQueue('durable');
  await channel.deleteExchange('events');
  await channel.close();
  const closed = new Promise((resolve) => model.once('close', resolve));
  await model.close();
  report('close', { clean: (await closed) === undefined });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
