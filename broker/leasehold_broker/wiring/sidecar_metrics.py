"""What a sidecar's metrics endpoint shows. Reads counters that the rooms keep anyway."""

from collections.abc import Iterable, Iterator

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.adapters.sqlite_state import SqliteStateStore
from leasehold_broker.egress.server import EgressServer
from leasehold_broker.flows.books import Books
from leasehold_broker.wiring.sidecar_files import FileNews


def samples(books: Books, store: SqliteStateStore, egress: EgressServer, news: Iterable[FileNews]) -> Iterator[Sample]:
    """Everything, as it is now."""
    counters = books.counters
    live = sum(len(names) for names in tuple(books.live_of_subject.values()))
    yield Sample("live_leases", "Leases that can be used now.", live)
    yield Sample("open_calls", "Calls that are admitted and not settled.", len(books.calls))
    yield Sample("revocation_epoch", "Highest revocation that is in force here.", books.epoch)
    yield Sample("spool_bytes", "Audit records that wait for the collector, in bytes.", store.spooled_bytes)
    yield Sample("store_failed", "1 after the state disk has failed.", int(store.broken))
    for one in news:
        refused, label = int(one.is_refused), ("file", one.what)
        yield Sample("newest_file_refused", "1 while the newest version of a file is refused.", refused, label=label)
    yield Sample("leases_issued", "Leases issued.", counters.leases_issued, counter=True)
    yield Sample("calls_admitted", "Calls admitted.", counters.calls_admitted, counter=True)
    yield Sample("calls_settled", "Calls settled.", counters.calls_settled, counter=True)
    yield Sample("calls_cut", "Calls cut because their lease ended.", counters.calls_cut, counter=True)
    yield Sample("charged_micro_usd", "Micro-USD charged.", counters.charged_micro_usd, counter=True)
    yield Sample(
        "estimated_settlements",
        "Calls charged without the provider's word.",
        counters.estimated_settlements,
        counter=True,
    )
    yield Sample(
        "unpriced_settlements",
        "Calls charged at their hold because what they used has no price.",
        counters.unpriced_settlements,
        counter=True,
    )
    for file, count in tuple(counters.files_refused.items()):
        yield Sample(
            "files_refused", "New versions of files that were refused.", count, counter=True, label=("file", file)
        )
    yield Sample("keys_taken_out", "Times a provider refused a key.", counters.keys_taken_out, counter=True)
    yield Sample("outputs_lowered", "Calls whose output limit was lowered.", counters.outputs_lowered, counter=True)
    for metric, count in tuple(counters.thresholds_crossed.items()):
        yield Sample("budget_thresholds", "Budgets nearly used up.", count, counter=True, label=("metric", metric))
    for reason, count in tuple(counters.refusals.items()):
        yield Sample("refusals", "Refusals by reason.", count, counter=True, label=("reason", reason))
    counts = egress.parts.counts
    yield Sample("egress_open_connections", "Connections to the egress.", counts.open_connections)
    yield Sample("egress_open_requests", "Requests in work at the egress.", counts.open_requests)
    over_limit = counts.connections_over_limit
    yield Sample("egress_connections_over_limit", "Connections closed: too many.", over_limit, counter=True)
    yield Sample("egress_requests", "Requests at the egress.", counts.requests, counter=True)
    yield Sample("egress_relayed_bytes", "Bytes of answers relayed.", counts.relayed_bytes, counter=True)
    yield Sample("egress_keys_redacted", "Echoes of a key taken out of answers.", counts.keys_redacted, counter=True)
    yield Sample("egress_settle_failures", "Settlements that failed.", counts.settle_failures, counter=True)
    for reason, count in tuple(counts.refusals.items()):
        yield Sample("egress_refusals", "Calls that the egress refused.", count, counter=True, label=("reason", reason))
    for end, count in tuple(counts.ends.items()):
        yield Sample("calls_ended", "Calls by the way they ended.", count, counter=True, label=("end", end))
