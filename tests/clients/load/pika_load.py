"""Publishes and consumes with pika until standard input ends: load HOST PORT QUEUE NAME.

Writes a line for what happened to each message: acked ID, nacked ID, got ID; at the end: done.
"""

import sys
import threading

import pika

host, port, queue, name = sys.argv[1:5]
stop = threading.Event()
lock = threading.Lock()


def say(*words):
    with lock:
        print(*words, flush=True)


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters(host, int(port), blocked_connection_timeout=120))


def publish():
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    n = 0
    while not stop.is_set():
        n += 1
        message = f"{name}-{n}"
        try:
            channel.basic_publish("", queue, message.encode(), pika.BasicProperties(delivery_mode=2))
            say("acked", message)
        except pika.exceptions.NackError:
            say("nacked", message)
        connection.sleep(0.005)
    connection.close()


def consume():
    connection = connect()
    channel = connection.channel()
    channel.basic_qos(prefetch_count=10)
    for method, _, body in channel.consume(queue, inactivity_timeout=0.2):
        if method is not None:
            say("got", body.decode())
            channel.basic_ack(method.delivery_tag)
        if stop.is_set():
            break
    connection.close()


failed = []


def run(work):
    try:
        work()
    except Exception as e:
        failed.append(f"{work.__name__}: {type(e).__name__}: {e}")
        stop.set()


threads = [threading.Thread(target=run, args=(work,)) for work in (publish, consume)]
for thread in threads:
    thread.start()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
for thread in threads:
    thread.join()
if failed:
    sys.exit("; ".join(failed))
say("done")
