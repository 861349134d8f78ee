"""A simulated Redis: `SimRedis` is the server, `SimStore` the service's own client connected to it.

`test_redis_model` holds both against the real server.
"""

from tests.simulation.redis_data import ReplyError, UnknownCommand
from tests.simulation.redis_link import Fault, Faults
from tests.simulation.redis_server import SimRedis
from tests.simulation.redis_store import SimStore

__all__ = ["Fault", "Faults", "ReplyError", "SimRedis", "SimStore", "UnknownCommand"]
