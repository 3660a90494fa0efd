"""Which events alert, how urgently and in which words. A table; `alerts` makes of it what is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from leasehold_broker.domain.events import Event, EventType
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.reasons import Reason

NAME_CHARACTERS_MAX = 128


class Severity(StrEnum):
    """How urgent: the four words of PagerDuty's event format, least urgent first."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the least urgent."""
        return list(Severity).index(self)


def text(found: object, characters_max: int) -> str:
    """Bounded and on one line: it may be the words of a hostile caller."""
    if isinstance(found, bool) or not isinstance(found, str | int):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(found)[: 4 * characters_max])
    return without_secrets(shown)[:characters_max]


@dataclass(frozen=True, slots=True)
class Rule:
    """How one type of event alerts.

    Args:
        severity: how urgent.
        title: one line, of what has happened.
        advice: one sentence, of what to do.
        about: the part of the key and of the title that names what it is about.
        ends: the type whose trouble is over.
        when: only of such events.
    """

    severity: Severity
    title: str
    advice: str
    about: Callable[[Event, str], str]
    ends: EventType | None = None
    when: Callable[[Event], bool] = lambda _: True


def _named(*names: str) -> Callable[[Event, str], str]:
    def about(event: Event, _stream: str) -> str:
        return "/".join(text(event.details.get(name), NAME_CHARACTERS_MAX) for name in names)

    return about


def _lease(event: Event, _stream: str) -> str:
    return event.lease[:NAME_CHARACTERS_MAX]


def _stream(_event: Event, stream: str) -> str:
    return stream


def _task(event: Event, stream: str) -> str:
    return f"{stream}/{text(event.details.get('task'), NAME_CHARACTERS_MAX)}"


def _subject(event: Event, stream: str) -> str:
    if event.subject is None:
        return stream
    return f"{event.subject.issuer} {event.subject.subject}"[: 2 * NAME_CHARACTERS_MAX]


def _honeytoken(event: Event, stream: str) -> str:
    return f"{text(event.details.get('honeytoken'), NAME_CHARACTERS_MAX)} by {_subject(event, stream)}"


def _of_no_agent(event: Event) -> bool:
    """That an agent's own token is not taken is its trouble, which it could make as often as it likes."""
    return event.subject is None


