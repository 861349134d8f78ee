"""The subscriber from outside: what a handler sees while servers, connections and handlers misbehave."""

import asyncio
import logging

import pytest

from execution.pubsub.channel import connect
from execution.pubsub.errors import SubscriptionMissing
from execution.pubsub.message import IncomingMessage
from execution.pubsub.subscriber import Subscriber
from tests.integration import pubsub_servers
from tests.integration.pubsub_servers import ONLY_EMBEDDED, PROJECT, Bench, FaultProxy, Receiver, running, until

official_host = pubsub_servers.official_host
server_host = pubsub_servers.server_host
bench = pubsub_servers.bench
bench_ordered = pubsub_servers.bench_ordered
proxy = pubsub_servers.proxy


async def test_a_message_arrives_with_all_of_its_parts(bench: Bench) -> None:
    receiver = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, receiver)):
        ids = await bench.publish(b'{"a":1}', attributes={"kind": "signal"}, ordering_key="BTC")
        await until(lambda: receiver.messages)
    message = receiver.messages[0]
    assert (message.data, message.attributes, message.ordering_key) == (b'{"a":1}', {"kind": "signal"}, "BTC")
    assert message.message_id == ids[0]
    assert message.publish_time_ms > 1_600_000_000_000
    assert message.received_at > 0


async def test_each_message_comes_once_and_not_again_after_the_stop(bench: Bench) -> None:
    receiver = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, receiver)):
        for start in range(0, 1000, 100):
            await bench.publish(*(b"%d" % i for i in range(start, start + 100)))
        await until(lambda: len(receiver.messages) >= 1000)
    assert sorted(map(int, receiver.bodies)) == list(range(1000))
    later = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, later)):
        await bench.publish(b"last")
        await until(lambda: later.messages)
    assert later.bodies == [b"last"]


async def test_a_nacked_message_comes_again(bench: Bench) -> None:
    receiver = Receiver(lambda message: message.nack() if len(receiver.messages) < 3 else message.ack())
    async with running(Subscriber(bench.channel, bench.subscription, receiver)):
        await bench.publish(b"x")
        await until(lambda: len(receiver.messages) == 3)
    assert receiver.bodies == [b"x"] * 3


async def test_a_handler_that_raises_gets_the_message_again_and_the_others_too(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    failed = set()

    def handler(message: IncomingMessage) -> None:
        if message.data == b"5" and not failed:
            failed.add(message.data)
            raise ValueError("cannot digest this")
        receiver(message)

    receiver = Receiver()
    subscriber = Subscriber(bench.channel, bench.subscription, handler)
    with caplog.at_level(logging.ERROR):
        async with running(subscriber):
            await bench.publish(*(b"%d" % i for i in range(10)))
            await until(lambda: len(receiver.messages) == 10)
    assert sorted(receiver.bodies) == [b"%d" % i for i in range(10)]
    assert subscriber.counters.handler_errors == 1
    assert "cannot digest this" in caplog.text


@ONLY_EMBEDDED
async def test_what_a_crashed_consumer_held_comes_to_the_next_one(bench: Bench) -> None:
    crashed = Receiver(settle=None)
    channel = connect(PROJECT, bench.host)
    task = asyncio.create_task(Subscriber(channel, bench.subscription, crashed, ack_deadline=10).run())
    await bench.publish(b"a", b"b")
    await until(lambda: len(crashed.messages) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await channel.close()
    receiver = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, receiver)):
        await until(lambda: len(receiver.messages) == 2, 30, "redelivery when the lease ends")
    assert sorted(receiver.bodies) == [b"a", b"b"]


@ONLY_EMBEDDED
async def test_nothing_is_lost_when_the_connection_is_cut_again_and_again(bench: Bench, proxy: FaultProxy) -> None:
    receiver = Receiver()
    channel = connect(PROJECT, proxy.host)
    subscriber = Subscriber(channel, bench.subscription, receiver)
    async with running(subscriber):
        for start in range(0, 250, 50):
            await bench.publish(*(b"%d" % i for i in range(start, start + 50)))
            await until(lambda start=start: len(receiver.messages) > start + 10)
            proxy.cut()
        await until(lambda: len(set(receiver.bodies)) == 250, 30)
        await until(lambda: subscriber.status.streams_opened > 5 and subscriber.status.connected)
    await channel.close()


@ONLY_EMBEDDED
async def test_a_connection_that_goes_silent_is_replaced(bench: Bench, proxy: FaultProxy) -> None:
    receiver = Receiver()
    channel = connect(PROJECT, proxy.host)
    subscriber = Subscriber(channel, bench.subscription, receiver, stall_timeout=0.5)
    async with running(subscriber):
        await bench.publish(b"before")
        await until(lambda: receiver.messages)
        proxy.freeze()
        await until(lambda: proxy.accepted == 2, what="a new TCP connection, while the old one still stands")
        assert channel.generation == 1
        proxy.bury()
        await bench.publish(b"after")
        await until(lambda: b"after" in receiver.bodies, 30)
    await channel.close()


