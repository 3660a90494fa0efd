"""Rows that are copied into PostgreSQL as bytes of ours are the rows that were meant, whatever their words are."""

import asyncpg
import pytest
from tests.fakes.engines import PostgresEngine

from leasehold_broker.adapters.postgres_collector.copied_rows import CHUNK_ROWS, COLUMNS, TEXT_MAX, copied
from leasehold_broker.domain.log_plan import LogRow

WORDS = ("", "a", "x" * TEXT_MAX, "é" * TEXT_MAX, '"\\\n\t', "\U0001f512 schlüssel", "PGCOPY\n\x7f\r\n")
BIGINT_MAX = 2**63 - 1


def row(position: int, **changed) -> LogRow:
    """A record at its place."""
    common = LogRow(position, 1, position, 5, 6, "t", "o", "", "", "", "", bytes(32), b"d" * 32, b"{}")
    return common._replace(**changed)


async def stored(engine, rows):
    """What a table like that of events has after they were copied into it."""
    async with engine.open("a1"):
        connection = await asyncpg.connect(**engine.at.settings())
        try:
            await connection.execute("CREATE TABLE copy_of_events (LIKE events)")
            await connection.copy_to_table("copy_of_events", source=copied(rows), columns=COLUMNS, format="binary")
            found = await connection.fetch(f"SELECT {', '.join(COLUMNS)} FROM copy_of_events ORDER BY position")
            return [LogRow(*one.values()) for one in found]
        finally:
            await connection.close()


async def test_every_value_comes_back_as_it_was(postgres):
    """Words of any alphabet, numbers up to the largest, bodies from nothing up, over several pieces of a copy."""
    rows = [
        row(at, type=word, outcome=word, lease=word, issuer=word[::-1], subject=word, key=word, body=word.encode() * 9)
        for at, word in enumerate(WORDS, 1)
    ]
    rows += [row(100, life=BIGINT_MAX, sequence=BIGINT_MAX, receive_wall_ms=-1, wall_ms=-BIGINT_MAX - 1)]
    rows += [row(101, previous_digest=b"short", digest=bytes(range(32)), body=b"\xff\0" * 40_000)]
    rows += [row(200 + at, lease=f"leases/{at % 3}") for at in range(2 * CHUNK_ROWS)]
    assert await stored(PostgresEngine(postgres), rows) == rows


async def test_words_that_cannot_be_kept_are_cut_and_cleaned(postgres):
    """A zero byte, which PostgreSQL keeps in no text, and a word too long for an index; the body has it whole."""
    (found,) = await stored(PostgresEngine(postgres), [row(1, lease="a\0b", subject="s" * 9999, body=b'"a\\u0000b"')])
    assert (found.lease, found.subject, found.body) == ("a\ufffdb", "s" * TEXT_MAX, b'"a\\u0000b"')


async def test_what_postgresql_cannot_keep_is_said_before_anything_is_stored(postgres):
    """A number beyond a bigint, half of a character: nothing of the copy is there."""
    for wrong in (row(2, wall_ms=BIGINT_MAX + 1), row(2, lease="\ud800")):
        with pytest.raises(ValueError):  # noqa: PT011 - any sentence
            await stored(PostgresEngine(postgres), [row(1), wrong])
