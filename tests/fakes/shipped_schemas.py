"""What `check-jsonschema` says of a file by the schemas that it ships, asked in this process: it is built once."""

from pathlib import Path

from click.testing import CliRunner


def verdict(schema: str, file: Path) -> int:
    """The exit code of `check-jsonschema --builtin-schema SCHEMA FILE`: 0 it is valid, 1 it is not."""
    from check_jsonschema import main  # noqa: PLC0415 - its imports build 38 grammars: two seconds

    return CliRunner().invoke(main, ["--builtin-schema", schema, str(file)], catch_exceptions=False).exit_code
