"""Runs the cells of a notebook in this process, and shows the last value of each as Jupyter does."""

import ast
import json
from pathlib import Path
from typing import Any


def run(path: Path) -> list[str]:
    """Return what each cell with code shows: the HTML of its last value, or its text; empty where there is no value."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [_run("".join(cell["source"]), f"{path.name}, {cell['id']}", names) for cell in cells]


def _run(source: str, where: str, names: dict[str, Any]) -> str:
    tree = ast.parse(source)
    value = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    if value is None:
        return ""
    shown = eval(compile(ast.Expression(value.value), where, "eval"), names)
    html = getattr(shown, "_repr_html_", None)
    return html() if html else repr(shown)
