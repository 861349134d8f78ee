"""Child processes that end with us, however we end."""

from __future__ import annotations

import os
import sys

# Run by a small Python between us and the child: it asks the kernel to end the child when we die, sees to it that we have not died
# before that, and becomes the child. In a forked child of this process (preexec_fn) the same would risk a deadlock with the threads
# of grpc.
_SHIM = """
import ctypes, os, signal, sys
if ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0):
    sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


def tied_to_us(command: list[str]) -> list[str]:
    """The command, so that its process gets SIGTERM when the thread that starts it ends; unchanged where the system cannot do that.

    The program is named by its full path.
    """
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), *command]
