"""The cases of tests/clients/README.md, done by kombu with its default transport (py-amqp)."""

import socket
import time

import amqp
import kombu
import steps
from steps import report


def connect(heartbeat=0, confirm=False):
    connection = kombu.Connection(
        hostname=steps.HOST,
        port=steps.PORT,
        userid="guest",
        password=steps.PASSWORD,
        virtual_host=steps.VHOST,
        heartbeat=heartbeat,
        transport_options={"confirm_publish": confirm},
    )
    connection.connect()
    return connection


def queue(name, channel, **options):
    return kombu.Queue(name, channel=channel, **{"durable": False, **options})


def name_of(queue):
    """Declares a queue and gives the name that the broker answers."""
    return queue.queue_declare().queue


def declare(channel):
    events = kombu.Exchange("events", type="topic", durable=False)
    durable = kombu.Queue("durable", events, "job.#", durable=True, channel=channel)
    generated = queue("", channel)
    names = [name_of(q) for q in (durable, generated, queue("exclusive", channel, exclusive=True))]
    durable.declare()
    other = connect()
    locked = 0
    try:
        queue("exclusive", other.channel()).queue_declare(passive=True)
    except amqp.ResourceLocked as e:
        locked = e.reply_code
    other.release()
    report(
        "declare",
        durable=names[0],
        exclusive=names[2],
        generated=names[1].startswith("amq.gen-"),
        locked=locked,
    )
    return durable, names[1]


def publish(channel):
    producer = kombu.Producer(channel, auto_declare=False)
    confirmed = nacked = 0
    for n in range(steps.MESSAGES):
        try:
            producer.publish(
                f"message {n}",
                exchange="events",
                routing_key=f"job.{n}",
                delivery_mode="persistent",
                headers={"n": n},
            )
            confirmed += 1
        except amqp.MessageNacked:
            nacked += 1
    report("publish", confirmed=confirmed, nacked=nacked)


def consume(connection, channel, durable):
    seen = {"received": 0, "in_order": True, "redelivered": 0}

    def taken(body, message):
        n = seen["received"]
        seen["in_order"] &= body == f"message {n}" and message.headers["n"] == n
        seen["redelivered"] += bool(message.delivery_info["redelivered"])
        seen["received"] += 1
        message.ack()

    with kombu.Consumer(channel, [durable], callbacks=[taken], prefetch_count=50, auto_declare=False):
        while seen["received"] < steps.MESSAGES:
            connection.drain_events(timeout=30)
    _, left, _ = channel.queue_declare("durable", passive=True)
    report("consume", **seen, left=left)


def send(channel, to, body, **options):
    kombu.Producer(channel, auto_declare=False, **options).publish(
        body, exchange="", routing_key=to, mandatory=bool(options)
    )


def get(channel, generated):
    send(channel, generated, "got")
    source = queue(generated, channel)
    message = source.get()
    message.ack()
    # Kombu drops the count of messages that the broker tells; what lies below it has kept it.
    count = message.delivery_info["message_count"]
    report("get", body=message.payload, count=count, empty=source.get() is None)


def unroutable(channel):
    returned = []
    send(channel, "nowhere", "lost", on_return=lambda *arguments: returned.append(arguments))
    ((error, exchange, key, message),) = returned
    report(
        "return",
        code=error.reply_code,
        text=error.reply_text,
        exchange=exchange,
        key=key,
        body=message.body if isinstance(message.body, str) else message.body.decode(),
    )


def large(connection, channel):
    send(channel, "exclusive", steps.large())
    received = []

    def taken(body, message):
        message.ack()
        received.append(bytes(body))

    source = queue("exclusive", channel, exclusive=True)
    with kombu.Consumer(channel, [source], callbacks=[taken], auto_declare=False):
        while not received:
            connection.drain_events(timeout=60)
    steps.report_large(received[0])


def job():
    connection = connect(confirm=True)
    channel = connection.channel()
    report("connect", product=connection.connection.server_properties["product"])
    durable, generated = declare(channel)
    publish(channel)
    consume(connection, channel, durable)
    get(channel, generated)
    unroutable(channel)
    large(connection, channel)
    durable.delete()
    kombu.Exchange("events", channel=channel).delete()
    channel.close()
    connection.release()
    report("close", clean=not connection.connected)


def refused():
    try:
        connect().release()
        report("refused", error=None)
    except (amqp.AMQPError, OSError) as e:
        report("refused", error=steps.error_text(e))


def channels():
    connection = connect()
    opened = [connection.channel() for _ in range(steps.CHANNELS)]
    received = {}
    consumers = []
    for n, channel in enumerate(opened):
        taken = lambda body, _message, n=n: received.update({n: body.encode()})
        source = queue(f"many.{n}", channel, exclusive=True)
        consumers.append(kombu.Consumer(channel, [source], callbacks=[taken], no_ack=True))
        consumers[-1].consume()
    for n, channel in enumerate(opened):
        to = (n + 1) % steps.CHANNELS
        send(channel, f"many.{to}", f"to {to}")
    for left in steps.seconds_left():
        if len(received) == steps.CHANNELS:
            break
        connection.drain_events(timeout=left)
    steps.report_channels([received[n] for n in sorted(received)])
    connection.release()


def wait(connection, seconds):
    """What kombu's manual wants whoever uses heartbeats to do twice within each of them."""
    try:
        connection.drain_events(timeout=seconds)
    except socket.timeout:
        pass
    connection.heartbeat_check()


def prove(step, connection, channel):
    source = queue("", channel, exclusive=True)
    name = name_of(source)
    send(channel, name, steps.PROOF)
    message = None
    for _ in steps.seconds_left():
        message = queue(name, channel).get(no_ack=True)
        if message is not None:
            break
    report(step, alive=message is not None and bytes(message.body) == steps.PROOF)
    connection.release()


def busy():
    connection = connect(steps.HEARTBEAT)
    channel = connection.channel()
    checked = time.monotonic()
    for _ in steps.seconds_left():
        for _ in range(steps.BURST):
            send(channel, "nowhere", bytes(100))
        time.sleep(steps.PAUSE)
        if time.monotonic() > checked + 0.5:
            checked = time.monotonic()
            wait(connection, 0.001)
    prove("busy", connection, channel)


def idle():
    connection = connect(steps.HEARTBEAT)
    channel = connection.channel()
    for _ in steps.seconds_left():
        wait(connection, 0.5)
    prove("idle", connection, channel)


{"job": job, "refused": refused, "channels": channels, "busy": busy, "idle": idle}[steps.CASE]()
