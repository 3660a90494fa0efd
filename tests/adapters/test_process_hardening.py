"""What a process gives up and takes before it opens secrets; each case in a process of its own."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from leasehold_broker.adapters.process_hardening import assert_hardened, harden_process
found = harden_process(lock_memory=False)
assert_hardened()
print(json.dumps([found.descriptors_max, *resource.getrlimit(resource.RLIMIT_NOFILE)]))
print(json.dumps(resource.getrlimit(resource.RLIMIT_CORE)))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "expected"), [(300, 4000, 4000), (300, 18000, 16384), (17000, 18000, 17000), (300, 300, 300)]
)
def test_descriptors_are_raised_as_far_as_allowed(soft, hard, expected):
    """The soft limit goes up to what full doors need, never down, never beyond the hard one; no core is left."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(soft), str(hard)], capture_output=True, check=True, timeout=60
    )
    descriptors, core = map(json.loads, done.stdout.splitlines())
    assert descriptors == [expected, expected, hard]
    assert core == [0, 0]
