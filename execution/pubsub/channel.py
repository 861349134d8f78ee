"""One gRPC connection to Pub/Sub, real or emulated, that can be replaced when it goes silent."""

import asyncio
from collections.abc import Callable
from typing import Any

import google.auth
import grpc
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from execution.pubsub import rpc
from execution.pubsub.errors import NoCredentials

_ENDPOINT = "pubsub.googleapis.com:443"
_KEEPALIVE_MS = 30_000
# gRPC servers answer pings on an idle connection with "too many pings" unless they are five minutes apart; Google's
# front end allows 30 s, an emulator on the same machine does not need them.
_EMULATOR_KEEPALIVE_MS = 300_000
_CLOSE_GRACE = 5.0
_NO_ANSWER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


def connect(
    project: str,
    emulator_host: str | None,
    credentials: Credentials | None = None,
    endpoint: str | None = None,
) -> "PubSubChannel":
    """A channel to Pub/Sub. Nothing is sent yet: gRPC connects with the first call. Call it inside the running loop.

    Args:
        project: project id that short topic and subscription names belong to.
        emulator_host: `host:port` of an emulator, reached without TLS and without credentials; None: the real service.
        credentials: Google credentials; None: the application default credentials of this machine.
        endpoint: `host:port` of the real service, for a regional endpoint such as `europe-west3-pubsub.googleapis.com`.

    Raises:
        NoCredentials: the real service is meant and no credentials were found.
    """
    if emulator_host:
        return PubSubChannel(project, lambda: _insecure(emulator_host), emulator_host=emulator_host)
    scopes = SubscriberGrpcAsyncIOTransport.AUTH_SCOPES
    if credentials is None:
        try:
            credentials, _ = google.auth.default(scopes=scopes)
        except DefaultCredentialsError as error:
            raise NoCredentials(
                "no Google credentials were found for Pub/Sub. Set PUBSUB_EMULATOR_HOST to use an emulator; or run "
                "`gcloud auth application-default login`; or point GOOGLE_APPLICATION_CREDENTIALS at a key file; on "
                "Google Cloud, give the service a service account"
            ) from error
    host = endpoint or _ENDPOINT
    if ":" not in host:
        host += ":443"

    def secure() -> grpc.aio.Channel:
        channel: grpc.aio.Channel = SubscriberGrpcAsyncIOTransport.create_channel(
            host, credentials=credentials, scopes=scopes, options=_options(_KEEPALIVE_MS)
        )
        return channel

    return PubSubChannel(project, secure, credentials=credentials, endpoint=host)


class PubSubChannel:
    """Calls to Pub/Sub over one connection.

    Attributes:
        project: project id that short names belong to.
        emulator_host: `host:port` of the emulator, None for the real service.
        credentials, endpoint: of the real service, None for an emulator.
        generation: how often the connection has been replaced.
    """

    def __init__(
        self,
        project: str,
        open_connection: Callable[[], grpc.aio.Channel],
        *,
        emulator_host: str | None = None,
        credentials: Credentials | None = None,
        endpoint: str | None = None,
    ) -> None:
        self.project = project
        self.emulator_host = emulator_host
        self.credentials = credentials
        self.endpoint = endpoint
        self.generation = 0
        self._open_connection = open_connection
        self._connection = open_connection()
        self._stubs: dict[str, Any] = {}
        self._closing: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    @property
    def is_emulator(self) -> bool:
        return self.emulator_host is not None

    @property
    def connected(self) -> bool:
        """Whether the connection stands (TCP, TLS and HTTP/2 are through)."""
        return self._connection.get_state() is grpc.ChannelConnectivity.READY

    async def call(self, method: rpc.Rpc, request: Any, timeout: float, wait_for_ready: bool = False) -> Any:
        """One unary call.

        Args:
            timeout: seconds after which it fails with DEADLINE_EXCEEDED.
            wait_for_ready: wait for a connection until the timeout instead of failing at once when there is none.

        Raises:
            grpc.aio.AioRpcError: any status but OK; CANCELLED when the channel was closed or replaced meanwhile.
        """
        stub = self._stubs.get(method.path)
        if stub is None:
            stub = self._stubs[method.path] = self._connection.unary_unary(
                method.path, method.request.SerializeToString, method.response.FromString
            )
        try:
            return await stub(
                request, timeout=timeout, metadata=(method.routing(request),), wait_for_ready=wait_for_ready
            )
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            # gRPC answers a call on a closing channel as if the caller's own task had been cancelled.
            raise _cancelled("the connection was closed during the call") from None
        except grpc.aio.UsageError as error:
            raise _cancelled(str(error)) from error

    async def answers(self, subscription: str, timeout: float) -> bool:
        """Whether Pub/Sub answers now on this connection, were it only that it may not say anything.

        Args:
            timeout: seconds after which it does not.
        """
        request = rpc.GetSubscriptionRequest(subscription=subscription)
        try:
            await self.call(rpc.GET_SUBSCRIPTION, request, timeout)
        except grpc.aio.AioRpcError as error:
            return error.code() not in _NO_ANSWER
        return True

    def open_stream(self, method: rpc.Rpc, first_request: Any) -> "grpc.aio.StreamStreamCall[Any, Any]":
        """Open a stream in both directions; the first request is to be written by the caller.

        Raises:
            grpc.aio.AioRpcError: CANCELLED, the channel is closed.
        """
        stub: grpc.aio.StreamStreamMultiCallable[Any, Any] = self._connection.stream_stream(
            method.path, method.request.SerializeToString, method.response.FromString
        )
        try:
            return stub(metadata=(method.routing(first_request),))
        except grpc.aio.UsageError as error:
            raise _cancelled(str(error)) from error

    def renew(self, generation: int) -> None:
        """Replace the connection by a new one; calls under way on the old one get a few seconds to end.

        Args:
            generation: the one that was found bad; nothing happens when it has been replaced already, so that
                several users of one channel may ask.
        """
        if generation != self.generation:
            return
        self.generation += 1
        old, self._connection = self._connection, self._open_connection()
        self._stubs.clear()
        closing = asyncio.create_task(old.close(_CLOSE_GRACE), name="pubsub-close-old-connection")
        self._closing[closing] = old
        closing.add_done_callback(self._closing.pop)

    async def close(self) -> None:
        """Close the connection; calls under way end with CANCELLED."""
        for connection in [*self._closing.values(), self._connection]:
            await connection.close()
        await asyncio.gather(*self._closing)


def being_cancelled() -> bool:
    """Whether the running task itself is being cancelled, as against a gRPC call that ended underneath it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _insecure(host: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(host, options=_options(_EMULATOR_KEEPALIVE_MS))


def _options(keepalive_ms: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_metadata_size", 4 * 1024 * 1024),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Without this gRPC gives a new channel the TCP connection of the old one, and `renew` would change nothing.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _cancelled(details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