RULES: Final[Mapping[EventType, Rule]] = {
    EventType.LEASE_FROZEN: Rule(
        Severity.CRITICAL,
        "A provider reported usage above the hold; the lease is frozen",
        "Compare the price table with the provider's bill; the lease stays frozen until it is revoked or ends.",
        _lease,
    ),
    EventType.KEY_TAKEN_OUT: Rule(
        Severity.CRITICAL,
        "A provider refuses a key; it serves no more",
        "Look at the key in the provider's console; store a new version, or enable it again.",
        _named("key"),
    ),
    EventType.KEY_TAKEN_BACK: Rule(
        Severity.INFO, "A provider accepts a key again", "", _named("key"), EventType.KEY_TAKEN_OUT
    ),
    EventType.KEY_NOT_READ: Rule(
        Severity.ERROR,
        "A key store does not give a key",
        "Look at the store, and at what its login may do; the last value serves until it is too old, if at all.",
        _named("key"),
    ),
    EventType.KEY_READ: Rule(Severity.INFO, "A key store gives a key again", "", _named("key"), EventType.KEY_NOT_READ),
    EventType.KEY_NOT_MINTED: Rule(
        Severity.ERROR,
        "No token or credential can be had for a key",
        "Look at the provider's rule or the secret engine, and at the workload token; what lives serves until its end.",
        _named("key"),
        when=_of_no_agent,
    ),
    EventType.KEY_MINTED: Rule(
        Severity.INFO,
        "A token or credential can be had again",
        "",
        _named("key"),
        EventType.KEY_NOT_MINTED,
    ),
    EventType.KEY_EXHAUSTED: Rule(
        Severity.ERROR,
        "A provider says that a key's account has nothing left",
        "Add credit or raise the limit in the provider's console; until then other keys are preferred to this one.",
        _named("key"),
    ),
    EventType.KEY_REPLENISHED: Rule(
        Severity.INFO, "A key whose account had nothing left serves again", "", _named("key"), EventType.KEY_EXHAUSTED
    ),
    EventType.KEY_NOT_REVOKED: Rule(
        Severity.ERROR,
        "A secret engine does not revoke a credential whose lease has ended",
        "Look at the engine; it is asked again until it does. By hand: vault token revoke -accessor, of the event.",
        _named("key"),
    ),
    EventType.BUDGET_THRESHOLD: Rule(
        Severity.WARNING,
        "A budget is nearly used up",
        "Raise the cap with leasehold budget, or expect refusals when it is reached.",
        _named("account", "metric"),
    ),
    EventType.BUDGET_SHARE_OUTLYING: Rule(
        Severity.WARNING,
        "One sidecar has taken much more of a fleet budget than others",
        "Compare its calls with what it says it spent; leasehold sidecar ban stops it; see sidecar_percent_max.",
        _named("budget", "metric", "sidecar"),
    ),
    EventType.POLICY_REJECTED: Rule(
        Severity.ERROR,
        "A new policy was refused; the one before stays in force",
        "Correct the file; leasehold-broker policy check says what is wrong.",
        _stream,
    ),
    EventType.POLICY_LOADED: Rule(Severity.INFO, "A policy is in force", "", _stream, EventType.POLICY_REJECTED),
    EventType.PRICES_REJECTED: Rule(
        Severity.ERROR,
        "A new price table was refused; the one before stays in force",
        "Correct the file; leasehold-broker prices says what is wrong.",
        _stream,
    ),
    EventType.PRICES_LOADED: Rule(Severity.INFO, "Prices are in force", "", _stream, EventType.PRICES_REJECTED),
    EventType.AUDIT_GAP_ACCEPTED: Rule(
        Severity.CRITICAL,
        "Records of a stream are missing from the log",
        "Read deploy/runbooks/audit.md: events were lost, or the store was restored from an older copy.",
        _named("gap_stream"),
    ),
    EventType.AUDIT_TAIL_UNKNOWN: Rule(
        Severity.WARNING,
        "How a stream's earlier life ended is not known",
        "Look for a sidecar whose state was deleted or cloned; deploy/runbooks/audit.md.",
        _named("tail_stream"),
    ),
    EventType.COLLECTOR_FAILED: Rule(
        Severity.CRITICAL,
        "A collector gives up",
        "Look at its log. Where the log itself was altered it will not start again: deploy/runbooks/audit.md.",
        _stream,
    ),
    EventType.COLLECTOR_STARTED: Rule(
        Severity.INFO, "A collector has started", "", _stream, EventType.COLLECTOR_FAILED
    ),
    EventType.AUDIT_SPOOL_FILLING: Rule(
        Severity.CRITICAL,
        "A sidecar's spool of audit events fills; when it is full it refuses work",
        "See why the collector does not take its events; free its disk, or give the sidecar a larger spool.",
        _stream,
    ),
    EventType.AUDIT_SPOOL_DRAINED: Rule(
        Severity.INFO, "A sidecar's spool has drained", "", _stream, EventType.AUDIT_SPOOL_FILLING
    ),
    EventType.AUDIT_DISK_LOW: Rule(
        Severity.CRITICAL,
        "A collector's disk is full; it takes no events, and keeps what is left for revocations",
        "Make room below its state_dir: deploy/runbooks/audit.md. Sidecars go on until their spools are full.",
        _stream,
    ),
    EventType.AUDIT_DISK_FREED: Rule(
        Severity.INFO, "A collector's disk has room again", "", _stream, EventType.AUDIT_DISK_LOW
    ),
    EventType.SINK_FAILED: Rule(
        Severity.ERROR,
        "A sink takes no events",
        "Look at the place it sends to; nothing is lost meanwhile, but a required sink ends up stopping the log.",
        _named("sink"),
    ),
    EventType.SINK_RECOVERED: Rule(
        Severity.INFO, "A sink takes events again", "", _named("sink"), EventType.SINK_FAILED
    ),
    EventType.REVOCATION_LAGGING: Rule(
        Severity.CRITICAL,
        "A revocation has not reached every sidecar",
        "leasehold revocations NAME names them; stop one that stays behind. One that is cut off stops by itself.",
        _named("epoch"),
    ),
    EventType.REVOCATION_COMPLETE: Rule(
        Severity.INFO,
        "A revocation has reached every sidecar",
        "",
        _named("epoch"),
        EventType.REVOCATION_LAGGING,
    ),
    EventType.SIGNAL_NOT_TAKEN: Rule(
        Severity.ERROR,
        "A receiver of security events will not take one",
        "Look at what it says; it was told nothing of that revocation.",
        _named("stream"),
    ),
    EventType.ALERT_REJECTED: Rule(
        Severity.ERROR,
        "An endpoint for alerts will not take one",
        "Look at what it answered; that alert was given up there.",
        _named("endpoint"),
    ),
    EventType.FINDING_HONEYTOKEN: Rule(
        Severity.CRITICAL,
        "A honeytoken was used",
        "Treat that agent and whatever it can read as compromised: see where it was laid, and what else lies there.",
        _honeytoken,
    ),
    EventType.FINDING_SPEND_RATE: Rule(
        Severity.ERROR,
        "A subject spends far more than it usually does",
        "See its calls with leasehold audit query --subject; revoke it if nobody can say why.",
        _subject,
    ),
    EventType.FINDING_REFUSALS: Rule(
        Severity.WARNING,
        "A subject is refused far more often than it usually is",
        "Look at the reasons: a broken agent tries the same, a hostile one tries everything.",
        _subject,
    ),
    EventType.FINDING_NEW_ROUTE: Rule(
        Severity.WARNING,
        "A subject calls what it never called before",
        "Ask its owner; if that is not wanted, narrow its scope in the policy.",
        _subject,
    ),
    EventType.FINDING_ODD_HOUR: Rule(
        Severity.WARNING,
        "A subject calls at an hour when it never did",
        "Ask its owner whether a job was moved; else look at what it calls.",
        _subject,
    ),
    EventType.FINDING_RESPONSE_WITHHELD: Rule(
        Severity.CRITICAL,
        "A finding would have been answered with a revocation, and was not",
        "Decide by hand: leasehold revoke. If the rule is wrong, mend it before you raise the bound.",
        _subject,
    ),
    EventType.KEY_ROTATION_FAILED: Rule(
        Severity.ERROR,
        "A rotation of a key has failed; one key serves",
        "See which and why with leasehold keys rotations; deploy/runbooks/rotation.md says what to do for each reason.",
        _named("key"),
    ),
    EventType.KEY_ROTATION_DONE: Rule(
        Severity.INFO, "A key is rotated", "", _named("key"), EventType.KEY_ROTATION_FAILED
    ),
    EventType.KEY_ROTATION_AWAITS_PERSON: Rule(
        Severity.WARNING,
        "A rotation of a key waits for a person",
        "Make the new key and hand it in with leasehold keys supply, or end the old one in the provider's console.",
        _named("key"),
    ),
    EventType.KEY_ROTATION_DELAYED: Rule(
        Severity.WARNING,
        "A rotation of a key has to wait",
        "See why with leasehold keys rotations; it goes on by itself once the provider or the store does.",
        _named("key"),
    ),
    EventType.KEY_DISABLING_FAILED: Rule(
        Severity.CRITICAL,
        "A key that was to be switched off may still work at its provider",
        "End it in the provider's console now, and look at what was called with it.",
        _named("key"),
    ),
    EventType.KEY_DISABLING_AWAITS_PERSON: Rule(
        Severity.CRITICAL,
        "A key has to be switched off by hand at its provider",
        "End it in the provider's console now; it is tried until it is refused there.",
        _named("key"),
    ),
    EventType.KEY_DISABLING_DELAYED: Rule(
        Severity.ERROR,
        "A key could not be switched off at its provider yet",
        "It is tried again; see why with leasehold keys rotations, or end it in the provider's console.",
        _named("key"),
    ),
    EventType.KEY_DISABLED_UPSTREAM: Rule(
        Severity.INFO, "A key is switched off at its provider", "", _named("key"), EventType.KEY_DISABLING_DELAYED
    ),
    EventType.TASK_FAILED: Rule(
        Severity.ERROR,
        "A background task fails and is tried again",
        "Look at the log of that process; its work is not done meanwhile.",
        _task,
    ),
    EventType.TASK_RECOVERED: Rule(
        Severity.INFO, "A background task goes well again", "", _task, EventType.TASK_FAILED
    ),
}
BY_REASON: Final[Mapping[Reason, tuple[str, Rule]]] = {
    Reason.AUDIT_SINK_BEHIND: (
        "audit.sink_behind",
        Rule(
            Severity.CRITICAL,
            "A required sink is too far behind; the collector takes no events",
            "Mend the sink, or make it best-effort in the collector's configuration.",
            _stream,
        ),
    ),
    Reason.PRICE_UNKNOWN: (
        "model.unknown",
        Rule(
            Severity.WARNING,
            "A model without a price was asked for; the call was refused",
            "If it is wanted, give it a price in the price table's override.",
            _named("provider", "model"),
        ),
    ),
    Reason.AUDIT_CHAIN_BROKEN: (
        "audit.chain_broken",
        Rule(
            Severity.CRITICAL,
            "A stream does not continue what the log has of it",
            "Keep both copies and read deploy/runbooks/audit.md: altered, forked, or a cloned sidecar.",
            _subject,
        ),
    ),
    Reason.SIDECAR_BANNED: (
        "audit.not_its_own",
        Rule(
            Severity.ERROR,
            "A sidecar is banned and goes on trying, or wrote what is not for it to write",
            "See which with leasehold audit query --type audit.refused; stop its process, or ban it.",
            _subject,
        ),
    ),
    Reason.AUDIT_EPOCH_FENCED: (
        "audit.fenced",
        Rule(
            Severity.CRITICAL,
            "An earlier life of a sidecar tries to go on",
            "Two processes write one stream, or a copy was started: stop the one that is not wanted.",
            _subject,
        ),
    ),
}
