"""The service's handle on its training process."""

import asyncio
import sys

from services.trainer.child_process import ChildProcess


async def test_a_process_that_prints_without_a_line_end_is_not_blocked() -> None:
    program = "import sys; [sys.stdout.write('x' * 100_000) for _ in range(20)]"
    child = await ChildProcess.start((sys.executable, "-c", program), "cpu")
    try:
        assert await asyncio.wait_for(child.exited, 20) == 0
    finally:
        await child.kill()
