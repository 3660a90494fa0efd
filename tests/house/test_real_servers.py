"""The servers that tests are run against: they are the real ones, and they enforce what the tests rely on."""

import subprocess

import pytest


def test_postgres_asks_for_passwords(postgres):
    """PostgreSQL of the version that is pinned; a wrong password opens nothing."""
    assert postgres.sql("SHOW server_version").startswith("16.")
    assert postgres.sql("SELECT 1, 'two'") == "1|two"
    with pytest.raises(subprocess.CalledProcessError) as refused:
        postgres.sql("SELECT 1", password="not-the-password")
    assert "password authentication failed" in refused.value.stderr
