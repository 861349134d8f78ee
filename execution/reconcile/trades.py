"""Trades of a venue account against the ledger: each of ours is booked once, by its trade id, however late it is found.

A few symbols per look, in turn: those of orders that live or ended lately, and those traded here within the last hour by whichever
replica. Trades are asked for from where the last look ended, and some before it. What a venue tells without our id is found by the
venue's order id, among the children known here, else by asking for that order.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Protocol, TypeAlias

import structlog

from adapters.base import VenueFill
from execution.ledger import Fenced, LedgerMismatch, keys
from execution.metrics import Metrics
from execution.order_actor import OrderActor
from execution.reconcile.report import VenueReport
from execution.reconcile.turns import in_turns
from execution.runner import Runner
from execution.store import Store
from execution.venue_reads import Reads
from schemas.order import ChildOrder

log = structlog.get_logger(__name__)

MOST_SYMBOLS = 5
"""Asked for per look."""
MOST_LOOKUPS = 20
"""Orders asked for per look, to learn whose trades are that name no order known here."""
LOOK_BACK_MS = 3_600_000
"""How far the first look goes back, and the first after shards were taken over."""
OVERLAP_MS = 60_000
"""How far each look goes back before the last: a venue's list of trades lags, and clocks differ."""
RECENT_MS = 2_000
"""Trades this recent are left to the stream and to who asks for the order."""
OTHERS_KEPT = 10_000


_Children: TypeAlias = dict[str, tuple[OrderActor, ChildOrder]]
"""The children of a symbol that are known here, by the venue's order id."""


class TradedSymbols(Protocol):
    """Which symbols were traded at a venue lately, by any replica."""

    async def note(self, venue: str, symbols: Iterable[str], at: int) -> None: ...

    async def since(self, venue: str, at: int) -> set[str]: ...


