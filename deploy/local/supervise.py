"""The supervisor's process: `python -m deploy.local.supervise DATA_DIR PORT [--external]`."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from deploy.local import state
from deploy.local.logs import LogSink
from deploy.local.paths import StackPaths
from deploy.local.sign_in import console_line
from deploy.local.stack import plan
from deploy.local.state import ProcessState, StackState
from deploy.local.supervisor import StartError, Supervisor

_START_TIMEOUT_S = 180.0
_LOCK_TIMEOUT_S = 40.0
"""Time for the processes of a killed supervisor to end."""


def take_lock(path: Path) -> int:
    """Take the stack's lock. Waits for the processes of a killed supervisor; raises StartError if another stack holds it."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while (fd := state.open_lock(path)) is None:
        if time.monotonic() > deadline:
            msg = f"another stack is running on {path.parent}: stop it with `tunesmith down --data-dir {path.parent}`"
            raise StartError(msg)
        time.sleep(0.1)
    return fd


async def supervise(paths: StackPaths, port: int, *, only_external: bool, terminal: bool) -> int:
    """Run the stack until SIGINT or SIGTERM; a second signal kills it. Returns the exit status."""
    paths.create()
    lock = take_lock(paths.lock)
    laid_out = plan(paths, port, only_external=only_external)
    sink = LogSink(paths.logs, sys.stdout if terminal else None)
    current = StackState(supervisor=os.getpid(), url=laid_out.url, ready=False, env=laid_out.env)

    def save() -> None:
        current.processes = {
            name: ProcessState(pid=status.pid, restarts=status.restarts, ready=status.ready)
            for name, status in supervisor.statuses.items()
        }
        state.write(paths.state, current)

    supervisor = Supervisor(laid_out.processes, sink, lock, save)
    save()
    asked_to_stop = asyncio.Event()

    def on_signal() -> None:
        if asked_to_stop.is_set():
            supervisor.kill()
        asked_to_stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    starting = asyncio.create_task(supervisor.start(_START_TIMEOUT_S))
    stopping = asyncio.create_task(asked_to_stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        try:
            starting.result()
        except StartError as error:
            current.error = str(error)
            sink.write("supervisor", f"the stack did not start: {error}")
        else:
            current.ready = True
            sink.write("supervisor", f"ready at {laid_out.url}")
            save()
            if terminal and not only_external:
                # Printed and not logged: the link signs in.
                print(await asyncio.to_thread(console_line, paths, laid_out.url), flush=True)
            await stopping
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError, StartError):
        await starting
    save()
    await supervisor.stop()
    save()
    sink.close()
    return 1 if current.error else 0


def main() -> None:
    """Run from the command line."""
    folder, port, *rest = sys.argv[1:]
    terminal = "--quiet" not in rest
    code = asyncio.run(supervise(StackPaths(Path(folder)), int(port), only_external="--external" in rest, terminal=terminal))
    sys.exit(code)


if __name__ == "__main__":
    main()
