"""The job of tests/clients/README.md, done by pika."""

import hashlib
import json
import sys

import pika

HOST, PORT, VHOST = sys.argv[1], int(sys.argv[2]), sys.argv[3]
MESSAGES = 1000
LARGE = bytes(i % 251 for i in range(251)) * (10 * 1024 * 1024 // 251 + 1)
LARGE = LARGE[: 10 * 1024 * 1024]


def report(step, **fields):
    print(json.dumps({"step": step, **fields}), flush=True)


def connect():
    return pika.BlockingConnection(
        pika.ConnectionParameters(HOST, PORT, VHOST, blocked_connection_timeout=60)
    )


def declare(channel):
    durable = channel.queue_declare("durable", durable=True).method.queue
    generated = channel.queue_declare("").method.queue
    exclusive = channel.queue_declare("exclusive", exclusive=True).method.queue
    channel.exchange_declare("events", exchange_type="topic")
    channel.queue_bind("durable", "events", "job.#")
    other = connect()
    locked = 0
    try:
        other.channel().queue_declare("exclusive", passive=True)
    except pika.exceptions.ChannelClosedByBroker as e:
        locked = e.reply_code
    other.close()
    report(
        "declare",
        durable=durable,
        exclusive=exclusive,
        generated=generated.startswith("amq.gen-"),
        locked=locked,
    )
    return generated


def publish(channel):
    channel.confirm_delivery()
    confirmed = nacked = 0
    for n in range(MESSAGES):
        properties = pika.BasicProperties(delivery_mode=2, headers={"n": n})
        try:
            channel.basic_publish("events", f"job.{n}", f"message {n}".encode(), properties)
            confirmed += 1
        except pika.exceptions.NackError:
            nacked += 1
    report("publish", confirmed=confirmed, nacked=nacked)


def consume(channel):
    received = redelivered = 0
    in_order = True
    channel.basic_qos(prefetch_count=50)
    for method, properties, body in channel.consume("durable", inactivity_timeout=30):
        if method is None:
            raise TimeoutError(f"{received} messages and no more")
        in_order &= body == f"message {received}".encode() and properties.headers["n"] == received
        redelivered += method.redelivered
        received += 1
        channel.basic_ack(method.delivery_tag)
        if received == MESSAGES:
            break
    channel.cancel()
    left = channel.queue_declare("durable", passive=True).method.message_count
    report("consume", received=received, in_order=in_order, redelivered=redelivered, left=left)


def get(channel, queue):
    channel.basic_publish("", queue, b"got")
    method, _, body = channel.basic_get(queue)
    channel.basic_ack(method.delivery_tag)
    empty, _, _ = channel.basic_get(queue)
    report("get", body=body.decode(), count=method.message_count, empty=empty is None)


def unroutable(channel):
    try:
        channel.basic_publish("", "nowhere", b"lost", mandatory=True)
    except pika.exceptions.UnroutableError as e:
        (message,) = e.messages
        report(
            "return",
            code=message.method.reply_code,
            text=message.method.reply_text,
            exchange=message.method.exchange,
            key=message.method.routing_key,
            body=message.body.decode(),
        )


def large(channel):
    channel.basic_publish("", "exclusive", LARGE)
    for method, _, body in channel.consume("exclusive", inactivity_timeout=60):
        if method is None:
            raise TimeoutError("the large message did not come")
        channel.basic_ack(method.delivery_tag)
        break
    channel.cancel()
    report("large", size=len(body), sha256=hashlib.sha256(body).hexdigest())


def main():
    connection = connect()
    channel = connection.channel()
    # The server's properties are not public in pika's blocking adapter, yet everybody reads them here.
    report("connect", product=connection._impl.server_properties["product"])
    generated = declare(channel)
    publish(channel)
    consume(channel)
    get(channel, generated)
    unroutable(channel)
    large(channel)
    channel.queue_delete("durable")
    channel.exchange_delete("events")
    channel.close()
    connection.close()
    report("close", clean=connection.is_closed)


main()
