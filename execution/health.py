"""What the service says of its own health."""

from __future__ import annotations

from typing import Literal

import msgspec

ComponentStatus = Literal["ok", "degraded", "down"]


class ComponentHealth(msgspec.Struct, frozen=True):
    """One part. `degraded` still does its work, by other means or late; `detail` is a sentence for operators."""

    name: str
    status: ComponentStatus
    detail: str = ""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """All parts of one replica.

    Attributes:
        live: the event loop and the order loop run; when not, the process is to be restarted.
    """

    instance: str
    live: bool
    components: list[ComponentHealth]

    @property
    def ready(self) -> bool:
        """Whether signals can be accepted and worked: nothing is down."""
        return self.live and all(part.status != "down" for part in self.components)

    @property
    def status(self) -> ComponentStatus:
        """The worst of all parts."""
        if not self.ready:
            return "down"
        return "degraded" if any(part.status == "degraded" for part in self.components) else "ok"

    def encode(self) -> bytes:
        """As JSON: `status`, `live`, `instance`, `components`."""
        return _encoder.encode(
            {"status": self.status, "live": self.live, "instance": self.instance, "components": self.components}
        )


_encoder = msgspec.json.Encoder()
