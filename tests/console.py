"""The `execution` console script as a person or a script runs it: a process, its output and its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(sys.executable).with_name("execution")


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Console:
    """Runs commands in a folder, with an environment that has nothing of this machine's but what a process needs."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in os.environ}
        self.environment = {**kept, "COLUMNS": "200", **environment}

    async def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
        """Start a command and leave it running."""
        return await asyncio.create_subprocess_exec(
            str(SCRIPT),
            *arguments,
            cwd=self.folder,
            env=self.environment | dict(env or {}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Outcome:
        """Run a command to its end."""
        process = await self.start(*arguments, env=env)
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())
