<?php
// The cases of tests/clients/README.md, done by php-amqplib.

require 'PhpAmqpLib/autoload.php';
require __DIR__ . '/../steps/steps.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPExceptionInterface;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Exception\AMQPTimeoutException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

function connect(int $heartbeat = 0): AMQPStreamConnection
{
    return new AMQPStreamConnection(
        HOST,
        PORT,
        'guest',
        PASSWORD,
        VHOST,
        connection_timeout: 10.0,
        read_write_timeout: 60.0,
        heartbeat: $heartbeat
    );
}

function declare_all(AMQPChannel $channel): string
{
    [$durable] = $channel->queue_declare('durable', false, true, false, false);
    [$generated] = $channel->queue_declare('', false, false, false, false);
    [$exclusive] = $channel->queue_declare('exclusive', false, false, true, false);
    $channel->exchange_declare('events', 'topic', false, false, false);
    $channel->queue_bind('durable', 'events', 'job.#');
    $other = connect();
    $locked = 0;
    try {
        $other->channel()->queue_declare('exclusive', true);
    } catch (AMQPProtocolChannelException $e) {
        $locked = $e->amqp_reply_code;
    }
    $other->close();
    report('declare', [
        'durable' => $durable,
        'exclusive' => $exclusive,
        'generated' => str_starts_with($generated, 'amq.gen-'),
        'locked' => $locked,
    ]);
    return $generated;
}

function publish(AMQPChannel $channel): void
{
    $confirmed = $nacked = 0;
    $channel->set_ack_handler(function () use (&$confirmed) { $confirmed++; });
    $channel->set_nack_handler(function () use (&$nacked) { $nacked++; });
    $channel->confirm_select();
    for ($n = 0; $n < MESSAGES; $n++) {
        $properties = ['delivery_mode' => 2, 'application_headers' => new AMQPTable(['n' => $n])];
        $channel->basic_publish(new AMQPMessage("message $n", $properties), 'events', "job.$n");
    }
    $channel->wait_for_pending_acks(60);
    report('publish', ['confirmed' => $confirmed, 'nacked' => $nacked]);
    $channel->set_ack_handler(function () {});
}

function consume(AMQPChannel $channel): void
{
    $received = $redelivered = 0;
    $inOrder = true;
    $channel->basic_qos(0, 50, false);
    $taken = function (AMQPMessage $message) use (&$received, &$redelivered, &$inOrder) {
        $headers = $message->get('application_headers')->getNativeData();
        $inOrder = $inOrder && $message->getBody() === "message $received" && $headers['n'] === $received;
        $redelivered += $message->isRedelivered() ? 1 : 0;
        $received++;
        $message->ack();
    };
    $tag = $channel->basic_consume('durable', '', false, false, false, false, $taken);
    while ($received < MESSAGES) {
        $channel->wait(null, false, 30);
    }
    $channel->basic_cancel($tag);
    [, $left] = $channel->queue_declare('durable', true);
    report('consume', [
        'received' => $received,
        'in_order' => $inOrder,
        'redelivered' => $redelivered,
        'left' => $left,
    ]);
}

function get(AMQPChannel $channel, string $queue): void
{
    $channel->basic_publish(new AMQPMessage('got'), '', $queue);
    $channel->wait_for_pending_acks(60);
    $message = $channel->basic_get($queue);
    $message->ack();
    $empty = $channel->basic_get($queue);
    report('get', [
        'body' => $message->getBody(),
        'count' => $message->getMessageCount(),
        'empty' => $empty === null,
    ]);
}

function unroutable(AMQPChannel $channel): void
{
    $fields = null;
    $channel->set_return_listener(function ($code, $text, $exchange, $key, AMQPMessage $message) use (&$fields) {
        $body = $message->getBody();
        $fields = ['code' => $code, 'text' => $text, 'exchange' => $exchange, 'key' => $key, 'body' => $body];
    });
    $channel->basic_publish(new AMQPMessage('lost'), '', 'nowhere', true);
    $channel->wait_for_pending_acks_returns(60);
    report('return', $fields ?? []);
}

function next_message(AMQPChannel $channel, string $queue): string
{
    $got = null;
    $taken = function (AMQPMessage $message) use (&$got) {
        $got = $message->getBody();
        $message->ack();
    };
    $tag = $channel->basic_consume($queue, '', false, false, false, false, $taken);
    while ($got === null) {
        $channel->wait(null, false, 60);
    }
    $channel->basic_cancel($tag);
    return $got;
}

function job(): void
{
    $connection = connect();
    $channel = $connection->channel();
    report('connect', ['product' => $connection->getServerProperties()['product'][1]]);
    $generated = declare_all($channel);
    publish($channel);
    consume($channel);
    get($channel, $generated);
    unroutable($channel);
    $channel->basic_publish(new AMQPMessage(large()), '', 'exclusive');
    $channel->wait_for_pending_acks(60);
    report_large(next_message($channel, 'exclusive'));
    $channel->queue_delete('durable');
    $channel->exchange_delete('events');
    $channel->close();
    $connection->close();
    report('close', ['clean' => !$connection->isConnected()]);
}

function refused(): void
{
    try {
        connect()->close();
        report('refused', ['error' => null]);
    } catch (AMQPExceptionInterface $e) {
        report('refused', ['error' => get_class($e) . ': ' . $e->getMessage()]);
    }
}

function channels(): void
{
    $connection = connect();
    $received = $opened = [];
    for ($n = 0; $n < CHANNELS; $n++) {
        $opened[$n] = $connection->channel();
    }
    foreach ($opened as $n => $channel) {
        $channel->queue_declare("many.$n", false, false, true, false);
        $taken = function (AMQPMessage $message) use (&$received, $n) { $received[$n] = $message->getBody(); };
        $channel->basic_consume("many.$n", '', false, true, false, false, $taken);
    }
    foreach ($opened as $n => $channel) {
        $to = ($n + 1) % CHANNELS;
        $channel->basic_publish(new AMQPMessage("to $to"), '', "many.$to");
    }
    foreach ($opened as $n => $channel) {
        while (!isset($received[$n])) {
            $channel->wait(null, false, 10);
        }
    }
    report_channels($received);
    $connection->close();
}

function prove(string $step, AMQPStreamConnection $connection, AMQPChannel $channel): void
{
    [$queue] = $channel->queue_declare('', false, false, true, false);
    $channel->basic_publish(new AMQPMessage(PROOF), '', $queue);
    report($step, ['alive' => next_message($channel, $queue) === PROOF]);
    $connection->close();
}

function busy(): void
{
    $connection = connect(HEARTBEAT);
    $channel = $connection->channel();
    foreach (seconds_left() as $_) {
        for ($n = 0; $n < BURST; $n++) {
            $channel->basic_publish(new AMQPMessage(str_repeat('x', 100)), '', 'nowhere');
        }
        usleep(PAUSE);
    }
    prove('busy', $connection, $channel);
}

function idle(): void
{
    $connection = connect(HEARTBEAT);
    $channel = $connection->channel();
    [$queue] = $channel->queue_declare('', false, false, true, false);
    $channel->basic_consume($queue, '', false, true, false, false, fn() => null);
    // The library sends heartbeats while it waits for something.
    foreach (seconds_left() as $left) {
        try {
            $channel->wait(null, false, min($left, 0.5));
        } catch (AMQPTimeoutException) {
            $connection->checkHeartBeat();
        }
    }
    prove('idle', $connection, $channel);
}

run_case();
