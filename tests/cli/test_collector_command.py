"""`leasehold-broker collector`: what it says without starting anything."""

from click.testing import CliRunner
from tests.config.test_collector_config import GOOD, write

from leasehold_broker.cli.collector import collector


def test_the_key_that_is_made_is_told(tmp_path):
    """Where it is and its public half; the second time that it was there, and the same."""
    config = write(tmp_path, GOOD)
    key = tmp_path / "state" / "checkpoint.key"
    made, again = (CliRunner().invoke(collector, ["--config", str(config), "--make-checkpoint-key"]) for _ in range(2))
    assert (made.exit_code, again.exit_code, key.stat().st_mode & 0o777) == (0, 0, 0o600)
    where, _, public = made.stdout.partition(": ")
    assert where == f"{key} is made"
    assert public.startswith("leasehold/centre+")
    assert again.stdout == f"{key} was there already: {public}"
    checked = CliRunner().invoke(collector, ["--config", str(config), "--check"])
    assert (checked.exit_code, checked.stdout) == (0, f"{config}: fine\n")
