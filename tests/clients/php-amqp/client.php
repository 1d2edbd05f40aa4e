<?php
// The cases of tests/clients/README.md, done by the extension php-amqp (its versions 1 and 2).

require __DIR__ . '/../steps/steps.php';

if (!extension_loaded('amqp')) {
    fwrite(STDERR, "the extension amqp is not there; `make deps` installs what the tests need\n");
    exit(1);
}

function connect(int $heartbeat = 0): AMQPConnection
{
    $connection = new AMQPConnection([
        'host' => HOST,
        'port' => PORT,
        'login' => 'guest',
        'password' => PASSWORD,
        'vhost' => VHOST,
        'heartbeat' => $heartbeat,
        'connect_timeout' => 10,
        'read_timeout' => 60,
        'write_timeout' => 60,
        'rpc_timeout' => 60,
    ]);
    $connection->connect();
    return $connection;
}

function queue(AMQPChannel $channel, string $name, int $flags = AMQP_NOPARAM): AMQPQueue
{
    $queue = new AMQPQueue($channel);
    $queue->setFlags($flags);
    if ($name !== '') {
        $queue->setName($name);
    }
    return $queue;
}

/** Declares a queue and gives it. */
function declared(AMQPChannel $channel, string $name, int $flags = AMQP_NOPARAM): AMQPQueue
{
    $queue = queue($channel, $name, $flags);
    $queue->declareQueue();
    return $queue;
}

function exchange(AMQPChannel $channel, string $name = ''): AMQPExchange
{
    $exchange = new AMQPExchange($channel);
    if ($name !== '') {
        $exchange->setName($name);
    }
    return $exchange;
}

function declare_all(AMQPChannel $channel): array
{
    $durable = declared($channel, 'durable', AMQP_DURABLE);
    $generated = declared($channel, '');
    $exclusive = declared($channel, 'exclusive', AMQP_EXCLUSIVE);
    $events = exchange($channel, 'events');
    $events->setType(AMQP_EX_TYPE_TOPIC);
    $events->declareExchange();
    $durable->bind('events', 'job.#');
    $other = connect();
    $locked = 0;
    try {
        declared(new AMQPChannel($other), 'exclusive', AMQP_PASSIVE);
    } catch (AMQPQueueException $e) {
        $locked = $e->getCode();
    }
    $other->disconnect();
    report('declare', [
        'durable' => $durable->getName(),
        'exclusive' => $exclusive->getName(),
        'generated' => str_starts_with($generated->getName(), 'amq.gen-'),
        'locked' => $locked,
    ]);
    return [$durable, $generated, $exclusive, $events];
}

function publish(AMQPChannel $channel, AMQPExchange $events): void
{
    $waiting = array_fill_keys(range(1, MESSAGES), true);
    $nacked = 0;
    // A callback that returns false ends the wait.
    $acked = function (int $tag, bool $multiple) use (&$waiting) {
        unset($waiting[$tag]);
        if ($multiple) {
            $waiting = array_filter($waiting, fn($other) => $other > $tag, ARRAY_FILTER_USE_KEY);
        }
        return $waiting !== [];
    };
    $channel->setConfirmCallback($acked, function () use (&$nacked) {
        $nacked++;
        return false;
    });
    $channel->confirmSelect();
    for ($n = 0; $n < MESSAGES; $n++) {
        $properties = ['delivery_mode' => 2, 'headers' => ['n' => $n]];
        $events->publish("message $n", "job.$n", AMQP_NOPARAM, $properties);
    }
    $channel->waitForConfirm(60);
    report('publish', ['confirmed' => MESSAGES - count($waiting), 'nacked' => $nacked]);
    $channel->setConfirmCallback(fn() => false, fn() => false);
}

function consume(AMQPChannel $channel, AMQPQueue $durable): void
{
    $received = $redelivered = 0;
    $inOrder = true;
    $channel->setPrefetchCount(50);
    $durable->consume(function (AMQPEnvelope $message, AMQPQueue $queue) use (&$received, &$redelivered, &$inOrder) {
        $inOrder = $inOrder && $message->getBody() === "message $received" && $message->getHeader('n') === $received;
        $redelivered += $message->isRedelivery() ? 1 : 0;
        $received++;
        $queue->ack($message->getDeliveryTag());
        return $received < MESSAGES;
    });
    $durable->cancel();
    $left = queue($channel, 'durable', AMQP_PASSIVE)->declareQueue();
    report('consume', [
        'received' => $received,
        'in_order' => $inOrder,
        'redelivered' => $redelivered,
        'left' => $left,
    ]);
}

function get(AMQPChannel $channel, AMQPQueue $generated): void
{
    exchange($channel)->publish('got', $generated->getName());
    $channel->waitForConfirm(60);
    $message = $generated->get();
    $generated->ack($message->getDeliveryTag());
    // Version 1 gives false for nothing, version 2 gives null.
    $empty = !$generated->get();
    report('get', [
        'body' => $message->getBody(),
        'count' => null,
        'empty' => $empty,
        'note' => 'The extension does not tell how many messages are left.',
    ]);
}

