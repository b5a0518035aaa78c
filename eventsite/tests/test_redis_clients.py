"""Celery's clients of Redis: one for each pool of connections (findings/kombu-makes-a-redis-client-for-each-command.sh)."""

from __future__ import annotations

from typing import Any

from eventsite.celery import app


def client_of(channel: Any) -> Any:
    with channel.conn_or_acquire() as client:
        assert client.ping()
        return client


def test_the_commands_of_a_channel_share_a_client_until_its_pool_is_lost() -> None:
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        first = client_of(channel)
        assert client_of(channel) is first
        channel._disconnect_pools()
        second = client_of(channel)
        assert second is not first
        assert second.connection_pool is channel.pool


def test_a_client_that_is_given_is_used() -> None:
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        with channel.conn_or_acquire("mine") as client:
            assert client == "mine"
