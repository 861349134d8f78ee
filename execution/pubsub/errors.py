"""What can go wrong with Pub/Sub, by what the caller can do about it."""

from collections.abc import Sequence


class PubSubError(Exception):
    """Pub/Sub could not do what was asked."""


class NoCredentials(PubSubError):
    """No Google credentials were found and no emulator is set."""


class PubSubUnreachable(PubSubError):
    """The service or the emulator does not answer."""


class PubSubNotReady(PubSubError):
    """Topics or subscriptions are missing; `problems` names each with the command that creates it."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("Pub/Sub is not ready:\n" + "\n".join(f"  - {problem}" for problem in problems))


class SubscriptionMissing(PubSubError):
    """The subscription does not exist."""


class SubscriptionUnusable(PubSubError):
    """The subscription exists but cannot be pulled from: a push subscription, a detached one, a wrong setting."""


class PermissionDenied(PubSubError):
    """The credentials are not accepted, or may not do this."""


class PublishError(PubSubError):
    """A publish did not come back with message ids.

    Attributes:
        published: ids of the leading messages of the call that were published before the failure.
    """

    def __init__(self, message: str, published: Sequence[str] = ()) -> None:
        self.published = tuple(published)
        super().__init__(message)


class PublishRetryable(PublishError):
    """Unreachable, overloaded or no answer in time: the messages *may* have been published. Publish them again."""


class PublishDenied(PublishRetryable):
    """Not published, for want of permission. The messages are good: keep them, and publish them once it is granted."""


class TopicMissing(PublishError):
    """Not published: the topic does not exist."""


class PublishRefused(PublishError):
    """Not published, and these messages never will be: one is too large, has bad attributes or breaks the schema.

    Pub/Sub refuses the whole request for one bad message: publish them one by one to find it.
    """
