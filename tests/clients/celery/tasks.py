"""The Celery application of client.py: its worker imports it too, and gets the broker from the environment."""

import hashlib
import os

import celery
import kombu

QUEUE, EXCHANGE = os.environ["QUEUE"], os.environ["EXCHANGE"]
app = celery.Celery("warren", broker=os.environ["BROKER"], backend="rpc://")
app.conf.update(
    task_queues=[kombu.Queue(QUEUE, kombu.Exchange(EXCHANGE, type="topic", durable=False), "job.#")],
    task_default_queue=QUEUE,
    task_default_exchange=EXCHANGE,
    task_default_routing_key="job.default",
    # Manual acks, and a prefetch of 50 for a worker with one process.
    task_acks_late=True,
    worker_prefetch_multiplier=50,
    broker_transport_options={"confirm_publish": True},
    broker_heartbeat=int(os.environ["HEARTBEAT"]),
    broker_connection_retry_on_startup=False,
    task_publish_retry=False,
)
received = 0


@app.task(bind=True)
def message(self, text):
    """Tells whether this is the next message, as the worker sees it."""
    global received
    in_order = text == f"message {received}" and (self.request.headers or {}).get("n") == received
    received += 1
    return in_order, self.request.delivery_info["redelivered"]


@app.task
def measure(body):
    return len(body), hashlib.sha256(body).hexdigest()


@app.task(ignore_result=True)
def work(body):
    pass


@app.task
def echo(text):
    return text
