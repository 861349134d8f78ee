"""HTTP: probes for the container platform, metrics for Prometheus, routes beforehand for traders."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from execution.api_keys import ApiKey, Role, who
from execution.health import HealthReport
from execution.metrics import Metrics
from execution.reconcile.desk import ReconciliationDesk
from execution.routes import Refused, Routes
from execution.store import STORE_ERRORS
from schemas import exact_json

Health = Callable[[], HealthReport]
MOST_BYTES = 65_536
"""Of a request's body."""

_PROBES = ("/health/live", "/health/ready")
_CHANGES = ("/api/v1/reconcile",)
"""What a viewer's key is not enough for."""
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class PortInUse(OSError):
    """Another program listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            errno.EADDRINUSE,
            f"port {port} on {host} is taken by another program: stop it (perhaps another `execution run` or "
            "`execution dev`), or set PORT to a free one",
        )

    def __str__(self) -> str:
        return str(self.strerror)


class HttpServer:
    """Serves probes to everybody; the rest to who shows a key, or, where no keys are set, to this machine alone."""

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        health: Health,
        *,
        api_keys: tuple[ApiKey, ...] = (),
        routes: Callable[[], Routes | None] = lambda: None,
        reconciliation: Callable[[], ReconciliationDesk | None] = lambda: None,
    ) -> None:
        """
        Args:
            port: 0 for any free one.
            health: asked at every probe.
            api_keys: who may read metrics and details from other machines.
            routes: None while the venues are not there yet; `reconciliation` alike.
        """
        self._host = host
        self._port = port
        self._metrics = metrics
        self._health = health
        self._keys = api_keys
        self._routes = routes
        self._reconciliation = reconciliation
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            PortInUse: another program has it.
            OSError: the address is not one of this machine.
        """
        app = web.Application(middlewares=[self._guard], client_max_size=MOST_BYTES)
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/health/live", self._serve_live)
        app.router.add_get("/health/ready", self._serve_ready)
        app.router.add_get("/api/v1/health", self._serve_ready)
        app.router.add_get("/api/v1/routes", self._serve_routes)
        app.router.add_post("/api/v1/routes/optimize", self._serve_optimize)
        app.router.add_post("/api/v1/reconcile", self._serve_reconcile)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(self._host, self._port) from error
            raise OSError(error.errno, f"HOST {self._host}: cannot listen there: {error.strerror}") from error
        self._runner = runner
        port: int = runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Stop listening; requests under way get a second to end."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], object]) -> web.StreamResponse:
        if request.path not in _PROBES:
            refusal = self._refusal(request, Role.TRADER if request.path in _CHANGES else Role.VIEWER)
            if refusal is not None:
                return refusal
        answer = await handler(request)  # type: ignore[misc]
        assert isinstance(answer, web.StreamResponse)
        return answer

    def _refusal(self, request: web.Request, role: Role) -> web.Response | None:
        if not self._keys:
            if _is_loopback(request.remote):
                return None
            text = "API_KEYS is not set: only this machine is served. Set API_KEYS to let others in."
            return web.json_response({"error": text}, status=403)
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        key = presented.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")
        known = who(self._keys, key)
        if known is not None:
            if known.role >= role:
                return None
            text = f"the key of {known.name} is a {known.role.name.lower()}'s: this needs a {role.name.lower()}'s"
            return web.json_response({"error": text}, status=403)
        text = "an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
        return web.json_response({"error": text}, status=401, headers={"WWW-Authenticate": "Bearer"})

    async def _serve_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": _TEXT})

    async def _serve_live(self, _request: web.Request) -> web.Response:
        report = self._health()
        return web.json_response({"live": report.live, "instance": report.instance}, status=200 if report.live else 503)

    async def _serve_ready(self, _request: web.Request) -> web.Response:
        report = self._health()
        return web.Response(body=report.encode(), content_type="application/json", status=200 if report.ready else 503)

    async def _serve_routes(self, request: web.Request) -> web.Response:
        return await self._answer(lambda routes: routes.shown(request.query))

    async def _serve_optimize(self, request: web.Request) -> web.Response:
        try:
            fields = exact_json.decode(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return _json({"field": "body", "reason": f"is longer than {MOST_BYTES} bytes"}, 413)
        except ValueError as error:
            return _json({"field": "body", "reason": f"is not JSON: {error}"}, 400)
        return await self._answer(lambda routes: routes.optimize(fields))

    async def _serve_reconcile(self, request: web.Request) -> web.Response:
        desk = self._reconciliation()
        if desk is None:
            return _json({"error": "the service is starting: venues are not connected yet"}, 503)
        try:
            body = await request.read()
            fields = exact_json.decode(body) if body else {}
        except web.HTTPRequestEntityTooLarge:
            return _json({"field": "body", "reason": f"is longer than {MOST_BYTES} bytes"}, 413)
        except ValueError as error:
            return _json({"field": "body", "reason": f"is not JSON: {error}"}, 400)
        if not isinstance(fields, dict) or fields.keys() - {"venue"}:
            return _json({"field": "body", "reason": 'is {} or {"venue": NAME}'}, 422)
        venue = fields.get("venue")
        if venue is not None and not isinstance(venue, str):
            return _json({"field": "venue", "reason": "is the name of a venue"}, 422)
        unknown = desk.unknown(venue)
        if unknown is not None:
            return _json({"field": "venue", "reason": unknown}, 404)
        try:
            answer = await desk.ask(venue)
        except STORE_ERRORS as error:
            return _json({"error": f"the replicas cannot be asked: {error}"}, 503)
        return _json(answer.fields())

    async def _answer(self, ask: Callable[[Routes], Awaitable[Any]]) -> web.Response:
        routes = self._routes()
        if routes is None:
            return _json({"error": "the service is starting: venues are not connected yet"}, 503)
        try:
            return _json(await ask(routes))
        except Refused as refused:
            if refused.field:
                return _json({"field": refused.field, "reason": refused.reason}, refused.status)
            return _json({"error": refused.reason}, refused.status)


def _json(content: Any, status: int = 200) -> web.Response:
    """Numbers digit for digit."""
    return web.Response(body=exact_json.encode(content), content_type="application/json", status=status)


def _is_loopback(address: str | None) -> bool:
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback
