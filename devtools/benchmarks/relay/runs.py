"""The relay as a process, measured from outside: by the topic, and by what it takes of the machine."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import redis
from confluent_kafka import Consumer, TopicPartition

from devtools.localstack import LocalStack
from devtools.relay import broker
from devtools.relay.messages import Message
from devtools.testing.processes import Process, free_port, running
from outbox.kafka import admin
from outbox.topics import Topic

__all__ = ["RelayBench", "Run", "bench_message"]

BODY, PAYLOAD = 219, 123  # bytes of a message
LIMIT = 20_000  # of the topic; beyond it a message is refused


def bench_message(number: int) -> Message:
    """A body of 219 bytes, 123 of them payload."""
    event_id = f"event-{number:09}"
    payload = f'{{"number": "{number:09}", "filling": ""}}'
    payload = payload[:-2] + "x" * (PAYLOAD - len(payload)) + payload[-2:]
    head = f'{{"event_id": "{event_id}", "correlation_id": "", "payload": {payload}}}'
    correlation = "c" * (BODY - len(head))
    body = head.replace('"correlation_id": ""', f'"correlation_id": "{correlation}"')
    return Message(body.encode(), event_id, payload.encode())


@dataclass(slots=True)
class Run:
    """One relay on one queue: messages a second to the last, its own CPU a message in µs, memory."""

    rate: float
    cpu: float
    rss: list[float]


class RelayBench:
    """A stack of servers; each run has a queue and a topic of its own."""

    def __init__(self, stack: LocalStack) -> None:
        self.url = stack.env["RABBITMQ_URL"]
        self.servers = stack.env["KAFKA_BOOTSTRAP_SERVERS"]
        self._stack = stack
        self._number = 0

    def new(self) -> str:
        """Name of a new queue and topic."""
        self._number += 1
        name = f"bench-{self._number}"
        broker.declare(self.url, name)
        topic = Topic(name, partitions=3, max_message_bytes=LIMIT)
        admin.create([topic], replication_factor=1)
        return name

    @contextmanager
    def relay(self, name: str, **environment: str) -> Iterator[Process]:
        """A relay with default settings until the end of the block."""
        port = free_port()
        given: Mapping[str, str] = {
            **self._stack.env,
            "RABBITMQ_QUEUE": name,
            "KAFKA_TOPIC": name,
            "METRICS_PORT": str(port),
            "DJANGO_SETTINGS_MODULE": "eventsite.settings.local",
            "LOG_LEVEL": "WARNING",
            "SECRET_KEY": "bench",
            **environment,
        }
        given = {key: value for key, value in given.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
        command = (sys.executable, "manage.py", "run_rabbitmq_relay")
        with running(command, given, f"http://127.0.0.1:{port}/health") as process:
            yield process

    def _forget(self) -> None:
        """The same messages come again in each run: they are no repetitions."""
        with redis.Redis.from_url(self._stack.env["REDIS_URL"]) as server:
            server.flushdb()

    def in_topic(self, name: str) -> int:
        """Messages that Kafka has."""
        return sum(admin.topic_states([name])[name].latest.values())

    def run(self, name: str, expected: int, *, every: int = 100_000) -> Run:
        """A relay takes what is in the queue until so many are in the topic."""
        rss: list[float] = []
        self._forget()
        with self.relay(name) as process:
            program = psutil.Process(process.pid)
            while not (first := self.in_topic(name)):
                time.sleep(0.01)
            begin, cpu = time.perf_counter(), sum(program.cpu_times()[:2])
            next_look = every
            while (count := self.in_topic(name)) < expected:
                if count >= next_look:
                    rss.append(program.memory_info().rss / 2**20)
                    next_look += every
                time.sleep(0.02)
            seconds = time.perf_counter() - begin
            cpu = sum(program.cpu_times()[:2]) - cpu
            rss.append(program.memory_info().rss / 2**20)
        done = expected - first
        return Run(done / seconds, 1e6 * cpu / max(1, done), rss)

    def latencies(self, name: str, *, rate: float, seconds: float) -> list[float]:
        """Milliseconds from the publishing of each message to its reading from Kafka, sorted."""
        self._forget()
        sent: dict[str, float] = {}
        found: list[float] = []
        wanted = int(rate * seconds)
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": name, "fetch.wait.max.ms": 5}
        )
        consumer.assign([TopicPartition(name, partition, 0) for partition in range(3)])

        def read() -> None:
            while len(found) < wanted:
                for message in consumer.consume(500, 0.005):
                    if message.error() is None:
                        key = (message.key() or b"").decode()
                        found.append(1000 * (time.perf_counter() - sent[key]))

        def messages() -> Iterator[Message]:
            for number in range(wanted):
                message = bench_message(number)
                sent[message.event_id] = time.perf_counter()
                yield message

        reader = threading.Thread(target=read, daemon=True)
        with self.relay(name):
            time.sleep(3.0)
            reader.start()
            broker.publish(self.url, name, messages(), rate=rate)
            reader.join(30)
        consumer.close()
        return sorted(found)

    def duplicates_over_stops(self, name: str, messages: int, stops: int) -> tuple[int, int]:
        """Copies too many in the topic, and stops in mid-stream, after all is relayed."""
        self._forget()
        broker.publish(self.url, name, map(bench_message, range(messages)))
        in_stream = 0
        for stop in range(1, stops + 1):
            with self.relay(name) as process:
                goal = messages * stop // (stops + 1)
                while self.in_topic(name) < goal:
                    time.sleep(0.01)
                process.stop()
            in_stream += broker.depth(self.url, name) > 0
        with self.relay(name):
            while broker.depth(self.url, name) or self.in_topic(name) < messages:
                time.sleep(0.05)
            time.sleep(2.0)
        return self.in_topic(name) - messages, in_stream

    def idle(self, name: str, seconds: float) -> float:
        """Share of a core, in percent, with nothing to do."""
        with self.relay(name) as process:
            time.sleep(3.0)
            program = psutil.Process(process.pid)
            begin = sum(program.cpu_times()[:2])
            time.sleep(seconds)
            return 100 * (sum(program.cpu_times()[:2]) - begin) / seconds

    def memory_of_large_ones(self, name: str, count: int) -> float:
        """MiB at most, with 1 MB bodies at the head and Kafka frozen."""
        body = b'{"event_id": "large-%d", "payload": "%b"}'
        large = [Message(body % (number, b"l" * 1_000_000)) for number in range(3)]
        broker.publish(self.url, name, (large[number % 3] for number in range(count)))
        kafka = self._stack.server("kafka")
        with self.relay(name) as process:
            kafka.pause()
            try:
                most = 0.0
                for _ in range(40):
                    time.sleep(0.25)
                    most = max(most, psutil.Process(process.pid).memory_info().rss / 2**20)
            finally:
                kafka.resume()
        return most
