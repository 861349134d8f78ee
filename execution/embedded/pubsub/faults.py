"""What can be made to go wrong at the emulator, to order."""

from __future__ import annotations

from typing import Any, Literal

import grpc
import msgspec

ORDER = "/execution.dev.Faults/Order"


class Fault(msgspec.Struct, kw_only=True):
    """For the next `count` calls of an RPC (`Publish`, `Acknowledge`, ...): fail with a status `code` before it is carried out or after (a
    lost answer), or hang for so many seconds. `break_streams` cuts every streaming pull now; `duplicate` delivers the next so many
    messages twice."""

    rpc: str = ""
    count: int = 1
    when: Literal["before", "after"] = "before"
    code: str = "UNAVAILABLE"
    hang: float = 0.0
    break_streams: bool = False
    duplicate: int = 0


class Faults:
    """The faults now ordered."""

    def __init__(self) -> None:
        self._active: list[Fault] = []
        self.duplicate = 0

    def order(self, fault: Fault) -> None:
        self.duplicate += fault.duplicate
        if fault.rpc:
            self._active.append(fault)

    def meet(self, rpc: str) -> Fault | None:
        """The fault that this call meets, used up once."""
        for fault in self._active:
            if fault.rpc == rpc:
                fault.count -= 1
                if fault.count <= 0:
                    self._active.remove(fault)
                return fault
        return None


async def order_fault(host: str, **fault: object) -> None:
    """Order a fault at the emulator at a host, from any process; see `Fault`."""
    async with grpc.aio.insecure_channel(host) as channel:
        call: Any = channel.unary_unary(ORDER)
        await call(msgspec.json.encode(fault))