function unroutable(AMQPChannel $channel): void
{
    $fields = [];
    $returned = function ($code, $text, $exchange, $key, $properties, $body) use (&$fields) {
        $fields = ['code' => $code, 'text' => $text, 'exchange' => $exchange, 'key' => $key, 'body' => $body];
        return false;
    };
    $channel->setReturnCallback($returned);
    exchange($channel)->publish('lost', 'nowhere', AMQP_MANDATORY);
    $channel->waitForBasicReturn(60);
    $channel->waitForConfirm(60);
    report('return', $fields);
}

function next_message(AMQPQueue $source): string
{
    $got = null;
    $source->consume(function (AMQPEnvelope $message, AMQPQueue $queue) use (&$got) {
        $got = $message->getBody();
        $queue->ack($message->getDeliveryTag());
        return false;
    });
    $source->cancel();
    return $got;
}

function job(): void
{
    $connection = connect();
    $channel = new AMQPChannel($connection);
    report('connect', ['product' => null, 'note' => 'The extension does not tell the properties of the server.']);
    [$durable, $generated, $exclusive, $events] = declare_all($channel);
    publish($channel, $events);
    consume($channel, $durable);
    get($channel, $generated);
    unroutable($channel);
    exchange($channel)->publish(large(), 'exclusive');
    $channel->waitForConfirm(60);
    report_large(next_message($exclusive));
    $durable->delete();
    $events->delete();
    $channel->close();
    $connection->disconnect();
    report('close', ['clean' => !$connection->isConnected()]);
}

function refused(): void
{
    try {
        connect()->disconnect();
        report('refused', ['error' => null]);
    } catch (AMQPException $e) {
        report('refused', ['error' => get_class($e) . ': ' . $e->getMessage()]);
    }
}

function channels(): void
{
    $connection = connect();
    $opened = $queues = $received = [];
    for ($n = 0; $n < CHANNELS; $n++) {
        $opened[$n] = new AMQPChannel($connection);
    }
    foreach ($opened as $n => $channel) {
        $queues[$n] = declared($channel, "many.$n", AMQP_EXCLUSIVE);
        // Without a callback it only begins to consume.
        $queues[$n]->consume(null, AMQP_AUTOACK, "consumer.$n");
    }
    foreach ($opened as $n => $channel) {
        $to = ($n + 1) % CHANNELS;
        exchange($channel)->publish("to $to", "many.$to");
    }
    // One call takes the messages of all consumers of the connection; each comes with the queue that it is from.
    $taken = function (AMQPEnvelope $message, AMQPQueue $queue) use (&$received) {
        $received[(int) substr($queue->getName(), strlen('many.'))] = $message->getBody();
        return count($received) < CHANNELS;
    };
    $queues[0]->consume($taken, AMQP_JUST_CONSUME);
    report_channels($received);
    $connection->disconnect();
}

function prove(string $step, AMQPConnection $connection, AMQPChannel $channel): void
{
    $queue = declared($channel, '', AMQP_EXCLUSIVE);
    exchange($channel)->publish(PROOF, $queue->getName());
    // By get: after it has read heartbeats while publishing, the extension (of version 1.11 at least) fails to
    // consume with "channel mismatch", without Warren too.
    foreach (seconds_left() as $_) {
        if ($message = $queue->get(AMQP_AUTOACK)) {
            break;
        }
    }
    report($step, ['alive' => $message && $message->getBody() === PROOF]);
    $connection->disconnect();
}

function busy(): void
{
    $connection = connect(HEARTBEAT);
    $channel = new AMQPChannel($connection);
    $exchange = exchange($channel);
    foreach (seconds_left() as $_) {
        for ($n = 0; $n < BURST; $n++) {
            $exchange->publish(str_repeat('x', 100), 'nowhere');
        }
        usleep(PAUSE);
    }
    prove('busy', $connection, $channel);
}

/** The extension sends heartbeats only while it waits in a call, so it waits for a message that comes late. */
function idle(): void
{
    $connection = connect(HEARTBEAT);
    $channel = new AMQPChannel($connection);
    $late = declared($channel, 'late', AMQP_EXCLUSIVE);
    $early = queue($channel, 'early', AMQP_EXCLUSIVE);
    $early->setArguments([
        'x-message-ttl' => HEARTBEATS_FOR * 1000,
        'x-dead-letter-exchange' => '',
        'x-dead-letter-routing-key' => 'late',
    ]);
    $early->declareQueue();
    exchange($channel)->publish('late', 'early');
    next_message($late) === 'late' || exit(1);
    prove('idle', $connection, $channel);
}

run_case();
