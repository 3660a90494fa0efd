"""How what is free of a fleet budget is shared among the sidecars that ask for it (E8). Pure arithmetic.

Refuses to grant: it says what each should have, who is to be granted how much of what is free, and whether somebody
waits for what others hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.amounts import UNLIMITED

WORTH_IT = 4
"""Less than a quarter of the target is not worth a commit."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one sidecar asks of an escrow.

    Args:
        sidecar: who.
        want: beyond what is held, for the near future.
        need: for a call that was refused; 0 for none.
        since: when that need arose, on any scale that grows: who waits longest comes first.
        most: it may have available, whatever it asks for; a need of more is a need of nothing.
    """

    sidecar: str
    want: int
    need: int = 0
    since: int = 0
    most: int = UNLIMITED


OUTLYING_CAP_SHARE = 4
"""One sidecar's part is worth a look from a quarter of the cap on,"""
OUTLYING_TIMES = 4
"""and from so many times an equal part of what all have on."""
FLOORS_SHARE = 8
FLOOR_SHARE = 64
"""Who wants nothing keeps a small part, so that its next call need not be refused: all of those together an eighth of
what is left, and each at most a sixty-fourth, for that much may be lost when it crashes."""


def targets(pool: int, demands: Iterable[Demand]) -> dict[str, int]:
    """What each sidecar should have available of what nobody has spent; never more than that in all (E8).

    Refused calls come first, the one that waits longest before the others, each in full or not at all: half of a
    worst case admits nothing. The rest is shared by what is wanted, the least first, nobody more than an equal share,
    and one share stays free for whoever comes next. What is left then gives everybody a floor.
    """
    asked = list(demands)
    found = dict.fromkeys((one.sidecar for one in asked), 0)
    left = pool
    for one in sorted(asked, key=lambda one: (one.since, one.sidecar)):
        if 0 < one.need <= min(left, one.most):
            found[one.sidecar] = one.need
            left -= one.need
    wants = {one.sidecar: min(one.want, one.most) - found[one.sidecar] for one in asked}
    wanting = sorted((more, sidecar) for sidecar, more in wants.items() if more > 0)
    for index, (more, sidecar) in enumerate(wanting):
        taken = min(more, left // (len(wanting) - index + 1))
        found[sidecar] += taken
        left -= taken
    floor = left // max(FLOOR_SHARE, FLOORS_SHARE * len(asked))
    return {one.sidecar: max(found[one.sidecar], min(floor, one.most)) for one in asked}


@dataclass(frozen=True, slots=True)
class Shares:
    """One round's decision.

    Args:
        aims: what each sidecar should have available.
        grants: what each is to be granted of what is free; never more than that in all.
        hungry: a refused call waits for what others hold.
    """

    aims: Mapping[str, int]
    grants: Mapping[str, int]
    hungry: bool


def shares(free: int, demands: Sequence[Demand], have: Mapping[str, int]) -> Shares:
    """Share what is free.

    Args:
        free: may be granted; negative counts as nothing.
        demands: of every sidecar that asks.
        have: what each of those has available.
    """
    aims = targets(max(0, free + sum(have.values())), demands)
    left, hungry = max(0, free), False
    grants: dict[str, int] = {}
    for one in sorted(demands, key=lambda one: (one.need <= have[one.sidecar], one.since, one.sidecar)):
        name = one.sidecar
        more = min(aims[name] - have[name], left)
        needy = have[name] < one.need <= aims[name]
        if needy and have[name] + more < one.need:
            hungry = True  # others have it, and are asked for it: a part of it would be of no use
        elif more > 0 and (needy or more * WORTH_IT >= aims[name]):
            grants[name] = more
            left -= more
    return Shares(aims, grants, hungry)


def outlying(cap: int, rights: Mapping[str, int]) -> list[str]:
    """Sidecars that have taken much more of a cap than others have; never among fewer than five.

    Args:
        cap: in force.
        rights: what each takes out of it.
    """
    having = {name: right for name, right in rights.items() if right > 0}
    bound = OUTLYING_TIMES * sum(having.values())
    return [
        name
        for name, right in sorted(having.items())
        if right * OUTLYING_CAP_SHARE >= cap and right * len(having) >= bound and len(having) > OUTLYING_TIMES
    ]
