#!/usr/bin/env bash
# confluent-kafka 2.16.1: a header whose value is text loses everything from its first NUL on, without a
# word; the same value as bytes arrives whole. A NUL is valid in Kafka's headers, and in JSON's strings.
#
# Seen (librdkafka's own mock cluster):
#   sent     text 'a\x00b'    bytes b'a\x00b'
#   arrived  b'a'             b'a\x00b'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet confluent-kafka==2.16.1
"$work/venv/bin/python" - <<'PYTHON'
import confluent_kafka
from confluent_kafka import Consumer, Producer

producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
brokers = producer.list_topics("t", timeout=10).brokers.values()
address = ",".join(f"{each.host}:{each.port}" for each in brokers)
producer.produce("t", b"value", headers=[("text", "a\0b"), ("bytes", b"a\0b")])
assert producer.flush(10) == 0
consumer = Consumer(
    {"bootstrap.servers": address, "group.id": "g", "auto.offset.reset": "earliest"}
)
consumer.subscribe(["t"])
message = None
for _ in range(60):
    message = consumer.poll(0.5)
    if message is not None and not message.error():
        break
arrived = dict(message.headers())
consumer.close()
print("confluent-kafka", confluent_kafka.version(), "librdkafka", confluent_kafka.libversion()[0])
print("text  'a\\x00b' arrived as", arrived["text"])
print("bytes b'a\\x00b' arrived as", arrived["bytes"])
assert arrived == {"text": b"a", "bytes": b"a\0b"}, arrived
PYTHON
