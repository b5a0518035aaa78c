"""`make bench-relay`: how fast the relay is, beside ceilings of the same run, and what it costs.

Writes devtools/benchmarks/results/relay.json; see devtools/benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import django

from devtools.benchmarks import report
from devtools.benchmarks.report import BenchFigure
from devtools.localstack import LocalStack
from loadtest.machine import describe_machine

if TYPE_CHECKING:
    from devtools.benchmarks.relay.runs import RelayBench
    from devtools.relay.messages import Message

RATE, SHARE = 16_000.0, 0.40


def main() -> int:
    """0; with STRICT=1 in the environment 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="make bench-relay", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000, help="for the memory; 0: without")
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the paced and the idle run")
    options = parser.parse_args()
    with LocalStack.ephemeral(servers_only=True, own_servers=True) as stack:
        if stack.add_rabbitmq() is None:
            return 1
        os.environ.update(stack.env | {"DJANGO_SETTINGS_MODULE": "eventsite.settings.local"})
        django.setup()
        figures = _figures(stack, options)
    report.show("The relay", figures)
    report.write("relay", describe_machine(), figures)
    return report.exit_code(figures)


def _figures(stack: LocalStack, options: argparse.Namespace) -> list[BenchFigure]:
    from devtools.benchmarks.relay.runs import RelayBench  # noqa: PLC0415  (needs Django's settings)

    bench = RelayBench(stack)
    return [
        *_speed(bench, stack, options.messages),
        *_pace(bench, options.seconds),
        *_stops(bench, options.messages, options.stops),
        *_memory(bench, options.many),
    ]


def _speed(bench: RelayBench, stack: LocalStack, wanted: int) -> list[BenchFigure]:
    from devtools.benchmarks.relay import ceilings  # noqa: PLC0415
    from devtools.benchmarks.relay.runs import bench_message  # noqa: PLC0415
    from devtools.relay import broker  # noqa: PLC0415

    messages = [bench_message(number) for number in range(wanted)]
    assert (len(messages[0].body), len(messages[0].payload or b"")) == (219, 123)
    names = [bench.new() for _ in range(3)]
    for name in names[:2]:
        broker.publish(bench.url, name, messages)
    broker.publish(bench.url, names[2], _with_refused(messages))
    loop = ceilings.consume_rate(bench.url, names[0], wanted)
    produced = ceilings.produce_rate(bench.servers, bench.new(), messages)
    claimed = ceilings.claim_rate(stack.env["REDIS_URL"])
    plain, refused = bench.run(names[1], wanted), bench.run(names[2], wanted)
    return [
        BenchFigure(
            name="relayed to the last",
            value=plain.rate,
            unit="/s",
            at_least=RATE,
            ceiling=loop,
            note=f"{plain.cpu:.1f} µs of its CPU each; ceiling: pika's loop alone",
        ),
        BenchFigure(
            name="share of the loop alone", value=plain.rate / loop, unit="", at_least=SHARE
        ),
        BenchFigure(name="bare produce", value=produced, unit="/s"),
        BenchFigure(name="claims alone", value=claimed, unit="/s"),
        BenchFigure(
            name="with 1 in 1,000 refused",
            value=refused.rate,
            unit="/s",
            at_least=plain.rate / 2,
            note="too large for the topic: dead letters",
        ),
    ]


def _with_refused(messages: list[Message]) -> list[Message]:
    from devtools.relay.messages import Message  # noqa: PLC0415

    mixed: list[Message] = []
    for number, message in enumerate(messages):
        if number % 1000 == 500:
            body = b'{"event_id": "refused-%d", "payload": "%b"}' % (number, b"r" * 30_000)
            mixed.append(Message(body))
        mixed.append(message)
    return mixed


def _pace(bench: RelayBench, seconds: float) -> list[BenchFigure]:
    paced = bench.latencies(bench.new(), rate=500, seconds=seconds)
    middle, late = paced[len(paced) // 2], paced[len(paced) * 99 // 100]
    return [
        BenchFigure(name="RabbitMQ → Kafka at 500/s, p50", value=middle, unit="ms", at_most=10),
        BenchFigure(name="the same, p99", value=late, unit="ms", at_most=40),
        BenchFigure(
            name="idle", value=bench.idle(bench.new(), seconds), unit="% of a core", at_most=1
        ),
    ]


def _stops(bench: RelayBench, messages: int, stops: int) -> list[BenchFigure]:
    duplicates, in_stream = bench.duplicates_over_stops(bench.new(), messages, stops)
    note = f"{in_stream} of {stops} stops found messages waiting"
    name = "duplicates over stops in mid-stream"
    return [BenchFigure(name=name, value=duplicates, unit="", at_most=0, note=note)]


def _memory(bench: RelayBench, many: int) -> list[BenchFigure]:
    from devtools.benchmarks.relay.runs import bench_message  # noqa: PLC0415
    from devtools.relay import broker  # noqa: PLC0415

    figures = []
    if many:
        name = bench.new()
        broker.publish(bench.url, name, map(bench_message, range(many)))
        rss = bench.run(name, many).rss
        grown = rss[-1] / rss[0]
        figures += [
            BenchFigure(name="memory: last 100,000 / first", value=grown, unit="", at_most=1.1),
            BenchFigure(name="memory at most", value=max(rss), unit="MiB", at_most=250),
        ]
    large = bench.memory_of_large_ones(bench.new(), 300)
    name = "memory with 1 MB bodies and Kafka away"
    return [*figures, BenchFigure(name=name, value=large, unit="MiB", at_most=250)]


if __name__ == "__main__":
    sys.exit(main())
