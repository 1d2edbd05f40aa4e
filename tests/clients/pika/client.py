"""The cases of tests/clients/README.md, done by pika."""

import pika
import steps
from steps import report


def connect(heartbeat=None):
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            steps.HOST,
            steps.PORT,
            steps.VHOST,
            pika.PlainCredentials("guest", steps.PASSWORD),
            heartbeat=heartbeat,
            blocked_connection_timeout=60,
        )
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
    for n in range(steps.MESSAGES):
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
        if received == steps.MESSAGES:
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


def next_message(channel, queue):
    for method, _, body in channel.consume(queue, inactivity_timeout=60):
        if method is None:
            raise TimeoutError(f"no message came from {queue}")
        channel.basic_ack(method.delivery_tag)
        channel.cancel()
        return body


def job():
    connection = connect()
    channel = connection.channel()
    # The server's properties are not public in pika's blocking adapter, yet everybody reads them here.
    report("connect", product=connection._impl.server_properties["product"])
    generated = declare(channel)
    publish(channel)
    consume(channel)
    get(channel, generated)
    unroutable(channel)
    channel.basic_publish("", "exclusive", steps.large())
    steps.report_large(next_message(channel, "exclusive"))
    channel.queue_delete("durable")
    channel.exchange_delete("events")
    channel.close()
    connection.close()
    report("close", clean=connection.is_closed)


def refused():
    try:
        connect().close()
        report("refused", error=None)
    except pika.exceptions.AMQPConnectionError as e:
        report("refused", error=steps.error_text(e))


def channels():
    connection = connect()
    opened = [connection.channel() for _ in range(steps.CHANNELS)]
    received = {}
    for n, channel in enumerate(opened):
        channel.queue_declare(f"many.{n}", exclusive=True)
        taken = lambda _channel, _method, _properties, body, n=n: received.update({n: body})
        channel.basic_consume(f"many.{n}", taken, auto_ack=True)
    for n, channel in enumerate(opened):
        to = (n + 1) % steps.CHANNELS
        channel.basic_publish("", f"many.{to}", f"to {to}".encode())
    for _ in steps.seconds_left():
        if len(received) == steps.CHANNELS:
            break
        connection.process_data_events(time_limit=1)
    steps.report_channels([received[n] for n in sorted(received)])
    connection.close()


def prove(step, connection, channel):
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", queue, steps.PROOF)
    report(step, alive=next_message(channel, queue) == steps.PROOF)
    connection.close()


def busy():
    connection = connect(steps.HEARTBEAT)
    channel = connection.channel()
    for _ in steps.seconds_left():
        for _ in range(steps.BURST):
            channel.basic_publish("", "nowhere", bytes(100))
        connection.sleep(steps.PAUSE)
    prove("busy", connection, channel)


def idle():
    connection = connect(steps.HEARTBEAT)
    channel = connection.channel()
    connection.sleep(steps.HEARTBEATS_FOR)
    prove("idle", connection, channel)


{"job": job, "refused": refused, "channels": channels, "busy": busy, "idle": idle}[steps.CASE]()
