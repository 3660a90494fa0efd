"""The demo: the whole mission on one machine, on real processes. Nothing imports this room but `cli.demo` and tests."""