class StoredSymbols:
    """The same, in Redis: by venue a hash of symbols and when they were last looked at, in ms since the epoch."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note(self, venue: str, symbols: Iterable[str], at: int) -> None:
        """Raises: StoreUnavailable, StoreRefused"""
        pairs = [word for symbol in symbols for word in (symbol, at)]
        if pairs:
            await self._store.call("HSET", self._key(venue), *pairs)

    async def since(self, venue: str, at: int) -> set[str]:
        """Raises: StoreUnavailable, StoreRefused"""
        flat = await self._store.call("HGETALL", self._key(venue))
        return {symbol.decode() for symbol, when in zip(flat[::2], flat[1::2], strict=True) if int(when) >= at}

    @staticmethod
    def _key(venue: str) -> str:
        return f"execution:traded:{venue}"


class _Symbol:
    """How far the trades of a symbol have been looked at."""

    __slots__ = ("looked_at", "since", "wanted_at")

    def __init__(self, since: int) -> None:
        self.since = since
        """Ms since the epoch."""
        self.looked_at = 0.0
        self.wanted_at = 0
        """When an order last lived in it, in ms since the epoch."""


class Trades:
    def __init__(self, runner: Runner, reads: Reads, metrics: Metrics, traded: TradedSymbols | None = None) -> None:
        self._runner = runner
        self._reads = reads
        self._metrics = metrics
        self._traded = traded
        self._symbols: dict[str, dict[str, _Symbol]] = {}
        self._begun: set[str] = set()
        self._others: dict[str, OrderedDict[str, bool]] = {}
        """Ids of orders at a venue that were asked for and are not this replica's; whether they are foreign."""

    def restart(self) -> None:
        """Go back again: shards were taken over, and what happened before is this replica's to know."""
        self._symbols.clear()
        self._begun.clear()
        self._others.clear()

    async def look(self, venue: str, report: VenueReport) -> None:
        """Book what is missing.

        Raises:
            AdapterError: the venue did not answer; what was not looked at is looked at next time. StoreUnavailable, StoreRefused
        """
        known = await self._to_look_at(venue)
        chosen = sorted(known, key=lambda symbol: known[symbol].looked_at)[:MOST_SYMBOLS]
        lookups = MOST_LOOKUPS
        for symbol in chosen:
            at, now = known[symbol], time.time_ns() // 1_000_000
            at.looked_at = time.monotonic()
            since = at.since
            oldest, children = max(since, now - OVERLAP_MS), None
            async for page in self._reads.trades(venue, symbol, since):
                report.fills += len(page)
                settled = [trade for trade in page if trade.timestamp < now - RECENT_MS]
                if children is None and settled:
                    children = await self._children(venue, symbol)
                lookups, unsettled = await self._book(venue, symbol, settled, children or {}, lookups, report)
                oldest = min([oldest, *unsettled])
            at.since = oldest

    async def _to_look_at(self, venue: str) -> dict[str, _Symbol]:
        now = time.time_ns() // 1_000_000
        live = {
            actor.state.parent.symbol
            async for actor in in_turns([*self._runner.actors(), *self._runner.ended()])
            if venue in actor.state.parent.routes
        }
        wanted, known = set(live), self._symbols.setdefault(venue, {})
        if self._traded is not None:
            if venue not in self._begun:
                wanted |= await self._traded.since(venue, now - LOOK_BACK_MS)
            await self._traded.note(venue, sorted(live), now)
        self._begun.add(venue)
        for symbol in wanted:
            known.setdefault(symbol, _Symbol(now - LOOK_BACK_MS)).wanted_at = now
        for symbol in [symbol for symbol, at in known.items() if now - at.wanted_at > LOOK_BACK_MS]:
            del known[symbol]
        return known

    async def _book(
        self, venue: str, symbol: str, told: list[VenueFill], children: _Children, lookups: int, report: VenueReport
    ) -> tuple[int, list[int]]:
        """Book trades; returns how many lookups are left, and the times of the trades of which nothing is known yet."""
        others = self._others.setdefault(venue, OrderedDict())
        groups: dict[str, list[VenueFill]] = {}
        for trade in told:
            groups.setdefault(trade.client_order_id or f"\0{trade.venue_order_id}", []).append(trade)
        unsettled: list[int] = []
        async for trades in in_turns(groups.values()):
            client_id, venue_id = trades[0].client_order_id, trades[0].venue_order_id
            if client_id is None and venue_id in children:
                await self._book_child(venue, *children[venue_id], trades, report)
            elif client_id is None and venue_id is not None and venue_id in others:
                self._count_foreign(venue, trades if others[venue_id] else [], report)
            elif keys.key_of_child(client_id) is not None:
                lookups -= await self._find_order(venue, symbol, client_id or "", venue_id, trades, report)
            elif client_id is not None or venue_id is None:
                self._count_foreign(venue, trades, report)
            elif lookups > 0:
                lookups -= 1
                order = await self._reads.find(venue, symbol, "", venue_id)
                if order is not None and keys.key_of_child(order.client_order_id) is not None:
                    await self._find_order(venue, symbol, order.client_order_id or "", venue_id, trades, report)
                else:
                    self._remember(venue, venue_id, foreign=True)
                    self._count_foreign(venue, trades, report)
            else:
                unsettled.append(min(trade.timestamp for trade in trades))
        return lookups, unsettled

    async def _children(self, venue: str, symbol: str) -> _Children:
        found: _Children = {}
        async for actor in in_turns([*self._runner.actors(), *self._runner.ended()]):
            if actor.state.parent.symbol == symbol:
                for child in actor.state.children:
                    if child.venue == venue and child.venue_order_id is not None:
                        found[child.venue_order_id] = (actor, child)
        return found

    async def _find_order(
        self,
        venue: str,
        symbol: str,
        client_id: str,
        venue_id: str | None,
        trades: list[VenueFill],
        report: VenueReport,
    ) -> int:
        """Book trades of an order of ours that may have left memory; returns how often the venue was asked."""
        address = keys.key_of_child(client_id)
        assert address is not None
        if self._runner.lease_of(address[0]) is None:
            if venue_id is not None:
                self._remember(venue, venue_id, foreign=False)
            return 0
        actor = await self._runner.find(address[0])
        if actor is None:
            if self._runner.lease_of(address[0]) is not None:
                report.fills_unbooked += len(trades)
            return 0
        child, asked = actor.state.child(client_id), 0
        if child is None:
            asked = 1
            child = await self._adopt(venue, symbol, client_id, venue_id, actor)
            if child is None:
                report.fills_unbooked += len(trades)
                return asked
            report.adopted.append(client_id)
        await self._book_child(venue, actor, child, trades, report)
        return asked

    async def adopt(self, venue: str, symbol: str, client_id: str) -> None:
        """Have an order of ours, of which something was told, taken up by the order it belongs to.

        Raises:
            AdapterError, StoreUnavailable, StoreRefused
        """
        address = keys.key_of_child(client_id)
        actor = await self._runner.find(address[0]) if address is not None else None
        if actor is not None and actor.state.child(client_id) is None:
            await self._adopt(venue, symbol, client_id, None, actor)

    async def _adopt(
        self, venue: str, symbol: str, client_id: str, venue_id: str | None, actor: OrderActor
    ) -> ChildOrder | None:
        told = await self._reads.find(venue, symbol, client_id, venue_id)
        try:
            adopted = await actor.adopt(venue, told) if told is not None else None
        except (Fenced, LedgerMismatch):
            return None  # its next owner finds it, or the next look
        return adopted or actor.state.child(client_id)

    async def _book_child(
        self, venue: str, actor: OrderActor, child: ChildOrder, trades: list[VenueFill], report: VenueReport
    ) -> None:
        new = [trade for trade in trades if not actor.state.knows_fill(child, trade)]
        if not new:
            return
        try:
            await actor.booked(partial(actor.state.venue_fills, child, new))
        except (Fenced, LedgerMismatch):
            return  # the next owner finds them, or the next look
        log.warning(
            "trades that had been missed were booked", venue=venue, client_order_id=child.child_id, trades=len(new)
        )
        report.fills_booked += len(new)
        self._metrics.repaired(venue, "fill_booked", len(new))

    def _remember(self, venue: str, venue_id: str, *, foreign: bool) -> None:
        kept = self._others.setdefault(venue, OrderedDict())
        kept[venue_id] = foreign
        if len(kept) > OTHERS_KEPT:
            kept.popitem(last=False)

    def _count_foreign(self, venue: str, trades: list[VenueFill], report: VenueReport) -> None:
        if self._runner.lease_of(keys.order_key(f"venue\0{venue}")) is not None:
            report.foreign_fills += len(trades)
