"""The account after a run: every signal, order, fill and event, by the venue's record, the ledger and what a subscriber heard."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from execution.dev.audit import Audit, audit
from execution.ledger import LedgerReader
from execution.ledger.keys import ShardKeys
from tests.system import System

REPEAT_SECONDS = 2.0


@dataclass
class Reckoning:
    """What was published and what became of it. `problems` is empty when nothing was lost or doubled."""

    published: int
    accepted: int
    ended: int
    """Orders of which the subscriber heard the last event."""
    gaps: list[str]
    """Orders whose events' numbers have gaps."""
    doubled: int
    """Client order ids with which the venue took more than one order."""
    compared: Audit
    children_at_venue: int
    created: dict[str, int] = field(default_factory=dict)
    """When each scheduled order's time began, ms since the epoch, by the ledger."""

    @property
    def problems(self) -> list[str]:
        found = list(self.compared.problems)
        if self.ended != self.published:
            found.append(f"{self.published} signals were published, of {self.ended} the end was heard")
        found += [f"the events of {signal_id} have gaps" for signal_id in self.gaps]
        if self.doubled:
            found.append(f"{self.doubled} client order ids stand for several orders at the venue")
        return found

    def __str__(self) -> str:
        compared = self.compared
        statuses = ", ".join(f"{number} {status}" for status, number in compared.statuses.most_common())
        lines = [
            f"signals published {self.published}, accepted {self.accepted}, orders in the ledger {compared.orders} ({statuses}), ends heard {self.ended}",
            f"child orders at the venue {self.children_at_venue}, doubled {self.doubled}; fills at the venue {compared.fills_at_venues},"
            f" in the ledger {compared.fills_in_ledger}, in events {compared.fills_in_events}",
            f"events heard {compared.events} (delivered again {compared.events_repeated}), orders with gaps {len(self.gaps)}",
        ]
        lines += [f"PROBLEM: {problem}" for problem in self.problems[:20]] or ["nothing lost, nothing doubled"]
        return "\n".join(lines)


async def reckon(system: System, seconds: float) -> Reckoning:
    """Compare the records once the outbox is empty; again for so many seconds while they differ, since events may be on their way."""
    deadline = time.monotonic() + seconds
    reader = LedgerReader(system.store)
    await reader.open()
    while await _unpublished(system) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    while True:
        records = {name: await system.control(name).record() for name in system.venues}
        compared = await audit(system.published, records, reader, system.watch)
        ids = Counter(order["clientOrderId"] for record in records.values() for order in record["orders"])
        watch = system.watch
        heard = {
            name: [event for event in watch.by_signal.get(name, ()) if event.sequence > 0] for name in system.published
        }
        result = Reckoning(
            published=len(system.published),
            accepted=sum(
                any(event.sequence == 1 and event.status.value == "accepted" for event in told)
                for told in heard.values()
            ),
            ended=sum(any(event.status.terminal for event in told) for told in heard.values()),
            gaps=[
                name
                for name, told in heard.items()
                if sorted(e.sequence for e in told) != list(range(1, len(told) + 1))
            ],
            doubled=sum(number > 1 for number in ids.values()),
            compared=compared,
            children_at_venue=ids.total(),
        )
        if not result.problems or time.monotonic() > deadline:
            break
        await asyncio.sleep(REPEAT_SECONDS)
    for name in getattr(watch, "schedules", ()):
        order = await system.order(name)
        result.created[name] = order.parent.created_at
    return result


async def _unpublished(system: System) -> int:
    number = int(await system.store.call("GET", "execution:shards"))
    return sum([int(await system.store.call("XLEN", ShardKeys(shard).outbox)) for shard in range(number)])
