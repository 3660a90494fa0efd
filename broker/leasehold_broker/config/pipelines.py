"""The [[pipelines]] tables: whose jobs may have keys rotated. Owns their TOML shape and what is refused.

deploy/keys/rotations.toml explains each line.
"""

from collections.abc import Collection, Iterator, Sequence

from leasehold_broker.config.parts import Part

_GITHUB = (
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "enterprise_id",
    "workflow_ref",
    "sub",
)
_GITLAB = ("project_path", "project_id", "namespace_path", "namespace_id", "sub")
WHOSE = {"https://token.actions.githubusercontent.com": _GITHUB, "https://gitlab.com": _GITLAB}
"""Issuers that sign tokens for everybody, and the claims by which one of them is told from the others. A reusable
workflow (job_workflow_ref) is not among them: anybody's repository may call it."""


class Pipeline(Part, frozen=True):
    """One table."""

    name: str
    issuer: str
    claims: dict[str, str]
    keys: tuple[str, ...]


def wrong_pipelines(pipelines: Sequence[Pipeline], rotated: Collection[str]) -> Iterator[str]:
    """What is wrong with them.

    Args:
        pipelines: as read.
        rotated: names of the keys that have a [[rotations]] table.
    """
    for pipeline in pipelines:
        whose = WHOSE.get(pipeline.issuer.rstrip("/"))
        if not pipeline.claims or not all(pipeline.claims.values()):
            yield (
                f"pipeline {pipeline.name!r} needs claims: the issuer signs tokens for everybody's pipelines, and only "
                "its claims tell which one is yours"
            )
        elif whose is not None and not set(whose) & set(pipeline.claims):
            yield (
                f"pipeline {pipeline.name!r} would take the token of anybody's job at {pipeline.issuer}: its claims "
                f"must say whose, by one of {', '.join(whose)}"
            )
        for key in pipeline.keys:
            if key not in rotated:
                yield f"pipeline {pipeline.name!r} names key {key!r}, which no [[rotations]] has"
