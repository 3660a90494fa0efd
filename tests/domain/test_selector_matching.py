"""Many selectors at once match what each of them matches alone."""

from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Everything,
)
from leasehold_broker.domain.revocation_progress import LiveLease, selects_live
from leasehold_broker.domain.selector_matching import SelectorMatching

NAMES = st.sampled_from(["a", "b", "c"])
LEASES = st.sampled_from([f"leases/{number}" for number in range(6)])
SELECTORS = st.one_of(
    st.builds(ByLease, LEASES),
    st.builds(BySubject, st.sampled_from(["", "i", "j"]), st.sampled_from(["a", "b", "a*", "*"])),
    st.builds(ByKey, NAMES),
    st.builds(ByProvider, NAMES),
    st.builds(ByEnvironment, NAMES),
    st.builds(ByLabel, st.just("team"), NAMES),
    st.builds(BySidecar, NAMES),
    st.builds(Everything),
)
LIVE = st.builds(
    LiveLease,
    LEASES,
    st.one_of(st.just(""), LEASES),  # parents that are missing, and circles of them
    LEASES,
    st.sampled_from(["i", "j"]),
    NAMES,
    NAMES,
    st.tuples(NAMES),
    st.tuples(NAMES),
    st.tuples(st.tuples(st.just("team"), NAMES)),
)


@given(st.lists(SELECTORS, max_size=8), st.lists(LIVE, max_size=6, unique_by=lambda lease: lease.name), NAMES)
def test_each_lease_is_found_at_the_places_of_the_selectors_that_match_it(selectors, leases, sidecar):
    """No place twice, none left out, and no lease that nothing matches."""
    by_name = {lease.name: lease for lease in leases}
    expected = {}
    for lease in leases:
        places = [at for at, one in enumerate(selectors) if selects_live(one, lease, by_name, sidecar)]
        if places:
            expected[lease.name] = places

    found = SelectorMatching(selectors).found(leases, sidecar)

    assert {lease.name: sorted(places) for lease, places in found} == expected
    assert len(found) == len(expected)
