"""The cases of tests/clients/README.md, done by aio-pika."""

import asyncio

import aio_pika
import aiormq
import steps
from aio_pika import DeliveryMode, ExchangeType, Message
from steps import report


async def connect(how=aio_pika.connect, **options):
    return await how(
        host=steps.HOST,
        port=steps.PORT,
        login="guest",
        password=steps.PASSWORD,
        virtualhost=steps.VHOST,
        **options,
    )


async def declare(channel):
    durable = await channel.declare_queue("durable", durable=True)
    generated = await channel.declare_queue()
    exclusive = await channel.declare_queue("exclusive", exclusive=True)
    events = await channel.declare_exchange("events", ExchangeType.TOPIC)
    await durable.bind(events, "job.#")
    other = await connect()
    locked = 0
    try:
        await (await other.channel()).declare_queue("exclusive", passive=True)
    except aiormq.exceptions.ChannelLockedResource:
        # The library has a class of its own for each reply code and does not tell the number.
        locked = 405
    await other.close()
    report(
        "declare",
        durable=durable.name,
        exclusive=exclusive.name,
        generated=None,
        locked=locked,
        note="The channels of its robust connections make up the names of nameless queues themselves.",
    )
    return durable, generated, exclusive, events


async def publish(events):
    sent = []
    for n in range(steps.MESSAGES):
        message = Message(f"message {n}".encode(), headers={"n": n}, delivery_mode=DeliveryMode.PERSISTENT)
        sent.append(asyncio.ensure_future(events.publish(message, f"job.{n}", mandatory=False)))
        # Another turn of the loop, so that the messages are written in this order.
        await asyncio.sleep(0)
    answers = await asyncio.gather(*sent, return_exceptions=True)
    nacked = sum(isinstance(a, aio_pika.exceptions.DeliveryError) for a in answers)
    others = [a for a in answers if isinstance(a, BaseException)]
    if len(others) > nacked:
        raise others[0]
    report("publish", confirmed=len(answers) - nacked, nacked=nacked)


async def consume(channel, durable):
    received = redelivered = 0
    in_order = True
    await channel.set_qos(prefetch_count=50)
    async with durable.iterator(timeout=30) as messages:
        async for message in messages:
            in_order &= message.body == f"message {received}".encode() and message.headers["n"] == received
            redelivered += message.redelivered
            received += 1
            await message.ack()
            if received == steps.MESSAGES:
                break
    left = (await channel.declare_queue("durable", passive=True)).declaration_result.message_count
    report("consume", received=received, in_order=in_order, redelivered=redelivered, left=left)


async def get(channel, queue):
    await channel.default_exchange.publish(Message(b"got"), queue.name)
    message = await queue.get()
    await message.ack()
    empty = await queue.get(fail=False)
    report("get", body=message.body.decode(), count=message.message_count, empty=empty is None)


async def unroutable(channel):
    """A channel of aio-pika gives a message that came back as the answer of its publish."""
    message = await channel.default_exchange.publish(Message(b"lost"), "nowhere", mandatory=True)
    returned = message.delivery
    report(
        "return",
        code=returned.reply_code,
        text=returned.reply_text,
        exchange=returned.exchange,
        key=returned.routing_key,
        body=message.body.decode(),
    )


async def next_message(queue):
    async with queue.iterator(timeout=60) as messages:
        async for message in messages:
            await message.ack()
            return message.body


async def job():
    connection = await connect(aio_pika.connect_robust)
    channel = await connection.channel()
    report("connect", product=connection.transport.connection.server_properties["product"])
    durable, generated, exclusive, events = await declare(channel)
    await publish(events)
    await consume(channel, durable)
    await get(channel, generated)
    await unroutable(channel)
    await channel.default_exchange.publish(Message(steps.large()), "exclusive")
    steps.report_large(await next_message(exclusive))
    await durable.delete()
    await events.delete()
    await channel.close()
    await connection.close()
    report("close", clean=connection.is_closed)


async def refused():
    try:
        await (await connect()).close()
        report("refused", error=None)
    except (aio_pika.exceptions.AMQPError, OSError) as e:
        report("refused", error=steps.error_text(e))


async def channels():
    connection = await connect()
    opened = [await connection.channel() for _ in range(steps.CHANNELS)]
    received = {}
    for n, channel in enumerate(opened):
        queue = await channel.declare_queue(f"many.{n}", exclusive=True)

        async def taken(message, n=n):
            received[n] = message.body

        await queue.consume(taken, no_ack=True)
    for n, channel in enumerate(opened):
        to = (n + 1) % steps.CHANNELS
        await channel.default_exchange.publish(Message(f"to {to}".encode()), f"many.{to}")
    for _ in steps.seconds_left():
        if len(received) == steps.CHANNELS:
            break
        await asyncio.sleep(0.01)
    steps.report_channels([received[n] for n in sorted(received)])
    await connection.close()


async def prove(step, connection, channel):
    queue = await channel.declare_queue(exclusive=True)
    await channel.default_exchange.publish(Message(steps.PROOF), queue.name)
    report(step, alive=await next_message(queue) == steps.PROOF)
    await connection.close()


async def busy():
    connection = await connect(heartbeat=steps.HEARTBEAT)
    channel = await connection.channel(publisher_confirms=False)
    for _ in steps.seconds_left():
        for _ in range(steps.BURST):
            await channel.default_exchange.publish(Message(bytes(100)), "nowhere", mandatory=False)
        await asyncio.sleep(steps.PAUSE)
    await prove("busy", connection, channel)


async def idle():
    connection = await connect(heartbeat=steps.HEARTBEAT)
    channel = await connection.channel()
    await asyncio.sleep(steps.HEARTBEATS_FOR)
    await prove("idle", connection, channel)


asyncio.run({"job": job, "refused": refused, "channels": channels, "busy": busy, "idle": idle}[steps.CASE]())
