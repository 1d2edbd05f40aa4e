// What the Node clients of tests/clients/README.md share: arguments, numbers, and the lines that they report.
'use strict';

const { createHash } = require('node:crypto');

const [chosen, host, port, vhost, password] = process.argv.slice(2);
const LARGE_SIZE = 10 * 1024 * 1024;
const CHANNELS = 20;
// Seconds.
const HEARTBEATS_FOR = 10;

const report = (step, fields) => console.log(JSON.stringify({ step, ...fields }));
const sleep = (seconds) => new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });

module.exports = {
  host,
  port: Number(port),
  vhost,
  password,
  MESSAGES: 1000,
  CHANNELS,
  HEARTBEAT: 2,
  HEARTBEATS_FOR,
  BURST: 5,
  PAUSE: 0.005,
  PROOF: 'still here',
  LARGE: Buffer.alloc(LARGE_SIZE, Buffer.from(Array.from({ length: 251 }, (_, i) => i))),
  report,
  sleep,

  reportLarge(body) {
    report('large', { size: body.length, sha256: createHash('sha256').update(body).digest('hex') });
  },

  // `received` holds the text that came on each channel.
  reportChannels(received) {
    const right = received.every((text, n) => text === `to ${n}`);
    report('channels', { open: CHANNELS, received: received.length, right });
  },

  // Does something again and again while a case with heartbeats goes on.
  async whileHeartbeatsCount(act) {
    const end = performance.now() + HEARTBEATS_FOR * 1000;
    while (performance.now() < end) await act();
  },

  run(cases) {
    cases[chosen]().catch((error) => {
      console.error(error);
      process.exit(1);
    });
  },
};
