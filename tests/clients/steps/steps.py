"""What the Python clients of tests/clients/README.md share: arguments, numbers, and the lines that they report."""

import hashlib
import json
import re
import sys
import time

CASE, HOST, PORT, VHOST, PASSWORD = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
MESSAGES = 1000
CHANNELS = 20
# Seconds.
HEARTBEAT = 2
HEARTBEATS_FOR = 10
# A busy publisher sends so many messages and pauses for so many seconds.
BURST = 5
PAUSE = 0.005
PROOF = b"still here"
LARGE_SIZE = 10 * 1024 * 1024


def large():
    return (bytes(i % 251 for i in range(251)) * (LARGE_SIZE // 251 + 1))[:LARGE_SIZE]


def report(step, **fields):
    print(json.dumps({"step": step, **fields}), flush=True)


def report_large(body):
    report("large", size=len(body), sha256=hashlib.sha256(body).hexdigest())


def report_channels(received):
    """`received` holds the body that came on each channel."""
    right = received == [f"to {n}".encode() for n in range(CHANNELS)]
    report("channels", open=CHANNELS, received=len(received), right=right)


def skip(step, why):
    report(step, skipped=why)


def seconds_left():
    """Counts the seconds down for which a case with heartbeats goes on."""
    end = time.monotonic() + HEARTBEATS_FOR
    while (left := end - time.monotonic()) > 0:
        yield left


def error_text(error):
    # Some texts name an object by its address.
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")
