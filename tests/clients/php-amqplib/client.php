<?php
// The job of tests/clients/README.md, done by php-amqplib.

require 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

const MESSAGES = 1000;
ini_set('memory_limit', '512M');

function report(string $step, array $fields): void
{
    echo json_encode(['step' => $step] + $fields), "\n";
}

function connect(): AMQPStreamConnection
{
    [, $host, $port, $vhost] = $_SERVER['argv'];
    return new AMQPStreamConnection(
        $host,
        (int) $port,
        'guest',
        'guest',
        $vhost,
        connection_timeout: 10.0,
        read_write_timeout: 60.0
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

function large(AMQPChannel $channel): void
{
    $pattern = implode('', array_map('chr', range(0, 250)));
    $size = 10 * 1024 * 1024;
    $body = substr(str_repeat($pattern, intdiv($size, 251) + 1), 0, $size);
    $channel->basic_publish(new AMQPMessage($body), '', 'exclusive');
    $channel->wait_for_pending_acks(60);
    $got = null;
    $taken = function (AMQPMessage $message) use (&$got) {
        $got = $message->getBody();
        $message->ack();
    };
    $tag = $channel->basic_consume('exclusive', '', false, false, false, false, $taken);
    while ($got === null) {
        $channel->wait(null, false, 60);
    }
    $channel->basic_cancel($tag);
    report('large', ['size' => strlen($got), 'sha256' => hash('sha256', $got)]);
}

$connection = connect();
$channel = $connection->channel();
report('connect', ['product' => $connection->getServerProperties()['product'][1]]);
$generated = declare_all($channel);
publish($channel);
consume($channel);
get($channel, $generated);
unroutable($channel);
large($channel);
$channel->queue_delete('durable');
$channel->exchange_delete('events');
$channel->close();
$connection->close();
report('close', ['clean' => !$connection->isConnected()]);
