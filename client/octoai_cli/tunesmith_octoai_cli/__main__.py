"""`python -m tunesmith_octoai_cli` is the `octoai` command."""

from tunesmith_octoai_cli.cli import main

main()
