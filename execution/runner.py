"""The live orders of a replica: which it works, what is routed to which, and what becomes of them when a shard moves.

An order is worked by the replica that holds its shard's lease, and by nobody else. Orders that ended stay at hand for a while,
since a venue's stream echoes what its answers have told already.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import structlog

from adapters.base import Adapter, Unavailable, VenueFill, VenueOrder
from algorithms import ALGORITHMS
from execution.circuit import Circuits
from execution.costs import Costs
from execution.gates import WireGate
from execution.ledger import (
    Accepted,
    AcceptOutcome,
    Fenced,
    Lease,
    LedgerMismatch,
    LoadedOrder,
    Overfill,
    keys,
)
from execution.ledger.port import OrderLedger
from execution.market_data import MarketData
from execution.metrics import Metrics
from execution.open_listings import OpenListings
from execution.order_actor import Arrival, Desk, OrderActor
from execution.order_state import OrderState
from execution.store import STORE_ERRORS
from execution.venue_reads import Reads
from execution.venue_turns import VenueTurns
from schemas.market import MarketRules
from schemas.order import ChildState, ParentOrder

log = structlog.get_logger(__name__)

CLOSED_KEPT = 5_000
CLOSED_SECONDS = 120.0
RELOAD_SECONDS = 1.0
LOADS_AT_ONCE = 8
"""Orders of a shard that are read at a time when it is taken over: each is a round trip, and until it is read nobody works it. More
would only make every turn of the event loop longer."""


class Runner:
    def __init__(
        self,
        ledger: OrderLedger,
        adapters: dict[str, Adapter],
        metrics: Metrics,
        *,
        instance: str,
        max_retries: int,
        committed: Callable[[int], None],
        market: MarketData,
        costs: Costs,
        available: Callable[[str, ParentOrder], Decimal | None] = lambda _venue, _order: None,
        halted: Callable[[ParentOrder], str | None] = lambda _order: None,
        let_go: Callable[[list[OrderActor]], None] = lambda _actors: None,
        refused: Callable[[str], None] = lambda _venue: None,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._adapters = adapters
        self._metrics = metrics
        self._instance = instance
        self._now = now
        self._monotonic = monotonic
        self._committed = committed
        self._let_go = let_go
        self._gate = WireGate()
        self._leases: dict[int, Lease] = {}
        self._accepting: dict[int, int] = {}
        self._finishing: dict[int, Lease] = {}
        """Of shards that are handed over: what is being accepted under these leases is still ours to send."""
        self._actors: dict[str, OrderActor] = {}
        self._closed: OrderedDict[str, tuple[float, OrderActor]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[OrderActor | None]] = {}
        self._reloading: set[str] = set()
        self._outdated: set[str] = set()
        """Orders of which the ledger was found to know less than was written."""
        self._searching: dict[int, set[str]] = {}
        """Orders, by shard, whose venues are being asked for what the ledger has lost of them."""
        self._background: set[asyncio.Task[None]] = set()
        self.sends_waiting = 0
        self.room = asyncio.Event()
        """Set while intake may go on."""
        self.room.set()
        self._most_sends = 1
        self._most_live = 1
        self._desk = Desk(
            ledger=ledger,
            gate=self._gate,
            metrics=metrics,
            adapters=adapters,
            market=market,
            costs=costs,
            available=available,
            halted=halted,
            turns=VenueTurns(),
            listings=OpenListings(Reads(adapters, market.circuits, metrics)),
            max_retries=max_retries,
            now=now,
            monotonic=monotonic,
            committed=committed,
            closed=self._close,
            reopened=self._reopen,
            lost=self._lost,
            sends=self._count_sends,
            refused=refused,
        )

    def bound(self, *, sends: int, live: int) -> None:
        """Pause intake beyond so many requests waiting for their venue, or so many live orders. Each venue has its share of the former:
        one alone cannot pause it for the others."""
        self._most_sends, self._most_live = sends, live
        self._desk.turns.bound(sends // max(len(self._adapters), 1))
        self._consider_room()

    # --- what there is ----------------------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        return len(self._actors)

    @property
    def _all_ready(self) -> bool:
        return all(adapter.health.ready for adapter in self._adapters.values())

    def all_started(self) -> None:
        """Raises Unavailable: orders of a venue that was away at our start cannot be loaded yet."""
        for name, adapter in self._adapters.items():
            if not adapter.health.ready:
                raise Unavailable(f"{name} has not started yet: {adapter.health.last_error}")

    def actors(self) -> Iterator[OrderActor]:
        yield from list(self._actors.values())

    def ended(self) -> Iterator[OrderActor]:
        """Those that ended lately."""
        yield from [actor for _, actor in self._closed.values()]

    @property
    def circuits(self) -> Circuits:
        """Which venues are asked now."""
        return self._desk.market.circuits

    def unknown_children(self) -> Counter[str]:
        """How many children, by venue, wait for a certain outcome."""
        return Counter(
            child.venue
            for actor in self._actors.values()
            for child in actor.state.active
            if child.state is ChildState.UNKNOWN
        )

    def lease_of(self, key: str) -> Lease | None:
        """The lease under which this replica works an order; None when another replica does."""
        lease = self._leases.get(self._ledger.shard_of(key))
        return lease if lease is not None and lease.valid else None

    def get(self, key: str) -> OrderActor | None:
        actor = self._actors.get(key)
        if actor is None and key in self._closed:
            actor = self._closed[key][1]
        return actor

    # --- orders -----------------------------------------------------------------------------------------------------

    async def accept(
        self, key: str, content: str, parent: ParentOrder, rules: MarketRules, arrival: Arrival
    ) -> AcceptOutcome:
        """Make a parent order durable; work it at once where its shard is ours, else leave it to the owner.

        Raises:
            StoreUnavailable: not durable, or not known to be.
        """
        lease = self.lease_of(key)
        doubted = lease is not None and 0 < arrival.published_ms < lease.doubted_until
        # It may have been accepted before, and its venues have orders of it: it is loaded like another replica's, and asks them first.
        if lease is not None and not doubted:
            self._accepting[lease.shard] = self._accepting.get(lease.shard, 0) + 1
            try:
                return await self._accept_own(key, content, parent, rules, arrival, lease)
            except Fenced:
                pass
            finally:
                self._accepting[lease.shard] -= 1
        now = self._now()
        parent = _fresh(parent)
        state = OrderState(key, self._instance, parent, rules)
        state.accepted(now)
        change = state.take(now)
        assert change is not None
        return await self._ledger.accept(key, content, change, None)

    async def _accept_own(
        self,
        key: str,
        content: str,
        parent: ParentOrder,
        rules: MarketRules,
        arrival: Arrival,
        lease: Lease,
    ) -> AcceptOutcome:
        now = self._now()
        actor = self._actor(OrderState(key, self._instance, _fresh(parent), rules), lease)
        actor.arrival = arrival
        if arrival.published_ms:
            actor.state.timed("signal_to_accept", now - arrival.published_ms)
        actor.state.accepted(now)
        actor.begin()
        change = actor.state.take(now)
        assert change is not None
        try:
            outcome = await self._ledger.accept(key, content, change, lease)
        except BaseException:
            actor.drop()
            raise
        if isinstance(outcome, Accepted):
            self._committed(lease.shard)
        held = self._leases.get(lease.shard) or self._finishing.get(lease.shard)
        if isinstance(outcome, Accepted) and held is lease and self.get(key) is None:
            self._actors[key] = actor
            self._consider_room()
            actor.begun()
        else:
            actor.drop()
            if isinstance(outcome, Accepted):
                # The lease was lost and taken again meanwhile, and what is live was read before this order was written; or a command
                # had it loaded while the answer was on its way.
                self._spawn(self._take_up(key))
        return outcome

    async def _take_up(self, key: str) -> None:
        """Work an order that is ours, once the store answers."""
        while self.lease_of(key) is not None:
            try:
                await self.find(key)
            except STORE_ERRORS as error:
                log.warning("order not loaded yet", key=key, error=str(error))
                await asyncio.sleep(RELOAD_SECONDS)
            else:
                return

    async def find(self, key: str) -> OrderActor | None:
        """The order of a key, loaded when it ended long ago; None when it is unknown or not ours to change."""
        actor = self.get(key)
        lease = self.lease_of(key)
        if actor is not None or lease is None:
            return actor
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load(key, lease))
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(task)

    async def _load(self, key: str, lease: Lease) -> OrderActor | None:
        try:
            return await self._loaded(key, lease)
        except STORE_ERRORS:
            raise
        except Exception:
            # One order that this version cannot read must not keep the others of its shard from being worked.
            log.exception("an order cannot be worked: its record is not readable here", key=key)
            self._metrics.internal_error("unworkable")
            return None

    async def _loaded(self, key: str, lease: Lease) -> OrderActor | None:
        record = await self._ledger.load(key)
        if record is None or self._leases.get(lease.shard) is not lease or key in self._actors:
            if record is None:
                self._searched(key, lease)
            return self._actors.get(key)
        parent = record.parent
        adapter = self._adapters.get(parent.home)
        rules = adapter.rules(parent.symbol) if adapter is not None else None
        venues = {*parent.routes, *(child.venue for child in record.children if not child.state.terminal)}
        if rules is None or parent.algorithm not in ALGORITHMS or not venues <= self._adapters.keys():
            log.error(
                "an order cannot be worked: its venue, symbol or algorithm is not configured here",
                order_id=parent.order_id,
                venues=sorted(venues),
                symbol=parent.symbol,
                algorithm=parent.algorithm,
            )
            self._metrics.internal_error("unworkable")
            return None
        actor = self._actor(OrderState.loaded(key, self._instance, record, rules), lease)
        if actor.state.over:
            self._close(actor)
            self._searched(key, lease)
        else:
            self._actors[key] = actor
            self._gate.know(key, actor.state.children)
            actor.resume()
            if lease.suspect or key in self._outdated or record.doubt or _accepted_before(record, lease):
                self._search(actor, doubted=record.doubt)
        return actor

    def _actor(self, state: OrderState, lease: Lease) -> OrderActor:
        return OrderActor(self._desk, state, lease, ALGORITHMS[state.parent.algorithm])

    def _close(self, actor: OrderActor) -> None:
        self._actors.pop(actor.key, None)
        now = self._monotonic()
        self._closed[actor.key] = (now, actor)
        self._closed.move_to_end(actor.key)
        while self._closed:
            key, (since, ended) = next(iter(self._closed.items()))
            if len(self._closed) <= CLOSED_KEPT and now - since < CLOSED_SECONDS:
                break
            del self._closed[key]
            ended.release()
        self._consider_room()

    def _reopen(self, actor: OrderActor) -> None:
        if self._closed.pop(actor.key, None) is not None:
            self._actors[actor.key] = actor
            self._gate.know(actor.key, actor.state.children)

    def _lost(self, actor: OrderActor, error: Exception) -> None:
        """The ledger refused what an order wanted to write, or a step of it failed: it goes on from what the ledger has."""
        actor.drop()
        if self.get(actor.key) is actor:
            self._actors.pop(actor.key, None)
            self._closed.pop(actor.key, None)
        if isinstance(error, Fenced):
            actor.log.warning("order belongs to another replica now", shard=actor.lease.shard)
            return
        if isinstance(error, LedgerMismatch):
            self._outdated.add(actor.key)
        if isinstance(error, STORE_ERRORS):
            self._let_go([actor])
        if isinstance(error, (Overfill, LedgerMismatch, *STORE_ERRORS)):
            self._metrics.commit_failed(type(error).__name__)
            actor.log.critical("the ledger refused a transition; the order is loaded again", error=str(error))
        else:
            actor.log.critical("a step of an order failed; the order is loaded again", exc_info=error)
        if not isinstance(error, STORE_ERRORS):
            self._metrics.internal_error(type(error).__name__)
        # What it was about to send may have left until now, and not only until the lease was inherited.
        actor.lease.inherited_until = max(actor.lease.inherited_until, self._now())
        actor.lease.quiet_from = max(actor.lease.quiet_from, self._monotonic())
        if actor.key not in self._reloading:
            self._reloading.add(actor.key)
            self._spawn(self._reload(actor))

    async def _reload(self, actor: OrderActor) -> None:
        """Load it again soon; one at a time, since others may find and lose it meanwhile."""
        await asyncio.sleep(RELOAD_SECONDS)
        self._reloading.discard(actor.key)
        while self._leases.get(actor.lease.shard) is actor.lease:
            try:
                await self.find(actor.key)
            except STORE_ERRORS as error:
                actor.log.warning("order not loaded yet", error=str(error))
                await asyncio.sleep(RELOAD_SECONDS)
            else:
                return

    # --- shards -----------------------------------------------------------------------------------------------------

    async def take_over(self, lease: Lease) -> None:
        """Work the orders of a shard that is ours now.

        Raises:
            StoreUnavailable: they could not be read; the shard should be given up.
        """
        self._leases[lease.shard] = lease
        unread = iter(await self._ledger.live(lease.shard))
        readers = [self._find_each(unread, lease) for _ in range(LOADS_AT_ONCE)]
        for failure in await asyncio.gather(*readers, return_exceptions=True):
            if failure is not None:
                raise failure
        if lease.suspect and not self._searching.get(lease.shard):
            lease.suspect = False

    def _search(self, actor: OrderActor, *, doubted: bool) -> None:
        """Ask for what the ledger may have lost of an order; when no order is in doubt any more, its shard is whole. `doubted`: its
        record says so, until that is done."""
        self._searching.setdefault(actor.lease.shard, set()).add(actor.key)

        def done(task: asyncio.Task[bool]) -> None:
            if task.cancelled() or not task.result():
                return  # who loads it next searches again
            self._outdated.discard(actor.key)
            if doubted:
                self._spawn(self._believe(actor))
            self._searched(actor.key, actor.lease)

        actor.search().add_done_callback(done)

    def _searched(self, key: str, lease: Lease) -> None:
        """Of an order nothing is in doubt any more."""
        under_way = self._searching.get(lease.shard)
        if under_way is not None and self._leases.get(lease.shard) is lease:
            under_way.discard(key)
            if not under_way:
                lease.suspect = False

    async def _believe(self, actor: OrderActor) -> None:
        try:
            await self._ledger.believed(actor.key)
        except STORE_ERRORS as error:
            actor.log.warning("its venues are asked again by who takes it over", error=str(error))

    async def _find_each(self, unread: Iterator[str], lease: Lease) -> None:
        for key in unread:
            found = await self.find(key)
            if found is None and lease.suspect and not self._all_ready:
                # Its venue may be one that has not started: the shard is in doubt until that one can be asked.
                self._searching.setdefault(lease.shard, set()).add(key)

    async def read_inbox(self, shard: int) -> list[tuple[str, bytes]]:
        """Take what other replicas left: orders are loaded here, commands returned as (entry id, JSON)."""
        commands: list[tuple[str, bytes]] = []
        orders: list[str] = []
        for entry, kind, value in await self._ledger.read_inbox(shard):
            if kind == "order":
                # Left where it is when the shard is not, or no longer, ours: its owner would never learn of it.
                if await self.find(value.decode()) is not None or self.lease_of(value.decode()) is not None:
                    orders.append(entry)
            else:
                commands.append((entry, value))
        await self._ledger.settle_inbox(shard, orders)
        return commands

    def forget(self, shard: int) -> None:
        """The shard's lease is lost: whatever it holds is somebody else's."""
        self._leases.pop(shard, None)
        self._finishing.pop(shard, None)
        self._searching.pop(shard, None)
        for actor in self._of(shard):
            actor.drop()
            self._actors.pop(actor.key, None)
            self._closed.pop(actor.key, None)
            self._gate.forget(actor.key)
            actor.release()
        self._consider_room()

    async def hand_over(self, shards: set[int], seconds: float) -> None:
        """Stop working shards that are about to be released: finish what is under way, then forget them."""
        for shard in shards & self._leases.keys():
            self._finishing[shard] = self._leases.pop(shard)
        deadline = self._monotonic() + seconds
        while any(map(self._accepting.get, shards)) and self._monotonic() < deadline:
            await asyncio.sleep(0.005)
        for shard in shards:
            self._finishing.pop(shard, None)
        actors = [actor for shard in shards for actor in self._of(shard)]
        await asyncio.gather(*(actor.quiesce(max(deadline - self._monotonic(), 0.1)) for actor in actors))
        for shard in shards:
            self.forget(shard)

    def _of(self, shard: int) -> list[OrderActor]:
        closed = (actor for _, actor in self._closed.values())
        return [actor for actor in (*self._actors.values(), *closed) if actor.lease.shard == shard]

    # --- venues' streams --------------------------------------------------------------------------------------------

    def on_order(self, venue: str, order: VenueOrder) -> bool:
        """Book what a venue tells; False: it is of an order here that has no such child."""
        actor = self._addressed(venue, order.client_order_id, order.venue_order_id)
        if actor is not None:
            child = actor.state.child(order.client_order_id, order.venue_order_id)
            if child is not None and not actor.state.knows(child, order):
                actor.post(partial(actor.state.venue_order, child, order))
            return child is not None
        if self._may_be_ended(order.client_order_id) and (order.filled or order.fills):
            self._spawn(self._book_late(order))
        return True

    def on_fill(self, venue: str, fill: VenueFill) -> bool:
        """Book a trade that a venue tells; False: it is of an order here that has no such child."""
        actor = self._addressed(venue, fill.client_order_id, fill.venue_order_id)
        if actor is not None:
            child = actor.state.child(fill.client_order_id, fill.venue_order_id)
            if child is not None and not actor.state.knows_fill(child, fill):
                actor.post(partial(actor.state.venue_fills, child, (fill,)))
            return child is not None
        if self._may_be_ended(fill.client_order_id):
            self._spawn(self._book_late(fill))
        return True

    def _addressed(self, venue: str, client_order_id: str | None, venue_order_id: str | None) -> OrderActor | None:
        address = keys.key_of_child(client_order_id)
        if address is not None:
            return self.get(address[0])
        if venue_order_id is None:
            return None
        for actor in self._actors.values():
            child = actor.state.child(None, venue_order_id) if venue in actor.state.parent.routes else None
            if child is not None and child.venue == venue:
                return actor
        return None

    def _may_be_ended(self, client_order_id: str | None) -> bool:
        address = keys.key_of_child(client_order_id)
        return address is not None and self.lease_of(address[0]) is not None

    async def _book_late(self, told: VenueOrder | VenueFill) -> None:
        """Book a report about an order that ended long enough ago to have left memory."""
        address = keys.key_of_child(told.client_order_id)
        assert address is not None
        try:
            actor = await self.find(address[0])
        except STORE_ERRORS as error:
            log.warning(
                "a late report is left to reconciliation", client_order_id=told.client_order_id, error=str(error)
            )
            return
        if actor is None:
            return
        child = actor.state.child(told.client_order_id, told.venue_order_id)
        if child is None:
            return
        if isinstance(told, VenueOrder):
            actor.post(partial(actor.state.venue_order, child, told))
        else:
            actor.post(partial(actor.state.venue_fills, child, (told,)))

    # --- flow control -----------------------------------------------------------------------------------------------

    def _count_sends(self, change: int) -> None:
        self.sends_waiting += change
        self._consider_room()

    def _consider_room(self) -> None:
        if self.sends_waiting >= self._most_sends or len(self._actors) >= self._most_live:
            self.room.clear()
        else:
            self.room.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _accepted_before(record: LoadedOrder, lease: Lease) -> bool:
    """Whether it was accepted while nobody held its shard, so that its record cannot say whether it is in doubt."""
    return not record.children and 0 < record.parent.published_at < lease.doubted_until


def _fresh(parent: ParentOrder) -> ParentOrder:
    """A copy to try an acceptance with: an attempt that is refused leaves its marks on the record."""
    return copy.copy(parent)
