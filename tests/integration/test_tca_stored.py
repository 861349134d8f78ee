"""Cost reports in a real store: kept whole, found by time, and never more than asked for."""

from __future__ import annotations

import msgspec

from execution.store import Store
from execution.tca.stored import INDEX, load_reports, report_key, save_report
from schemas.tca import CostReport
from tests.unit.test_tca import START, costing

DAY = 86_400


def ended(order_id: str, at: int) -> CostReport:
    return msgspec.structs.replace(costing(1.5, order_id), ended_at=START + at)


async def save(store: Store, *reports: CostReport, most: int = 100) -> None:
    for report in reports:
        await save_report(store, report, DAY, most, now_ms=START + 1000)


async def ids(store: Store, since_ms: int = 0) -> list[str]:
    return [report.order_id for report in await load_reports(store, since_ms=since_ms)]


async def test_what_is_saved_is_loaded_in_order_of_the_end(store: Store) -> None:
    late, early = ended("late", 20), ended("early", 10)
    await save(store, late, early)
    assert await load_reports(store) == [early, late]
    assert await ids(store, START + 11) == ["late"]
    assert await ids(store, START + 20) == ["late"]


async def test_a_report_is_replaced_by_a_later_one_of_the_same_order(store: Store) -> None:
    await save(store, ended("o", 1), ended("o", 5))
    assert [report.ended_at for report in await load_reports(store)] == [START + 5]


async def test_only_the_latest_are_kept(store: Store) -> None:
    await save(store, *(ended(f"o{at}", at) for at in (3, 1, 5, 2, 4)), most=2)
    assert await ids(store) == ["o4", "o5"]
    assert await store.call("EXISTS", *(report_key(f"o{at}") for at in (1, 2, 3))) == 0


async def test_reports_expire_and_leave_the_index(store: Store) -> None:
    await save_report(store, ended("old", 0), DAY, 100, now_ms=START)
    assert DAY - 5 <= await store.call("TTL", report_key("old")) <= DAY
    await save_report(store, ended("new", DAY * 1000 + 1), DAY, 100, now_ms=START + DAY * 1000 + 1)
    assert await store.call("ZRANGE", INDEX, 0, -1) == [b"new"]


async def test_an_expired_or_foreign_report_is_passed_over(store: Store) -> None:
    await save(store, ended("gone", 1), ended("foreign", 2), ended("fine", 3))
    await store.call("DEL", report_key("gone"))
    await store.call("HSET", report_key("foreign"), "report", '{"order_id": 7}')
    assert await ids(store) == ["fine"]


async def test_an_order_may_be_called_like_the_index(store: Store) -> None:
    await save(store, ended("index", 1))
    assert await ids(store) == ["index"]


async def test_more_reports_than_are_asked_for_at_once(store: Store) -> None:
    await save(store, *(ended(f"o{at:03d}", at) for at in range(450)), most=1000)
    assert await ids(store) == [f"o{at:03d}" for at in range(450)]
