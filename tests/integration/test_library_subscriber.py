"""The library's subscriber behind our interface keeps the promises that the interface makes."""

import asyncio

import pytest

from execution.pubsub import IncomingMessage, LibrarySubscriber, Subscriber, SubscriptionMissing
from tests.integration import pubsub_servers
from tests.integration.pubsub_servers import ONLY_EMBEDDED, Bench, until

official_host = pubsub_servers.official_host
server_host = pubsub_servers.server_host
bench = pubsub_servers.bench


@ONLY_EMBEDDED  # the library cancels its streams
async def test_messages_arrive_whole_in_the_loop_and_an_ack_is_final(bench: Bench) -> None:
    loops = set()
    got: list[IncomingMessage] = []

    def handler(message: IncomingMessage) -> None:
        loops.add(asyncio.get_running_loop())
        got.append(message)
        message.ack()

    subscriber = LibrarySubscriber(bench.channel, bench.subscription, handler)
    running = asyncio.create_task(subscriber.run())
    (message_id,) = await bench.publish(b"body", attributes={"kind": "signal"}, ordering_key="k")
    await until(lambda: got)
    assert subscriber.status.connected
    await subscriber.stop(5)
    await running
    message = got[0]
    assert (message.data, message.attributes, message.ordering_key) == (b"body", {"kind": "signal"}, "k")
    assert message.message_id == message_id
    assert message.publish_time_ms > 1_600_000_000_000
    assert loops == {asyncio.get_running_loop()}
    later: list[bytes] = []
    second = Subscriber(bench.channel, bench.subscription, lambda m: (later.append(m.data), m.ack())[0])
    running = asyncio.create_task(second.run())
    await bench.publish(b"last")
    await until(lambda: later)
    assert later == [b"last"]
    await second.stop(1)
    await running


async def test_a_handler_that_raises_gets_the_message_again(bench: Bench) -> None:
    deliveries = 0

    def handler(message: IncomingMessage) -> None:
        nonlocal deliveries
        deliveries += 1
        if deliveries == 1:
            raise ValueError("cannot digest this")
        message.ack()

    subscriber = LibrarySubscriber(bench.channel, bench.subscription, handler)
    running = asyncio.create_task(subscriber.run())
    await bench.publish(b"x")
    await until(lambda: deliveries == 2)
    assert subscriber.counters.handler_errors == 1
    await subscriber.stop(5)
    await running


async def test_a_missing_subscription_ends_the_run_at_the_start(bench: Bench) -> None:
    with pytest.raises(SubscriptionMissing, match="-typo does not exist"):
        await asyncio.wait_for(LibrarySubscriber(bench.channel, bench.subscription + "-typo", lambda _: None).run(), 20)


@ONLY_EMBEDDED  # the library cancels its streams
async def test_a_paused_subscriber_takes_nothing_until_it_is_resumed(bench: Bench) -> None:
    got: list[bytes] = []

    def handler(message: IncomingMessage) -> None:
        got.append(message.data)
        message.ack()

    subscriber = LibrarySubscriber(bench.channel, bench.subscription, handler)
    running = asyncio.create_task(subscriber.run())
    await bench.publish(b"1")
    await until(lambda: got)
    subscriber.pause()
    await until(lambda: not subscriber.status.connected)
    assert subscriber.status.paused
    subscriber.resume()
    await until(lambda: subscriber.status.connected)
    await bench.publish(b"2")
    await until(lambda: got == [b"1", b"2"], 30)
    await subscriber.stop(5)
    await running


async def test_stop_waits_for_what_is_in_work_and_hands_back_the_rest(bench: Bench) -> None:
    held: dict[bytes, IncomingMessage] = {}
    subscriber = LibrarySubscriber(bench.channel, bench.subscription, lambda m: held.update({m.data: m}))
    running = asyncio.create_task(subscriber.run())
    await bench.publish(b"finished", b"unfinished")
    await until(lambda: len(held) == 2)
    stopping = asyncio.create_task(subscriber.stop(0.5))
    await asyncio.sleep(0)
    held[b"finished"].ack()
    await stopping
    await running
    assert subscriber.outstanding == 0
    assert held[b"unfinished"].settled
