"""Ten messages there and back over TLS: over_tls.py HOST PORT VHOST CA [CERTIFICATE KEY]. With a certificate it logs in by
that (EXTERNAL), else as guest. Prints what came back."""

import ssl
import sys

import pika

host, port, vhost, ca, *own = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
credentials = pika.PlainCredentials("guest", "guest")
if own:
    context.load_cert_chain(*own)
    credentials = pika.credentials.ExternalCredentials()
options = pika.SSLOptions(context, "warren.example")
connection = pika.BlockingConnection(
    pika.ConnectionParameters(host, int(port), vhost, credentials, ssl_options=options)
)
channel = connection.channel()
queue = channel.queue_declare("", exclusive=True).method.queue
channel.confirm_delivery()
for n in range(10):
    channel.basic_publish("", queue, str(n) * 10000)
seen = []
for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=30):
    seen.append(body.decode()[0])
    if len(seen) == 10:
        break
channel.cancel()
connection.close()
print("".join(seen))
