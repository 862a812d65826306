"""Checks a page by axe, with the rules of WCAG 2.2 AA and its own best practices."""

import pytest
from playwright.sync_api import Page

from deploy.local.paths import PROJECT

AXE = PROJECT / "services" / "console" / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = """async (tags) => {
    const found = await axe.run({ runOnly: { type: 'tag', values: tags } });
    return found.violations.map((one) => `${one.id}: ${one.help} (${one.nodes.map((node) => node.target.join(' ')).join(', ')})`);
}"""


def findings(page: Page) -> list[str]:
    """Return what axe finds on the page as it stands."""
    if not AXE.exists():
        pytest.skip("the console's packages are not installed: `make install` does it, with npm's registry")
    # The page's policy allows no script element; the debugger's evaluation is not subject to it.
    if not page.evaluate("typeof axe !== 'undefined'"):
        page.evaluate(AXE.read_text())
    return page.evaluate(_RUN, RULES)
