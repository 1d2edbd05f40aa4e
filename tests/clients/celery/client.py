"""The cases of tests/clients/README.md, done by Celery: a real worker, and a client that sends it tasks."""

import atexit
import os
import subprocess
import sys
import time
from pathlib import Path

import amqp
import kombu
import steps
from steps import report

HEARTBEATS = steps.CASE in ("busy", "idle")
os.environ["BROKER"] = f"amqp://guest:{steps.PASSWORD}@{steps.HOST}:{steps.PORT}/{steps.VHOST}"
os.environ["HEARTBEAT"] = str(steps.HEARTBEAT if HEARTBEATS else 0)
# Cases run at the same time and on one virtual host.
QUEUE = os.environ["QUEUE"] = "durable" if steps.CASE == "job" else f"tasks.{steps.CASE}"
EXCHANGE = os.environ["EXCHANGE"] = "events" if steps.CASE == "job" else f"events.{steps.CASE}"

import tasks  # noqa: E402, it reads the environment

WORKER = f"{steps.CASE}@localhost"
LOST = ["Connection to broker lost", "Too many heartbeats missed", "Trying to re-establish"]


class Worker:
    """A worker with one process, in the pool that Celery takes by default."""

    def __init__(self):
        command = [sys.executable, "-m", "celery", "--app", "tasks", "worker"]
        command += ["--concurrency", "1", "--hostname", WORKER, "--loglevel", "WARNING"]
        if HEARTBEATS:
            # A worker sends no heartbeats before it has greeted the others, which takes it more than a second.
            command += ["--without-mingle", "--without-gossip"]
        folder = Path(__file__).parent
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # It must not be left behind when something fails here.
        atexit.register(self.process.kill)
        deadline = time.monotonic() + 60
        while not tasks.app.control.ping(destination=[WORKER], timeout=0.5):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not start: {self.stop()}")

    def stop(self):
        """Stops it as an operator does; gives what it logged and whether it ended well."""
        self.process.terminate()
        log, _ = self.process.communicate(timeout=60)
        return log, self.process.returncode == 0


def delete_all():
    with tasks.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(QUEUE)
        connection.default_channel.exchange_delete(EXCHANGE)
    tasks.app.close()


def publish():
    sent, nacked = [], 0
    for n in range(steps.MESSAGES):
        try:
            sent.append(tasks.message.apply_async((f"message {n}",), routing_key=f"job.{n}", headers={"n": n}))
        except amqp.MessageNacked:
            nacked += 1
    report("publish", confirmed=len(sent), nacked=nacked)
    return sent


def consume(sent):
    """The worker is the consumer; it tells by its results what it has seen."""
    seen = [result.get(timeout=60) for result in sent]
    with tasks.app.connection_for_read() as connection:
        _, left, _ = connection.default_channel.queue_declare(QUEUE, passive=True)
    report(
        "consume",
        received=len(seen),
        in_order=all(in_order for in_order, _ in seen),
        redelivered=sum(redelivered for _, redelivered in seen),
        left=left,
    )


def unroutable():
    returned = []
    with tasks.app.connection_for_write() as connection:
        taken = lambda *arguments: returned.append(arguments)
        producer = kombu.Producer(connection, on_return=taken, auto_declare=False)
        tasks.echo.apply_async(("lost",), exchange=EXCHANGE, routing_key="nowhere", mandatory=True, producer=producer)
    ((error, _exchange, key, _message),) = returned
    report(
        "return",
        code=error.reply_code,
        text=error.reply_text,
        exchange=None,
        key=key,
        body=None,
        note="The message is a task: it goes to the application's exchange, with a body in Celery's own format.",
    )


def job():
    worker = Worker()
    with tasks.app.connection_for_write() as connection:
        report("connect", product=connection.connection.server_properties["product"])
    with tasks.app.connection_for_read() as connection:
        durable, _, _ = connection.default_channel.queue_declare(QUEUE, passive=True)
    report(
        "declare",
        durable=durable,
        exclusive=None,
        generated=None,
        locked=None,
        note="Celery declares the queues and exchanges of its configuration and has no queues of the other kinds.",
    )
    consume(publish())
    steps.skip("get", "Celery's workers consume; there is no other way to take a task.")
    unroutable()
    size, sha256 = tasks.measure.delay(steps.large()).get(timeout=60)
    report("large", size=size, sha256=sha256)
    log, ended_well = worker.stop()
    delete_all()
    if not ended_well:
        print(log, file=sys.stderr)
    report("close", clean=ended_well)


def refused():
    try:
        tasks.echo.delay("hello")
        report("refused", error=None)
    except (kombu.exceptions.OperationalError, amqp.AMQPError) as e:
        report("refused", error=steps.error_text(e))


def channels():
    steps.skip("channels", "Celery opens its channels itself, one for each producer and a few for a worker.")


def prove(step, worker):
    alive = tasks.echo.delay(steps.PROOF.decode()).get(timeout=60) == steps.PROOF.decode()
    log, ended_well = worker.stop()
    lost = any(line in log for line in LOST)
    if lost or not ended_well:
        print(log, file=sys.stderr)
    delete_all()
    why = "Celery's workers have heartbeats and its publishers have none, so it is a worker that is busy or idle."
    report(step, alive=alive and ended_well and not lost, note=why)


def busy():
    worker = Worker()
    for _ in steps.seconds_left():
        tasks.work.delay("x" * 100)
        time.sleep(steps.PAUSE)
    prove("busy", worker)


def idle():
    worker = Worker()
    time.sleep(steps.HEARTBEATS_FOR)
    prove("idle", worker)


{"job": job, "refused": refused, "channels": channels, "busy": busy, "idle": idle}[steps.CASE]()
