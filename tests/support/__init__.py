"""What the tests share: worlds, stubs and measures."""
