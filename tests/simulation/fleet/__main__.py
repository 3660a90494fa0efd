"""`make simulate-fleet`: fleets on a virtual clock, seed after seed, with what was met."""

import sys

from tests.simulation.fleet.command import main

sys.exit(main())
