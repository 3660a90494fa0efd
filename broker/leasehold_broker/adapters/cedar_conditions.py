"""Conditions in Cedar files. Owns their loading and asking; they can only take away from what a grant gives.

Cedar skips a `forbid` that fails to evaluate and answers Allow. So the schema always goes with the question, the
policies are validated against it when they are loaded, and anything but Allow without a single error forbids.
"""

import json
from collections.abc import Mapping
from importlib import resources

import cedarpy

from leasehold_broker.domain.amounts import METRICS
from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.policy import LeaseRequest, Terms
from leasehold_broker.domain.scope import ANYTHING, Scope

ERROR = "error"
"""The name under which a condition that could not be evaluated forbids."""

_BASE = '@id("leasehold:base") permit (principal, action == Action::"acquire", resource);'
_DAY_MS = 86_400_000


class CedarConditions:
    """All conditions of one version of the policy, parsed once."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """Parse and validate.

        Args:
            files: name to text.

        Raises:
            ValueError: with one line for each thing that is wrong, naming the file.
        """
        schema_text = resources.files(__package__).joinpath("conditions.cedarschema").read_text("utf-8")
        self._schema = cedarpy.Schema.from_str(schema_text)
        complaints: list[str] = []
        self.names: tuple[str, ...] = ()
        for file, text in files.items():
            complaints += [f"{file}: {complaint}" for complaint in self._file_wrong(text)]
        if complaints:
            raise ValueError("\n".join(complaints))
        self._policies = cedarpy.PolicySet.from_str("\n".join([_BASE, *files.values()]))

    def forbidden_by(self, identity: Identity, request: LeaseRequest, terms: Terms, wall_ms: int) -> tuple[str, ...]:
        """Names of the conditions that forbid these terms at this time, sorted; `ERROR` where one cannot be asked."""
        principal = {"type": "Subject", "id": f"{identity.subject.issuer} {identity.subject.subject}"}
        questions = [
            {
                "principal": principal,
                "action": {"type": "Action", "id": "acquire"},
                "resource": {"type": "Key", "id": scope.key},
                "context": _context(scope, request, terms, wall_ms),
            }
            for scope in terms.scopes
        ]
        try:
            answers = cedarpy.is_authorized_batch(
                questions, self._policies, _entities(principal, identity, terms), self._schema
            )
        except (ValueError, TypeError, KeyError):
            return (ERROR,)
        names: set[str] = set()
        for answer in answers:
            if answer.diagnostics.errors or answer.decision is cedarpy.Decision.NoDecision:
                names.add(ERROR)
            elif not answer.allowed:
                names |= set(answer.diagnostics.id_annotations_by_reason.values()) or {ERROR}
        if len(answers) != len(questions):
            names.add(ERROR)
        return tuple(sorted(names))

    def _file_wrong(self, text: str) -> list[str]:
        try:
            document = json.loads(cedarpy.policies_to_json_str(text))
        except ValueError as error:
            return [f"is not valid Cedar: {error}"]
        complaints: list[str] = []
        if document["templates"]:
            complaints.append("has a template; write each condition out")
        by_id = {}
        for policy_id, policy in document["staticPolicies"].items():
            name = policy.get("annotations", {}).get("id") or ""
            by_id[policy_id] = name or policy_id
            complaints += self._policy_wrong(name, policy["effect"])
        checked = cedarpy.validate_policies(text, self._schema)
        complaints += [f"{by_id.get(error.policy_id, error.policy_id)}: {error.error}" for error in checked.errors]
        if not checked.validation_passed and not checked.errors:
            complaints.append("does not fit the schema")
        return complaints

    def _policy_wrong(self, name: str, effect: str) -> list[str]:
        complaints: list[str] = []
        if not name or name == ERROR:
            complaints.append('a condition has no name; write @id("...") before it (any name but "error")')
        elif name in self.names or name.startswith("leasehold:"):
            complaints.append(f"the name {name!r} is taken; names of conditions must differ")
        if effect != "forbid":
            complaints.append(
                f"{name or 'a condition'} is a {effect}; conditions only forbid, grants are in the TOML file"
            )
        self.names = (*self.names, name)
        return complaints


def _context(scope: Scope, request: LeaseRequest, terms: Terms, wall_ms: int) -> dict[str, object]:
    day, of_day = divmod(wall_ms, _DAY_MS)
    context: dict[str, object] = {
        "grant": terms.grant.name,
        "models": scope.models or (ANYTHING,),
        "operations": scope.operations or (ANYTHING,),
        "tools": scope.tools,
        "max_output_tokens_per_request": scope.max_output_tokens_per_request,
        "ttl_seconds": terms.ttl_seconds,
        "mode": str(terms.mode),
        "purpose": request.purpose,
        "hour": of_day // 3_600_000,
        # Day 0 of Unix time was a Thursday.
        "weekday": (day + 3) % 7 + 1,
    }
    for metric, cap in zip(METRICS, terms.caps, strict=True):
        context[str(metric)] = cap
    return context


def _entities(principal: Mapping[str, str], identity: Identity, terms: Terms) -> list[dict[str, object]]:
    subject = identity.subject
    entities: list[dict[str, object]] = [
        {
            "uid": dict(principal),
            "attrs": {
                "issuer": subject.issuer,
                "subject": subject.subject,
                "environment": subject.environment,
            },
            "tags": dict(subject.labels),
            "parents": [],
        }
    ]
    seen: set[str] = set()
    for scope in terms.scopes:
        if scope.key not in seen:
            seen.add(scope.key)
            entities.append(
                {
                    "uid": {"type": "Key", "id": scope.key},
                    "attrs": {
                        "name": scope.key,
                        "provider": scope.provider,
                        "environment": terms.grant.environment,
                    },
                    "parents": [],
                }
            )
    return entities
