"""`tunesmith console`: a page that is signed in."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.local import Json, connect, show_json


def console(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The local stack to open.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the link in this machine's browser.")] = True,
    json: Json = False,
) -> None:
    """Print a link that opens the console signed in, and open it. The link works once, within 10 minutes."""
    with connect(data_dir) as client:
        link = client.sign_in_link()
    if json:
        show_json({"url": link})
    else:
        print(link)
    if browser:
        webbrowser.open(link)