@ONLY_EMBEDDED
async def test_a_server_that_is_away_is_waited_for(bench: Bench, proxy: FaultProxy) -> None:
    receiver = Receiver()
    channel = connect(PROJECT, proxy.host)
    subscriber = Subscriber(channel, bench.subscription, receiver)
    async with running(subscriber):
        await until(lambda: subscriber.status.connected)
        proxy.refusing = True
        proxy.cut()
        await until(lambda: subscriber.status.streams_opened >= 3)
        assert not subscriber.status.connected
        assert "UNAVAILABLE" in str(subscriber.status.last_error)
        proxy.refusing = False
        await bench.publish(b"after")
        await until(lambda: receiver.messages, 30)
        assert subscriber.status.connected
        assert subscriber.status.last_error is None
    await channel.close()


async def test_a_backlog_of_20000_is_never_held_beyond_the_limit(bench: Bench, request: pytest.FixtureRequest) -> None:
    drained = 4_000 if "official" in request.node.name else 20_000  # Google's emulator hands out 2,000 a second
    held: list[IncomingMessage] = []
    most = 0
    total = 0

    def handler(message: IncomingMessage) -> None:
        nonlocal most
        held.append(message)
        most = max(most, len(subscriber.leases))

    for _ in range(20):
        await bench.publish(*[b"x" * 100] * 1000)
    subscriber = Subscriber(bench.channel, bench.subscription, handler, max_outstanding=100)
    async with running(subscriber):
        while total < drained:
            await until(lambda: held)
            assert subscriber.outstanding <= 100
            total += len(held)
            for message in held:
                message.ack()
            held.clear()
    # One response may be waiting in front of the handler; the rest waits at Pub/Sub or in the connection.
    assert most <= 100 + 1000


async def test_a_paused_subscriber_takes_nothing_until_it_is_resumed(bench: Bench) -> None:
    receiver = Receiver()
    subscriber = Subscriber(bench.channel, bench.subscription, receiver)
    other = Receiver()
    async with running(subscriber):
        await bench.publish(b"1")
        await until(lambda: receiver.messages)
        subscriber.pause()
        await until(lambda: subscriber.status.paused and not subscriber.status.connected)
        # Another replica gets what this one leaves.
        async with running(Subscriber(bench.channel, bench.subscription, other)):
            await bench.publish(b"2")
            await until(lambda: other.messages)
        assert receiver.bodies == [b"1"]
        subscriber.resume()
        await bench.publish(b"3")
        await until(lambda: len(receiver.messages) == 2)
    assert receiver.bodies == [b"1", b"3"]


async def test_stop_waits_for_what_is_in_work_and_hands_back_the_rest(bench: Bench) -> None:
    receiver = Receiver(settle=None)
    subscriber = Subscriber(bench.channel, bench.subscription, receiver)
    task = asyncio.create_task(subscriber.run())
    await bench.publish(b"finished", b"unfinished")
    await until(lambda: len(receiver.messages) == 2)
    finished, unfinished = sorted(receiver.messages, key=lambda message: message.data)
    stopping = asyncio.create_task(subscriber.stop(0.5))
    await asyncio.sleep(0)
    finished.ack()
    await stopping
    await task
    assert unfinished.settled
    unfinished.ack()  # too late, and harmless
    later = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, later)):
        await until(lambda: later.messages, 30)
    assert later.bodies == [b"unfinished"]


async def test_messages_of_one_ordering_key_come_in_order(bench_ordered: Bench) -> None:
    receiver = Receiver()
    async with running(Subscriber(bench_ordered.channel, bench_ordered.subscription, receiver)):
        for start in range(0, 200, 20):
            for key in ("a", "b"):
                await bench_ordered.publish(*(b"%d" % i for i in range(start, start + 20)), ordering_key=key)
        await until(lambda: len(receiver.messages) == 400)
    for key in ("a", "b"):
        assert [int(m.data) for m in receiver.messages if m.ordering_key == key] == list(range(200))


async def test_a_missing_subscription_ends_the_run_at_the_start(bench: Bench) -> None:
    subscriber = Subscriber(bench.channel, bench.subscription + "-typo", Receiver())
    with pytest.raises(SubscriptionMissing, match=r"-typo does not exist .* Create it"):
        await asyncio.wait_for(subscriber.run(), 20)


async def test_a_subscription_deleted_at_run_time_is_reported_and_used_again_when_it_is_back(bench: Bench) -> None:
    receiver = Receiver()
    subscriber = Subscriber(bench.channel, bench.subscription, receiver)
    async with running(subscriber):
        await bench.publish(b"before")
        await until(lambda: receiver.messages)
        await bench.delete_subscription()
        await until(lambda: "does not exist" in str(subscriber.status.last_error))
        assert not subscriber.status.connected
        await bench.create_subscription()
        await until(lambda: subscriber.status.connected, 30)
        await bench.publish(b"after")
        await until(lambda: b"after" in receiver.bodies, 30)
