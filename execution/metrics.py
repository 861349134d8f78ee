"""Metrics, one method per thing that happens, so that callers know facts and this file knows Prometheus."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from adapters.base import AdapterHealth
from execution.ledger import Restored
from schemas.order import OrderStatus
from schemas.signal import Signal

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter that says only when the process started

_FAST = (
    0.0002,
    0.0005,
    0.00075,
    0.001,
    0.0015,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
)
_MOST_SERIES = 200
"""Label values that a venue or a sender may invent per metric; what comes later is counted as `other`."""


class _Family:
    """The children of a metric by their label values; looking one up costs a dictionary's read."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self._children: dict[Any, Any] = {}

    def __call__(self, *labels: str) -> Any:
        child = self._children.get(labels)
        if child is None:
            if len(self._children) >= _MOST_SERIES:
                labels = (*labels[:-1], "other")
            child = self._children[labels] = self._metric.labels(*labels)
        return child


class Metrics:
    """Every metric of one replica, on a registry of its own. To be used from the event loop's thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._build_info()
        self._signal_metrics()
        self._order_metrics()
        self._venue_metrics()
        self._ledger_metrics()

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        metric = Counter(f"execution_{name}", text, labels, registry=self.registry)
        return _Family(metric) if labels else metric

    def _gauge(self, name: str, text: str, *labels: str) -> Any:
        metric = Gauge(f"execution_{name}", text, labels, registry=self.registry)
        return _Family(metric) if labels else metric

    def _histogram(self, name: str, text: str, *labels: str) -> Any:
        metric = Histogram(f"execution_{name}", text, labels, registry=self.registry, buckets=_FAST)
        return _Family(metric) if labels else metric

    def _build_info(self) -> None:
        info = self._gauge("build_info", "Always 1; what runs is in the labels", "version", "python")
        info(importlib.metadata.version("execution-service"), platform.python_version()).set(1)

    # --- signals and commands ---------------------------------------------------------------------------------------

    def _signal_metrics(self) -> None:
        self._received = self._counter("signals_received", "Messages from the signals subscription")
        self._accepted = self._counter("signals_accepted", "Signals that became orders", "venue")
        self._accept_seconds = self._histogram("accept_seconds", "From a signal's receipt to its order being durable")
        self._rejected = self._counter("signals_rejected", "Signals refused, by the field at fault", "field")
        self._duplicates = self._counter("signals_duplicate", "Signals seen before")
        self._dead_letters = self._counter("messages_dead_lettered", "Messages that could not be identified")
        self._commands = self._counter("commands", "Commands taken", "type")
        self._refused_commands = self._counter("commands_refused", "Commands answered by a refusal")
        self._connected = self._gauge("subscriber_connected", "1 while the stream of signals stands")
        self._outstanding = self._gauge("subscriber_outstanding", "Signals held unacknowledged")
        self._oldest_unacked = self._gauge("subscriber_oldest_unacked_seconds", "Age of the oldest signal held")

    def signal_received(self) -> None:
        self._received.inc()

    def signal_accepted(self, venue: str, seconds: float) -> None:
        """A signal became an order, so many seconds after its receipt."""
        self._accepted(venue).inc()
        self._accept_seconds.observe(seconds)

    def signal_rejected(self, field: str) -> None:
        self._rejected(field if field in Signal.model_fields else "other").inc()

    def signal_duplicate(self) -> None:
        self._duplicates.inc()

    def signal_dead_lettered(self) -> None:
        self._dead_letters.inc()

    def command(self, kind: str) -> None:
        self._commands(kind).inc()

    def command_refused(self) -> None:
        self._refused_commands.inc()

    def subscriber(self, connected: bool, outstanding: int, oldest_unacked: float) -> None:
        """How the subscriber of signals is doing; `oldest_unacked` in seconds."""
        self._connected.set(connected)
        self._outstanding.set(outstanding)
        self._oldest_unacked.set(oldest_unacked)

    # --- orders -----------------------------------------------------------------------------------------------------

    def _order_metrics(self) -> None:
        self._live = self._gauge("live_orders", "Orders working on this replica")
        self._waiting = self._gauge("sends_waiting", "Child orders waiting to be sent")
        self._pulses_armed = self._gauge("pulses_armed", "Pulses that the dead man's switch watches")
        self._pulses_tripped = self._gauge("pulses_tripped", "Pulses that tripped it, until a person resumes")
        self._trips = self._counter("deadman_trips", "Times that this replica tripped the dead man's switch")
        self._ended = self._counter("orders_ended", "Orders that ended, by their last status", "status")
        self._arrival_to_wire = self._histogram(
            "arrival_to_wire_seconds", "From the arrival of a signal to its first request", "venue"
        )
        self._publish_to_wire = self._histogram(
            "publish_to_wire_seconds", "From the publishing of a signal to its first request", "venue"
        )
        self._decided_to_wire = self._histogram(
            "decision_to_wire_seconds", "From the decision for a child order to its request", "venue"
        )
        self._sent = self._counter("child_orders_sent", "Create requests that may have left", "venue")
        self._child_rejected = self._counter("child_orders_rejected", "Child orders refused", "venue", "code")
        self._child_unknown = self._counter("child_orders_unknown", "Creates whose outcome was not known", "venue")
        self._child_resolved = self._counter("child_orders_resolved", "Unknown ones settled", "venue", "outcome")
        self._unknown_now = self._gauge("child_orders_unknown_now", "Child orders whose outcome is not known", "venue")
        self._cancels = self._counter("cancels_sent", "Cancel requests", "venue")
        self._fills = self._counter("fills_reported", "Fills told by venues, repetitions included", "venue")
        self._booked = self._counter("fills_booked", "Fills booked, each once", "venue")
        self._gate_refusals = self._counter("gate_refusals", "Child orders stopped directly before the wire")
        self._restored = self._counter(
            "store_writes_restored", "Writes of the last seconds, after a restart of the store", "outcome"
        )
        self._illegal = self._counter("illegal_transitions", "Reports that contradict an order's state")
        self._errors = self._counter("internal_errors", "Failures of this program that nobody foresaw", "part")

    def live_orders(self, number: int) -> None:
        self._live.set(number)

    def sends_waiting(self, number: int) -> None:
        self._waiting.set(number)

    def pulses(self, armed: int, tripped: int) -> None:
        self._pulses_armed.set(armed)
        self._pulses_tripped.set(tripped)

    def deadman_tripped(self) -> None:
        self._trips.inc()

    def order_ended(self, status: OrderStatus) -> None:
        self._ended(status.value).inc()

    def child_sent(self, venue: str, waited_ms: float) -> None:
        """A create request leaves now, so many milliseconds after the decision for it."""
        self._sent(venue).inc()
        self._decided_to_wire(venue).observe(waited_ms / 1000)

    def first_sent(self, venue: str, since_arrival: float, since_publish: float) -> None:
        """The first request of an order leaves now: seconds since its signal arrived, and since it was published."""
        self._arrival_to_wire(venue).observe(since_arrival)
        self._publish_to_wire(venue).observe(max(0.0, since_publish))

    def child_rejected(self, venue: str, code: str | None) -> None:
        self._child_rejected(venue, code or "none").inc()

    def child_unknown(self, venue: str) -> None:
        self._child_unknown(venue).inc()

    def unknown_resolved(self, venue: str, *, found: bool) -> None:
        self._child_resolved(venue, "found" if found else "absent").inc()

    def unknown_children(self, venue: str, number: int) -> None:
        """How many child orders there are now whose outcome is not known."""
        self._unknown_now(venue).set(number)

    def cancel_sent(self, venue: str) -> None:
        self._cancels(venue).inc()

    def fill_reported(self, venue: str) -> None:
        self._fills(venue).inc()

    def fill_booked(self, venue: str) -> None:
        self._booked(venue).inc()

    def gate_refused(self) -> None:
        self._gate_refusals.inc()

    def restored(self, found: Mapping[Restored, int]) -> None:
        for outcome, count in found.items():
            if count:
                self._restored(outcome.name.lower()).inc(count)

    def illegal_transition(self) -> None:
        self._illegal.inc()

    def internal_error(self, part: str) -> None:
        self._errors(part).inc()

    # --- venues -----------------------------------------------------------------------------------------------------

    def _venue_metrics(self) -> None:
        self._requests = self._histogram(
            "venue_request_seconds", "Requests to venues, first byte out to answer parsed", "venue", "kind", "outcome"
        )
        self._ready = self._gauge("venue_ready", "1 while the venue can be traded on", "venue")
        self._stream = self._gauge("venue_stream_up", "1 while the venue's own stream of updates stands", "venue")
        self._limited = self._gauge("venue_limited", "1 while the venue refuses requests for rate reasons", "venue")
        self._queued = self._gauge("venue_queued_requests", "Requests waiting at the rate limit", "venue")
        self._offset = self._gauge("venue_clock_offset_seconds", "The venue's clock minus ours", "venue")
        self._circuit = self._gauge(
            "venue_circuit_open", "1 while requests to the venue are kept back, 0.5 while probed", "venue", "endpoint"
        )
        self._circuit_opened = self._counter(
            "venue_circuit_opened", "Times a venue's circuit opened, or opened again", "venue", "endpoint"
        )
        self._escalated = self._counter(
            "requests_escalated", "Cancels and questions that got no final answer for long", "venue", "request"
        )
        self._timer = self._gauge("venue_timer_armed", "1 while this replica winds up the venue's own timer", "venue")
        self._timer_failures = self._counter("venue_timer_failures", "Times a venue's own timer was not set", "venue")
        self._repairs = self._counter(
            "reconciliation_repairs",
            "What reconciliation put right: adopted, cancelled, fill_booked, ended",
            "venue",
            "kind",
        )
        self._foreign = self._gauge("foreign_orders", "Open orders on the account that are not ours", "venue")
        self._drift = self._gauge(
            "position_drift", "What of a position our fills do not explain, in the base asset", "venue", "symbol"
        )
        self._reconciled = self._gauge(
            "reconciled_timestamp_seconds", "When all of the account was last compared with the ledger", "venue"
        )
        self._unwatched = self._gauge("unwatched_orders", "Open orders under ids of ours that nobody works", "venue")

    def venue_request(self, venue: str, kind: str, outcome: str, seconds: float) -> None:
        """A request (`place`, `cancel`, `find`, ...) ended: `ok`, or the adapter error's name."""
        self._requests(venue, kind, outcome).observe(seconds)

    def stream_up(self, venue: str, up: bool) -> None:
        self._stream(venue).set(up)

    def venue(self, venue: str, health: AdapterHealth) -> None:
        """What an adapter says of itself."""
        self._ready(venue).set(health.ready)
        self._stream(venue).set(health.stream_up)
        self._limited(venue).set(health.limited_until is not None and health.limited_until > time.time() * 1000)
        self._queued(venue).set(health.queued)
        if health.clock_offset_ms is not None:
            self._offset(venue).set(health.clock_offset_ms / 1000)

    def circuit(self, venue: str, endpoint: str, opened: float) -> None:
        """How far a circuit is open: 0 closed, 0.5 being probed, 1 open."""
        self._circuit(venue, endpoint).set(opened)

    def circuit_opened(self, venue: str, endpoint: str) -> None:
        self._circuit_opened(venue, endpoint).inc()

    def request_escalated(self, venue: str, request: str) -> None:
        """A cancel or a question has had no final answer for so long that somebody should look."""
        self._escalated(venue, request).inc()

    def venue_timer(self, venue: str, armed: bool) -> None:
        """The venue's own timer was set, or left to another replica."""
        self._timer(venue).set(armed)

    def venue_timer_failed(self, venue: str) -> None:
        self._timer_failures(venue).inc()

    def repaired(self, venue: str, kind: str, number: int = 1) -> None:
        """Reconciliation put something right: `adopted`, `cancelled`, `fill_booked`, `ended`."""
        self._repairs(venue, kind).inc(number)

    def foreign_orders(self, venue: str, number: int) -> None:
        self._foreign(venue).set(number)

    def position_drift(self, venue: str, symbol: str, amount: Decimal) -> None:
        """What of a position our fills do not explain; 0: nothing."""
        self._drift(venue, symbol).set(float(amount))

    def reconciled(self, venue: str) -> None:
        """All of a venue's account was compared with the ledger."""
        self._reconciled(venue).set_to_current_time()

    def unwatched_orders(self, venue: str, number: int) -> None:
        self._unwatched(venue).set(number)

    # --- ledger and outbox ------------------------------------------------------------------------------------------

    def _ledger_metrics(self) -> None:
        self._commits = self._histogram("ledger_commit_seconds", "Commits to the ledger")
        self._commit_failures = self._counter("ledger_commit_failures", "Commits that failed", "reason")
        self._shards = self._gauge("shards_owned", "Shards of the ledger that this replica owns")
        self._lease_failures = self._counter("lease_renewals_failed", "Times the leases could not be renewed")
        self._published = self._counter("events_published", "Order events published")
        self._publish_failures = self._counter("publish_failures", "Publish requests that failed")
        self._backlog = self._gauge("outbox_backlog", "Order events committed and not published yet")
        self._oldest_event = self._gauge("outbox_oldest_seconds", "Age of the oldest of them")

    def committed(self, seconds: float) -> None:
        self._commits.observe(seconds)

    def commit_failed(self, reason: str) -> None:
        self._commit_failures(reason).inc()

    def shards_owned(self, number: int) -> None:
        self._shards.set(number)

    def lease_failed(self) -> None:
        self._lease_failures.inc()

    def events_published(self, number: int) -> None:
        self._published.inc(number)

    def publish_failed(self) -> None:
        self._publish_failures.inc()

    def outbox_backlog(self, number: int) -> None:
        self._backlog.set(number)

    def outbox_oldest(self, age: Callable[[], float]) -> None:
        """Where to read the age of the oldest unpublished event from, in seconds, whenever metrics are asked for."""
        self._oldest_event.set_function(age)
