"""The ledger against a real server: what one commit writes, and what it refuses."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from adapters.base import VenueOrder, VenueOrderStatus
from algorithms import ALGORITHMS
from algorithms.base import Place
from algorithms.decide import decide
from execution.ledger import (
    Accepted,
    Change,
    Conflict,
    Duplicate,
    Fenced,
    Lease,
    Ledger,
    LedgerMismatch,
    LedgerReader,
    Overfill,
    ShardsDiffer,
    keys,
    order_key,
)
from execution.ledger.journal import Restored
from execution.ledger.outbox import OutboxStore
from execution.store import Store, StoreUnavailable
from schemas.event import OrderEvent
from schemas.order import ChildState, Fill, OrderStatus
from schemas.terms import OrderType
from tests.unit.story import Story

TTL = 5.0


def ledger_of(store: Store, instance: str = "a", shards: int = 4) -> Ledger:
    return Ledger(store, shards=shards, instance=instance)


async def lease_of(ledger: Ledger, key: str) -> Lease:
    lease = await ledger.acquire(ledger.shard_of(key), TTL, 0.5)
    assert lease is not None
    return lease


def order(quantity: str = "10") -> tuple[Story, Change]:
    """An accepted order with its first child, as the runner would commit it."""
    story = Story(quantity)
    decision = _decide(story)
    story.state.place(decision.place[0], story.now)
    change = story.state.take(story.now)
    assert change is not None
    return story, change


def _decide(story: Story) -> Any:
    return decide(ALGORITHMS["direct"], story.plan, story.view())


async def outbox(store: Store, ledger: Ledger, key: str) -> list[OrderEvent]:
    entries = await OutboxStore(store, ledger.shards).read(ledger.shard_of(key), 1000)
    return [msgspec.json.decode(data, type=OrderEvent) for _, data in entries]


async def test_an_acceptance_is_durable_with_its_intent_and_its_event(store: Store) -> None:
    ledger = ledger_of(store)
    story, change = order("0.1234567890123456789")
    key = story.state.key
    assert await ledger.accept(key, "hash", change, await lease_of(ledger, key)) == Accepted()
    loaded = await ledger.load(key)
    assert loaded is not None
    assert loaded.parent.quantity == Decimal("0.1234567890123456789")
    assert [child.state for child in loaded.children] == [ChildState.PENDING]
    assert [event.event_type for event in await outbox(store, ledger, key)] == ["order.accepted"]
    assert await ledger.live(ledger.shard_of(key)) == [key]


async def test_the_same_signal_is_one_order_and_other_content_is_a_conflict(store: Store) -> None:
    ledger = ledger_of(store)
    story, change = order()
    key = story.state.key
    lease = await lease_of(ledger, key)
    outcomes = await asyncio.gather(*(ledger.accept(key, "hash", change, lease) for _ in range(20)))
    assert sorted(map(str, outcomes)) == sorted(map(str, [Accepted()] + [Duplicate("ord_story")] * 19))
    assert await ledger.accept(key, "other", change, None) == Conflict("ord_story")
    assert len(await outbox(store, ledger, key)) == 1


async def test_two_replicas_accept_one_signal_once(store: Store) -> None:
    first, second = ledger_of(store, "a"), ledger_of(store, "b")
    story, change = order()
    key = story.state.key
    await lease_of(first, key)
    outcomes = await asyncio.gather(*(ledger.accept(key, "hash", change, None) for ledger in (first, second) * 10))
    assert outcomes.count(Accepted()) == 1
    assert [entry[1:] for entry in await first.read_inbox(first.shard_of(key))] == [("order", key.encode())]


async def test_without_the_lease_nothing_is_owned(store: Store) -> None:
    mine, theirs = ledger_of(store, "a"), ledger_of(store, "b")
    story, change = order()
    key = story.state.key
    lease = await lease_of(mine, key)
    assert await theirs.acquire(theirs.shard_of(key), TTL, 0.5) is None
    forged = Lease(lease.shard, "b", lease.epoch, lease.valid_until, 0)
    with pytest.raises(Fenced):
        await theirs.accept(key, "hash", change, forged)
    assert await theirs.load(key) is None


async def committed(store: Store) -> tuple[Ledger, Story, Lease]:
    ledger = ledger_of(store)
    story, change = order()
    lease = await lease_of(ledger, story.state.key)
    assert await ledger.accept(story.state.key, "hash", change, lease) == Accepted()
    return ledger, story, lease


async def test_a_commit_with_an_old_epoch_is_refused(store: Store) -> None:
    ledger, story, old = await committed(store)
    key = story.state.key
    await ledger.release(old)
    new = await ledger_of(store, "b").acquire(old.shard, TTL, 0.5)
    assert new is not None
    assert new.epoch == old.epoch + 1
    story.state.request_cancel("x", story.now)
    change = story.state.take(story.now)
    assert change is not None
    with pytest.raises(Fenced):
        await ledger.commit(key, change, old)
    again = await ledger.acquire(old.shard, TTL, 0.5)
    assert again is None
    loaded = await ledger.load(key)
    assert loaded is not None
    assert not loaded.parent.cancel_requested


async def test_a_lease_that_ran_out_commits_nothing(store: Store) -> None:
    ledger = ledger_of(store)
    story, change = order()
    lease = await ledger.acquire(ledger.shard_of(story.state.key), 0.05, 0.01)
    assert lease is not None
    ends = await store.server_time_ms() + 60
    while await store.server_time_ms() < ends:
        pass
    assert not lease.valid
    with pytest.raises(Fenced):
        await ledger.accept(story.state.key, "hash", change, lease)
    assert await ledger.renew(lease, TTL, 0.5) is None


async def test_children_can_never_claim_more_than_the_parent(store: Store) -> None:
    ledger, story, lease = await committed(store)
    key = story.state.key
    state = story.state
    (first,) = state.children
    state.place(_place("0.0000000000000000001"), story.now)
    change = state.take(story.now)
    assert change is not None
    with pytest.raises(Overfill):
        await ledger.commit(key, change, lease)
    loaded = await ledger.load(key)
    assert loaded is not None
    assert [child.child_id for child in loaded.children] == [first.child_id]


async def test_what_a_child_gives_back_can_be_placed_again(store: Store) -> None:
    ledger, story, lease = await committed(store)
    state = story.state
    told = VenueOrder(
        symbol="BTC/USDT",
        client_order_id=story.child.child_id,
        venue_order_id="v1",
        status=VenueOrderStatus.CANCELED,
        filled=Decimal("3.3"),
        fills=(story.trade("3.3"),),
    )
    state.venue_order(story.child, told, story.now)
    await _commit(ledger, story, lease)
    state.place(_place("6.7"), story.now)
    await _commit(ledger, story, lease)
    state.place(_place("0.0000000000000000000000001"), story.now)
    with pytest.raises(Overfill):
        await _commit(ledger, story, lease)


async def test_a_stale_version_is_refused(store: Store) -> None:
    ledger, story, lease = await committed(store)
    story.state.parent.version = 7
    story.state.request_cancel("x", story.now)
    with pytest.raises(LedgerMismatch):
        await _commit(ledger, story, lease)


async def test_an_ended_order_leaves_the_live_set_but_not_the_memory(store: Store) -> None:
    ledger, story, lease = await committed(store)
    key, state = story.state.key, story.state
    state.rejected(story.child, "no", story.now)
    decision = _decide(story)
    state.finish(decision.done, story.now)
    await _commit(ledger, story, lease)
    assert await ledger.live(lease.shard) == []
    _, change = order()
    assert await ledger.accept(key, "hash", change, lease) == Duplicate("ord_story")
    shard = ledger.shards[lease.shard]
    order_ttl = int(await store.call("TTL", shard.order(key)))
    signal_ttl = int(await store.call("TTL", shard.signal(key)))
    assert 29 * 86400 < order_ttl <= 30 * 86400
    assert 89 * 86400 < signal_ttl <= 90 * 86400


async def test_fills_are_stored_with_their_order(store: Store) -> None:
    ledger, story, lease = await committed(store)
    state = story.state
    state.venue_fills(story.child, [story.trade("4", "99.5", fee="0.1")], story.now)
    await _commit(ledger, story, lease)
    loaded = await ledger.load(state.key)
    assert loaded is not None
    assert loaded.fills == [
        Fill(
            trade_id="t1",
            child_id=story.child.child_id,
            price=Decimal("99.5"),
            quantity=Decimal(4),
            fee=Decimal("0.1"),
            fee_asset="USDT",
            timestamp=story.now,
        )
    ]
    assert loaded.parent.status is OrderStatus.PARTIALLY_FILLED
    assert [event.sequence for event in await outbox(store, ledger, state.key)] == [1, 2, 3]


async def test_the_reader_finds_orders_by_either_id(store: Store) -> None:
    ledger, story, _ = await committed(store)
    await ledger.open()
    assert await ledger.claim_alias("ord_story", story.state.key) == story.state.key
    assert await ledger.claim_alias("ord_story", order_key("another")) == story.state.key
    reader = LedgerReader(store)
    await reader.open()
    for identifier in ("ord_story", "story"):
        found = await reader.order(identifier)
        assert found is not None
        assert found.parent.order_id == "ord_story"  # type: ignore[union-attr]
    assert await reader.order("nobody") is None
    assert len(await reader.orders()) == 1
    assert await reader.orders(status="filled") == []
    assert await ledger.find_key("ord_story", None) == story.state.key
    assert await ledger.find_key(None, "story") == story.state.key
    assert await ledger.find_key("ord_other", None) is None


async def test_another_number_of_shards_is_refused(store: Store) -> None:
    await ledger_of(store, shards=4).open()
    with pytest.raises(ShardsDiffer, match="SHARDS=4"):
        await ledger_of(store, shards=8).open()


async def test_keys_of_an_order_share_a_slot() -> None:
    shard = keys.ShardKeys(7)
    names = [shard.order("k"), shard.signal("k"), shard.live, shard.outbox, shard.lease, shard.inbox, shard.alias("o")]
    assert {name.partition("}")[0] for name in names} == {"{s07"}


def test_a_childs_id_leads_back_to_its_order() -> None:
    key = order_key("sig")
    assert keys.key_of_child(keys.child_id(key, 12)) == (key, 12)
    assert len(keys.child_id(key, 999_999)) <= 27
    for other in (None, "", "x-123", key, f"{key}n", "web_abcdef"):
        assert keys.key_of_child(other) is None


def _place(quantity: str) -> Any:
    return Place(quantity=Decimal(quantity), order_type=OrderType.LIMIT, price=Decimal(100))


async def _commit(ledger: Ledger, story: Story, lease: Lease) -> None:
    change = story.state.take(story.now)
    assert change is not None
    await ledger.commit(story.state.key, change, lease)


async def test_what_the_last_owner_sent_may_still_arrive(store: Store) -> None:
    """From when on nothing of the last owner can be under way is known on a clock that does not jump."""
    first = ledger_of(store)
    held = await lease_of(first, order_key("sig"))
    await store.call("HDEL", first.shards[held.shard].lease, "doubted")
    held.suspect = False
    await first.release(held)
    before = time.monotonic()
    taken = await lease_of(ledger_of(store, "b"), order_key("sig"))
    assert before <= taken.quiet_from <= time.monotonic()
    assert not taken.suspect


async def test_a_shard_is_in_doubt_though_its_last_owner_never_confirmed_it(store: Store) -> None:
    """It held the shard for a moment, acted, and died; what it had confirmed, if anything, the store has forgotten."""
    first = ledger_of(store)
    held = await lease_of(first, order_key("sig"))
    assert not held.suspect, "nobody held it, and nothing of it can be missing but"
    assert held.doubted_until == store.began_ms, "what was published before the store began"
    at = first.shards[held.shard].lease
    await store.call("HDEL", at, "run")
    await first.release(held)
    assert await store.call("HGET", at, "run") == (store.run_id or "").encode()
    await store.call("HSET", at, "run", "another process")
    assert (await lease_of(ledger_of(store, "b"), order_key("sig"))).suspect
    doubted = int(await store.call("HGET", at, "doubted"))
    assert doubted > held.doubted_until
    await store.call("HSET", at, "until", "0", "run", store.run_id or "")
    third = await lease_of(ledger_of(store, "d"), order_key("sig"))
    assert not third.suspect
    assert third.doubted_until == doubted, "whoever has it next still asks about what was published before"
    await store.call("HDEL", at, "run")
    await store.call("HSET", at, "until", "0")
    assert (await lease_of(ledger_of(store, "c"), order_key("sig"))).suspect


async def test_an_acceptance_whose_answer_was_lost_is_known_for_ours_though_its_owner_has_written_since(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for a duplicate, nobody would write it again if the store forgot it."""
    owner, acceptor = ledger_of(store), ledger_of(store, "b")
    story, change = order()
    key = story.state.key
    lease = await lease_of(owner, key)
    script, lost = store.script, iter([True])

    async def without_an_answer(*arguments: Any) -> Any:
        reply = await script(*arguments)
        if next(lost, False):
            story.state.pause(True, "held", story.now)
            await _commit(owner, story, lease)
            raise StoreUnavailable("cut off", maybe_applied=True)
        return reply

    monkeypatch.setattr(store, "script", without_an_answer)
    assert await acceptor.accept(key, "hash", change, None) == Duplicate("ord_story"), "it is worked already"
    await store.call("FLUSHALL")
    assert (await acceptor.restore({}))[Restored.WRITTEN] == 1
    assert await owner.load(key) is not None


