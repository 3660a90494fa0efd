"""The code in the README runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(120)]


@pytest.mark.parametrize("readme", ["README.md", "clients/python/README.md"])
def test_the_first_example_runs(house, readme):
    """An agent's first lines, copied from the README, get an answer (with a budget that the demo's policy grants)."""
    code = re.search(r"```python\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL)[1]
    smaller = code.replace('budget="2.50", ttl="30m"', 'budget="0.05", ttl="5m"')
    assert smaller != code
    token = house.stage.workload("readme", "agents/research/readme")
    environment = {
        **os.environ,
        "LEASEHOLD_SOCKET": house.stage.sidecar_target("sidecar-b"),
        "LEASEHOLD_TOKEN_FILE": str(token),
    }

    ran = subprocess.run(
        [sys.executable, "-c", smaller], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split()[-1].isdigit()
