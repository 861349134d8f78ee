"""One StreamingPull call, from its first request to its end, with a pulse in both directions."""

import asyncio
import time
from typing import Any

import grpc

from execution.pubsub import rpc
from execution.pubsub.channel import PubSubChannel, being_cancelled
from execution.pubsub.errors import PermissionDenied, PubSubError, SubscriptionMissing, SubscriptionUnusable

_PULSE_PROTOCOL = 1
"""Version of the stream's protocol in which the server answers each empty request with an empty response."""
_FINISH_GRACE = 1.0
_PATIENCE = 4
"""How much longer silence is borne from a server that has never answered a heartbeat; emulators do not."""


class StreamEnded(Exception):
    """The stream is over.

    Attributes:
        code: gRPC status; OK when the server closed it in peace, CANCELLED when this side did.
        silent: it was given up because nothing had been heard.
        wanted: this side had asked for it.
    """

    def __init__(self, code: grpc.StatusCode, details: str, *, silent: bool = False, wanted: bool = False) -> None:
        self.code = code
        self.details = details
        self.silent = silent
        self.wanted = wanted
        super().__init__(f"{code.name}: {details}")


class PullStream:
    """A stream of responses.

    Attributes:
        opened_at: monotonic seconds.
        heard_at: monotonic seconds of the last response, None before the first.
        messages: received messages so far.
        answers_heartbeats: whether the server has been seen to answer heartbeats.
    """

    def __init__(
        self, channel: PubSubChannel, first_request: Any, silence_limit: float, answers_heartbeats: bool
    ) -> None:
        """
        Args:
            first_request: StreamingPullRequest that names the subscription and sets the stream up.
            silence_limit: seconds without a response after which the stream is given up, while someone reads.
            answers_heartbeats: what earlier streams have shown about the server.
        """
        first_request.protocol_version = _PULSE_PROTOCOL
        self.opened_at = time.monotonic()
        self.heard_at: float | None = None
        self.messages = 0
        self.answers_heartbeats = answers_heartbeats
        self._empty_responses = 0
        self._silence_limit = silence_limit
        self._silent = False
        self._finish = asyncio.Event()
        self._reading_since: float | None = None
        try:
            self._call = channel.open_stream(rpc.STREAMING_PULL, first_request)
        except grpc.aio.AioRpcError as error:
            raise StreamEnded(error.code(), error.details() or "") from error
        self._loop = asyncio.get_running_loop()
        self._writer = self._loop.create_task(self._write(first_request), name="pubsub-heartbeat")
        self._watch_timer = self._loop.call_later(silence_limit / 4, self._watch)

    @property
    def alive(self) -> bool:
        """Whether the call has not ended."""
        return not self._call.done()

    async def read(self) -> Any:
        """The next StreamingPullResponse.

        Raises:
            StreamEnded: there is none, for whatever reason.
        """
        self._reading_since = time.monotonic()
        try:
            response: Any = await self._call.read()
            if response is grpc.aio.EOF:
                code, details = await self._call.code(), await self._call.details()
                raise self._ended(code, details or "closed by the server")
        except grpc.aio.AioRpcError as error:
            raise self._ended(error.code(), error.details() or "") from error
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            # gRPC reports a call that was cancelled on this side as if the reading task had been.
            why = (
                "nothing heard from Pub/Sub, no message and no heartbeat"
                if self._silent
                else "ended by this side, or its connection was"
            )
            raise self._ended(grpc.StatusCode.CANCELLED, why) from None
        finally:
            self._reading_since = None
        self.heard_at = time.monotonic()
        if response.received_messages:
            self.messages += len(response.received_messages)
        else:
            self._empty_responses += 1
            # One empty response may be a greeting; two are answers.
            self.answers_heartbeats = self.answers_heartbeats or self._empty_responses >= 2
        return response

    def finish(self) -> None:
        """Ask the server to end the stream; `read` goes on until it has, or for a second.

        A stream that is simply dropped can get messages from the server for a while yet, and they are stuck until their
        leases end.
        """
        if not self._finish.is_set():
            self._finish.set()
            self._watch_timer.cancel()
            self._watch_timer = self._loop.call_later(_FINISH_GRACE, self._call.cancel)

    async def close(self) -> None:
        """End the call and the heartbeat."""
        self._watch_timer.cancel()
        self._call.cancel()
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self, first_request: Any) -> None:
        heartbeat = rpc.StreamingPullRequest()
        try:
            await self._call.write(first_request)
            while not await self._finish_asked_within(self._silence_limit / 3):
                await self._call.write(heartbeat)
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call has ended; whoever reads is told why

    async def _finish_asked_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._finish.wait()
        except TimeoutError:
            return False
        return True

    def _watch(self) -> None:
        if self._reading_since is not None:
            limit = self._silence_limit * (1 if self.answers_heartbeats else _PATIENCE)
            heard_at = self.heard_at or self.opened_at
            # What arrived while nobody read has not been heard yet: silence counts from the start of the read.
            if time.monotonic() - max(heard_at, self._reading_since) > limit:
                self._silent = True
                self._call.cancel()
                return
        self._watch_timer = self._loop.call_later(self._silence_limit / 4, self._watch)

    def _ended(self, code: grpc.StatusCode, details: str) -> StreamEnded:
        return StreamEnded(code, details, silent=self._silent, wanted=self._finish.is_set())


def permanent_error(subscription: str, code: grpc.StatusCode | None, details: str) -> PubSubError | None:
    """What a status of the stream means if trying again cannot help; None if it can."""
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return SubscriptionMissing(
                f"subscription {subscription} does not exist ({details}). Create it, or correct the setting that "
                "names it"
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDenied(
                f"no permission to pull from {subscription} ({details}). Grant roles/pubsub.subscriber on it to this "
                "service's account; a missing project or subscription can also answer this"
            )
        case grpc.StatusCode.UNAUTHENTICATED:
            return PermissionDenied(
                f"Pub/Sub does not accept the credentials for {subscription} ({details}). Run `gcloud auth application-default login`, "
                "or check GOOGLE_APPLICATION_CREDENTIALS"
            )
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.FAILED_PRECONDITION:
            return SubscriptionUnusable(f"subscription {subscription} cannot be pulled from: {details}")
        case _:
            return None
