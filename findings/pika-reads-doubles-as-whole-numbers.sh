#!/usr/bin/env bash
# pika 1.4.4: a header that is a double or a float (AMQP types d and f) is read as a whole number, its fraction
# is lost without a word. py-amqp 5.4.2, which kombu and Celery use, and aio-pika write Python's floats as doubles.
#
# Seen (the header table as py-amqp 5.4.2 writes it, read by pika 1.4.4 and by py-amqp itself):
#   written  0.75   2.5   -0.5
#   pika     0L     2L    0L      (an int of pika's own class)
#   py-amqp  0.75   2.5   -0.5
#
# The other way round nothing is lost: pika refuses to write a float (UnsupportedAMQPFieldException).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pika==1.4.4 amqp==5.4.2
"$work/venv/bin/python" - <<'PYTHON'
import pika.data
from amqp.serialization import dumps, loads
from pika.exceptions import UnsupportedAMQPFieldException

written = {"share": 0.75, "rate": 2.5, "change": -0.5}
table = dumps("F", [written])
by_pika, _ = pika.data.decode_table(table, 0)
[by_amqp], _ = loads("F", table, 0)
print("written ", written)
print("pika    ", by_pika)
print("py-amqp ", by_amqp)
assert by_amqp == written
assert by_pika == {"share": 0, "rate": 2, "change": 0}
assert all(isinstance(value, int) for value in by_pika.values())
try:
    pika.data.encode_table([], {"share": 0.75})
except UnsupportedAMQPFieldException:
    print("pika refuses to write a float")
else:
    raise SystemExit("pika writes floats now")
PYTHON
echo "as described"
