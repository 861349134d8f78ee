"""The Pub/Sub client against the library's high-level one: throughput, processor time per message, latency.

    python -m benchmarks.pubsub_client [--messages 20000] [--rounds 3]

Both talk to the same server in another process, which does nothing but send, count and answer, so that the clients are
measured and not an emulator. The two take turns; medians are printed. On loopback: trust the ratios, not the figures.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from execution.pubsub import IncomingMessage, LibrarySubscriber, OutgoingMessage, Publisher, Subscriber, connect, rpc

TOPIC = "projects/bench/topics/bench"
BODY = b"x" * 500
ATTRIBUTES = {"event_type": "order.filled", "order_id": "ord_0123456789", "strategy_id": "ma_cross"}
PER_RESPONSE = 100
LATENCY_MESSAGES = 200
LATENCY_RATE = 50.0
ROUND_TRIP = 0.005


# --- the server, a process of its own ---


async def serve() -> None:
    """A subscription's name says what it does: `backlog-N` holds N messages, `paced-N` sends N, one at a time."""
    outstanding = 0
    room = asyncio.Event()
    numbers = itertools.count()

    async def pull(requests: Any, context: Any) -> None:
        nonlocal outstanding
        first = await anext(aiter(requests))
        limit = first.max_outstanding_messages or 1000
        kind, _, count = first.subscription.rpartition("/")[2].partition("-")
        left, outstanding = int(count), 0
        while left:
            if kind == "paced":
                await asyncio.sleep(1 / LATENCY_RATE)
                size = 1
            else:
                while outstanding >= limit:
                    room.clear()
                    await room.wait()
                size = min(left, PER_RESPONSE, limit - outstanding)
            answer = rpc.StreamingPullResponse()
            for _ in range(size):
                number = next(numbers)
                received = answer.received_messages.add(ack_id=f"ack-{number:030}")
                received.message.data = BODY if kind == "backlog" else repr(time.monotonic()).encode()
                received.message.message_id = str(number)
                for key, value in ATTRIBUTES.items():
                    received.message.attributes[key] = value
            left -= size
            outstanding += size
            await context.write(answer)
        async for _ in requests:
            pass

    async def acknowledge(request: Any, _: Any) -> Any:
        nonlocal outstanding
        outstanding -= len(request.ack_ids)
        room.set()
        return rpc.ACKNOWLEDGE.response()

    async def modify(request: Any, _: Any) -> Any:
        if request.subscription.endswith(str(LATENCY_MESSAGES)):
            await asyncio.sleep(ROUND_TRIP)
        return rpc.MODIFY_ACK_DEADLINE.response()

    async def publish(request: Any, _: Any) -> Any:
        return rpc.PUBLISH.response(message_ids=[str(next(numbers)) for _ in request.messages])

    def unary(method: rpc.Rpc, handler: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            handler, method.request.FromString, method.response.SerializeToString
        )

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
    pulling = grpc.stream_stream_rpc_method_handler(
        pull, rpc.StreamingPullRequest.FromString, rpc.StreamingPullResponse.SerializeToString
    )
    subscriber = {
        "StreamingPull": pulling,
        "Acknowledge": unary(rpc.ACKNOWLEDGE, acknowledge),
        "ModifyAckDeadline": unary(rpc.MODIFY_ACK_DEADLINE, modify),
    }
    publisher = {"Publish": unary(rpc.PUBLISH, publish)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", subscriber),
            grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", publisher),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until the parent is done
    await server.stop(None)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """`host:port` of a server process."""
    command = [sys.executable, "-m", "benchmarks.pubsub_client", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


# --- receiving ---

AnySubscriber = type[Subscriber] | type[LibrarySubscriber]


async def receive(make: AnySubscriber, host: str, subscription: str, count: int) -> tuple[float, float, list[float]]:
    """Seconds, processor seconds and the latencies of receiving and acking `count` messages."""
    channel = connect("bench", host)
    enough = asyncio.Event()
    seen = 0
    latencies: list[float] = []

    def handler(message: IncomingMessage) -> None:
        nonlocal seen
        seen += 1
        if len(message.data) < len(BODY):
            latencies.append(time.monotonic() - float(message.data))
        message.ack()
        if seen == count:
            enough.set()

    subscriber = make(channel, f"projects/bench/subscriptions/{subscription}", handler)
    wall, cpu = time.perf_counter(), time.process_time()
    running = asyncio.create_task(subscriber.run())
    await enough.wait()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    await subscriber.stop(5)
    await running
    await channel.close()
    return *spent, latencies


async def receive_in_callbacks(host: str, subscription: str, count: int) -> tuple[float, float]:
    """The same by the library alone: its callback acks in its own threads, no event loop in between."""
    client = pubsub_v1.SubscriberClient(
        transport=pubsub_v1.SubscriberClient.get_transport_class()(channel=grpc.insecure_channel(host))
    )
    enough = threading.Event()
    seen = itertools.count(1)

    def callback(message: Any) -> None:
        message.ack()
        if next(seen) == count:
            enough.set()

    wall, cpu = time.perf_counter(), time.process_time()
    future = client.subscribe(f"projects/bench/subscriptions/{subscription}", callback)
    await asyncio.to_thread(enough.wait)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    future.cancel()
    await asyncio.to_thread(future.exception)
    client.close()
    return spent


# --- publishing ---


async def publish_ours(host: str, count: int) -> tuple[float, float]:
    channel = connect("bench", host)
    publisher = Publisher(channel)
    await publisher.publish(TOPIC, [OutgoingMessage(BODY, ATTRIBUTES)])
    batches = [[OutgoingMessage(BODY, ATTRIBUTES) for _ in range(100)] for _ in range(count // 100)]
    wall, cpu = time.perf_counter(), time.process_time()

    async def worker() -> None:
        while batches:
            await publisher.publish(TOPIC, batches.pop())

    await asyncio.gather(*(worker() for _ in range(4)))
    spent = time.perf_counter() - wall, time.process_time() - cpu
    await channel.close()
    return spent


async def publish_library(host: str, count: int) -> tuple[float, float]:
    client = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=grpc.insecure_channel(host)))
    await asyncio.to_thread(client.publish(TOPIC, BODY, **ATTRIBUTES).result)
    wall, cpu = time.perf_counter(), time.process_time()

    def work() -> None:
        for future in [client.publish(TOPIC, BODY, **ATTRIBUTES) for _ in range(count)]:
            future.result()

    await asyncio.to_thread(work)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    client.stop()
    return spent


async def publish_one_by_one_ours(host: str, count: int) -> list[float]:
    channel = connect("bench", host)
    publisher = Publisher(channel)
    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        await publisher.publish(TOPIC, [OutgoingMessage(BODY, ATTRIBUTES)])
        times.append(time.perf_counter() - start)
    await channel.close()
    return times[1:]


async def publish_one_by_one_library(host: str, count: int) -> list[float]:
    client = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=grpc.insecure_channel(host)))

    def work() -> list[float]:
        times = []
        for _ in range(count + 1):
            start = time.perf_counter()
            client.publish(TOPIC, BODY, **ATTRIBUTES).result()
            times.append(time.perf_counter() - start)
        return times[1:]

    times = await asyncio.to_thread(work)
    client.stop()
    return times


