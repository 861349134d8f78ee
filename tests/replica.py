"""A replica in this process: ledger, leases, runner, acceptance and commands on a real store, with any adapter as its venue.

Pub/Sub is left out: signals go to the acceptor, events are read from the outbox where commits left them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from adapters.base import Adapter
from execution.accept import Acceptor
from execution.commands import Commands
from execution.costs import Costs
from execution.history import Histories
from execution.leases import ShardLeases
from execution.ledger import AcceptOutcome, Lease, Ledger, LoadedOrder, order_key
from execution.ledger.outbox import OutboxStore
from execution.market_data import MarketData
from execution.metrics import Metrics
from execution.planning import Planner
from execution.pubsub import IncomingMessage
from execution.reconcile import Reconciler
from execution.runner import Runner
from execution.store import Store
from schemas import exact_json
from schemas.event import OrderEvent
from schemas.order import ParentOrder
from schemas.tca import CostReport


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it did not come about.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {condition}")
        await asyncio.sleep(0.005)


class Replica:
    def __init__(
        self,
        store: Store,
        adapters: dict[str, Adapter],
        instance: str = "a",
        *,
        shards: int = 4,
        ttl: float = 1.0,
        max_retries: int = 3,
        execution_timeout: float | None = None,
        cancel_unknown: bool = False,
        halted: Callable[[ParentOrder], str | None] = lambda _order: None,
    ) -> None:
        self.store = store
        self.adapters = adapters
        metrics = Metrics()
        self.ledger = Ledger(store, shards=shards, instance=instance, patience=2.0)
        self.market = MarketData(adapters, now=lambda: time.time_ns() // 1_000_000, monotonic=time.monotonic)
        self.reports: dict[str, CostReport] = {}
        self.costs = Costs(self.market, self._save_report)
        self.runner = Runner(
            self.ledger,
            adapters,
            metrics,
            instance=instance,
            max_retries=max_retries,
            committed=lambda _: None,
            market=self.market,
            costs=self.costs,
            halted=halted,
        )
        self.runner.bound(sends=1000, live=10_000)
        self.acceptor = Acceptor(
            self.runner,
            self.ledger,
            Planner(
                adapters,
                self.market,
                Histories(adapters),
                execution_timeout=execution_timeout,
                signal_max_age=3600,
                bracket_distance_bps=Decimal(5),
                bracket_policy="adjust",
            ),
            metrics,
            self._bury,
            instance=instance,
            wake_outbox=lambda _: None,
        )
        self.commands = Commands(
            self.runner,
            self.ledger,
            metrics,
            self._bury,
            Histories(adapters),
            instance=instance,
            wake_outbox=lambda _: None,
        )
        self.reconciler = Reconciler(
            self.runner,
            self.ledger,
            adapters,
            metrics,
            poll_interval=0.1,
            reconcile_interval=0.2,
            cancel_unknown=cancel_unknown,
        )
        self.leases = ShardLeases(
            store,
            self.ledger,
            metrics,
            instance=instance,
            ttl=ttl,
            describe=dict,
            acquired=self._acquired,
            lost=self.runner.forget,
            hand_over=lambda shards: self.runner.hand_over(shards, 2.0),
            inbox=self.commands.read_inbox,
        )
        self.buried: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def _acquired(self, lease: Lease) -> None:
        await self.runner.take_over(lease)

    async def _bury(self, message: IncomingMessage, reason: str) -> None:
        self.buried.append(reason)

    async def start(self, shards: int | None = None) -> Replica:
        """Start, and wait until so many shards are owned (default: all)."""
        await self.ledger.open()
        self._tasks = [asyncio.create_task(self.leases.run())]
        for name, adapter in self.adapters.items():
            self._tasks.append(asyncio.create_task(adapter.run_stream(self.reconciler)))
            self._tasks.append(asyncio.create_task(self.reconciler.run(name)))
        wanted = shards if shards is not None else len(self.ledger.shards)
        await until(lambda: len(self.leases.owned) >= wanted)
        return self

    async def stop(self) -> None:
        """Stop as SIGTERM does: finish or hand over, release."""
        await self.runner.hand_over(set(self.leases.owned), 2.0)
        await self.leases.release_all()
        await self.die()

    async def die(self) -> None:
        """Stop as SIGKILL does: nothing is finished, nothing released."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for shard in list(self.leases.owned):
            self.runner.forget(shard)
        await self.costs.close()
        await self.market.close()

    async def _save_report(self, report: CostReport) -> None:
        self.reports[report.order_id] = report

    async def signal(self, signal_id: str = "sig", **fields: Any) -> AcceptOutcome:
        """Offer a signal, as the subscriber would."""
        signal = {
            "signal_id": signal_id,
            "strategy_id": "tests",
            "exchange": "alpha",
            "symbol": "BTC/USDT",
            "side": "buy",
            "quantity": Decimal(10),
            "order_type": "limit",
            "price": Decimal(100),
            **fields,
        }
        message = {name: value for name, value in signal.items() if value is not None}
        decoded = exact_json.decode(exact_json.encode(message))
        return await self.acceptor.submit(signal_id, decoded, 0, time.monotonic())

    async def order(self, signal_id: str = "sig") -> LoadedOrder:
        """The order of a signal, as the ledger has it."""
        record = await self.ledger.load(order_key(signal_id))
        assert record is not None
        return record

    async def events(self, signal_id: str = "sig") -> list[OrderEvent]:
        """The events of a signal's order, as commits left them."""
        outbox = OutboxStore(self.store, self.ledger.shards)
        found = []
        for shard in range(len(self.ledger.shards)):
            for _, data in await outbox.read(shard, 10_000):
                event = msgspec.json.decode(data, type=OrderEvent)
                if event.signal_id == signal_id:
                    found.append(event)
        return found

    async def ends(self, signal_id: str = "sig", seconds: float = 15.0) -> LoadedOrder:
        """The order of a signal, once it has ended."""
        async with asyncio.timeout(seconds):
            while True:
                record = await self.order(signal_id)
                if record.parent.status.terminal:
                    return record
                await asyncio.sleep(0.01)