@pytest.mark.parametrize("published", [1, 0])
async def test_an_order_published_before_the_store_was_lost_is_in_doubt_until_its_venues_were_asked(
    store: Store, published: int
) -> None:
    ledger = ledger_of(store)
    story, change = order()
    key = story.state.key
    await lease_of(ledger, key)
    change.parent.published_at = published and store.began_ms - 1000
    assert await ledger.accept(key, "hash", change, None) == Accepted()
    loaded = await ledger.load(key)
    assert loaded is not None
    assert loaded.doubt is bool(published)
    await ledger.believed(key)
    loaded = await ledger.load(key)
    assert loaded is not None
    assert not loaded.doubt


async def test_an_order_published_since_is_in_no_doubt(store: Store) -> None:
    ledger = ledger_of(store)
    story, change = order()
    lease = await lease_of(ledger, story.state.key)
    change.parent.published_at = lease.doubted_until + 1
    assert await ledger.accept(story.state.key, "hash", change, None) == Accepted()
    loaded = await ledger.load(story.state.key)
    assert loaded is not None
    assert not loaded.doubt


@pytest.mark.parametrize("stood", [True, False])
async def test_only_who_held_its_shard_when_the_store_was_lost_is_certain_of_it(store: Store, stood: bool) -> None:
    """Else another may have held it for a moment that the store has forgotten."""
    ledger = ledger_of(store)
    held = await lease_of(ledger, order_key("sig"))
    held.suspect = False
    assert await ledger.renew(held, TTL, 0.5) is not None
    if not stood:
        held.valid_until = time.monotonic() - 0.1
    store._servers.lost_at = time.monotonic()  # type: ignore[misc]
    ledger._reconnected(True)
    await store.call("HSET", ledger.shards[held.shard].lease, "run", "another process", "until", "0")
    again = await lease_of(ledger, order_key("sig"))
    assert again.suspect
    await ledger.restore_shard(held.shard, again)
    assert again.suspect is not stood


async def test_a_write_under_way_is_finished_though_its_caller_is_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_of(store)
    story, change = order()
    lease = await lease_of(ledger, story.state.key)
    await ledger.accept(story.state.key, "hash", change, lease)
    script, failing = store.script, iter([True])

    async def at_the_second_try(*arguments: Any) -> Any:
        if next(failing, False):
            raise StoreUnavailable("cut off", maybe_applied=False)
        return await script(*arguments)

    monkeypatch.setattr(store, "script", at_the_second_try)
    story.state.pause(True, "held", story.now)
    caller = asyncio.create_task(_commit(ledger, story, lease))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.sleep(0.3)
    loaded = await ledger.load(story.state.key)
    assert loaded is not None
    assert loaded.parent.paused