# --- the report ---


def row(name: str, count: int, runs: list[tuple[float, float]]) -> tuple[float, float]:
    rate = statistics.median(count / wall for wall, _ in runs)
    cost = statistics.median(cpu / count * 1e6 for _, cpu in runs)
    print(f"  {name:<44} {rate:>9,.0f} msg/s {cost:>8.1f} us CPU/msg")
    return rate, cost


def compare(ours: tuple[float, float], theirs: tuple[float, float]) -> None:
    print(f"  {'ratio':<44} {ours[0] / theirs[0]:>8.1f} x rate {theirs[1] / ours[1]:>8.1f} x less CPU")


def latency_row(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    p50, p99 = (ordered[int(len(ordered) * q)] * 1000 for q in (0.5, 0.99))
    print(f"  {name:<44} p50 {p50:>6.2f} ms   p99 {p99:>6.2f} ms")


async def measure(host: str, count: int, rounds: int) -> None:
    received: dict[str, list[tuple[float, float]]] = {"ours": [], "hand-over": [], "callback": []}
    published: dict[str, list[tuple[float, float]]] = {"ours": [], "library": []}
    for _ in range(rounds):
        received["ours"].append((await receive(Subscriber, host, f"backlog-{count}", count))[:2])
        received["hand-over"].append((await receive(LibrarySubscriber, host, f"backlog-{count}", count))[:2])
        received["callback"].append(await receive_in_callbacks(host, f"backlog-{count}", count))
        published["ours"].append(await publish_ours(host, count))
        published["library"].append(await publish_library(host, count))
    print(f"receive and ack {count:,} waiting messages of {len(BODY)} bytes, median of {rounds}")
    ours = row("Subscriber", count, received["ours"])
    compare(ours, row("library, callback in its threads", count, received["callback"]))
    compare(ours, row("library, handed over to asyncio", count, received["hand-over"]))
    print(f"publish {count:,} messages, median of {rounds}")
    ours = row("Publisher, 100 per call, 4 calls at once", count, published["ours"])
    compare(ours, row("library, its own batches", count, published["library"]))
    print("publish one message and wait for its id")
    latency_row("Publisher", await publish_one_by_one_ours(host, LATENCY_MESSAGES))
    latency_row("library", await publish_one_by_one_library(host, LATENCY_MESSAGES))
    print(
        f"from server to handler, {LATENCY_RATE:.0f} msg/s, ModifyAckDeadline answered after {ROUND_TRIP * 1000:.0f} ms"
    )
    paced = f"paced-{LATENCY_MESSAGES}"
    latency_row("Subscriber", (await receive(Subscriber, host, paced, LATENCY_MESSAGES))[2])
    latency_row("library, handed over to asyncio", (await receive(LibrarySubscriber, host, paced, LATENCY_MESSAGES))[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    with server() as host:
        asyncio.run(measure(host, options.messages, options.rounds))


if __name__ == "__main__":
    main()
