"""The `octoai` command for Tunesmith."""
