"""List what has been taught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dreamctl.context import Context
from dreamctl.domain.concept import Concept
from dreamctl.domain.versions import Version
from dreamctl.workflows.harvest import harvest


@dataclass(frozen=True)
class Known:
    """A concept and its model versions, oldest first."""

    concept: Concept
    versions: list[Version]

    @property
    def bases(self) -> list[str]:
        return sorted({version.base for version in self.versions})

    @property
    def targets(self) -> list[str]:
        return sorted({version.target.value for version in self.versions})

    def data(self) -> dict[str, Any]:
        """JSON-ready; its keys are an interface."""
        return {
            **self.concept.model_dump(mode="json"),
            "versions": [
                {
                    "version": version.name,
                    "target": version.target.value,
                    "base": version.base,
                    "run": version.run_id,
                    "digest": version.digest,
                    "steps": version.steps,
                    "created": version.created,
                }
                for version in self.versions
            ],
        }


def identifiers(context: Context) -> list[Known]:
    """Every concept with its versions, in the order in which they were first taught."""
    harvest(context)
    versions = context.registry.versions()
    return [
        Known(concept, [version for version in versions if version.identifier == concept.identifier])
        for concept in context.registry.concepts()
    ]
