"""Three validators in Python judge resources: pyrofile (base rules), fhirkit-rs and the official JSON schema.

Reads the file that the site's description names (`panel`): a list of `{"name", "resource", "expect"}`.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fhirkit
import jsonschema
from pyrofile_validator import Validator
from pyrofile_validator.config import ValidatorConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from house import checks  # noqa: E402
from panel import definitions  # noqa: E402
from panel.verdicts import judge  # noqa: E402

MISTAKEN = {
    r"^CapabilityStatement\.rest\.\S+: profile\.element\.cardinality\.max:": (
        "it counts an element over all repeats of its parent"
    ),
    r"^(Bundle\S*|AuditEvent)\.entity\[\d+\]\.detail\[\d+\]\.value\[x\]: cardinality\.min:": (
        "it looks for an element named value[x], and does not know valueString there"
    ),
}
"""What pyrofile says wrongly, with the reason; the other three are silent on the same resources."""

USED: set[str] = set()
"""Exceptions that were needed in this run; one that no longer is must go."""

Judge = Callable[[dict[str, Any]], list[str]]


def official_schema(modules: Path) -> Judge:
    """HL7's JSON schema of R4 (draft 6)."""
    schema = json.loads((definitions.source(modules) / "fhir.schema.json").read_text())
    validators: dict[str, Any] = {}

    def one(resource: dict[str, Any]) -> list[str]:
        kind = resource.get("resourceType", "")
        if kind not in schema["definitions"]:
            return [f"{kind} is no resource"]
        if kind not in validators:
            # The schema of the one type: against all of them at once an error says only that nothing fits.
            own = {
                "$schema": schema["$schema"],
                "$ref": f"#/definitions/{kind}",
                "definitions": schema["definitions"],
            }
            validators[kind] = jsonschema.Draft6Validator(own)
        return [
            f"{error.json_path}: {error.message[:200]}" for error in validators[kind].iter_errors(resource)
        ]

    return one


def pyrofile(modules: Path, cache: Path) -> Judge:
    """Base rules alone: with profiles honoured it refuses valid vital signs (see docs/reference/interoperability.md)."""
    logging.disable(logging.CRITICAL)
    config = ValidatorConfig(
        local_package_paths=[str(definitions.prepare(modules, cache))],
        allow_unknown_extensions=True,
        error_on_unknown_profile=False,
    )
    validator = Validator(config)

    def one(resource: dict[str, Any]) -> list[str]:
        bare = copy.deepcopy(resource)
        _without_profiles(bare)
        report = validator.validate_resource(bare)
        errors = [
            f"{issue.path}: {issue.code}: {issue.message}"
            for issue in report.issues
            if issue.severity.value in ("error", "fatal")
        ]
        mistaken = {each: pattern for each in errors for pattern in MISTAKEN if re.search(pattern, each)}
        USED.update(mistaken.values())
        return [each for each in errors if each not in mistaken]

    return one


def _without_profiles(value: Any) -> None:
    if isinstance(value, dict):
        if isinstance(value.get("meta"), dict):
            value["meta"].pop("profile", None)
            if not value["meta"]:
                del value["meta"]
        for inner in value.values():
            _without_profiles(inner)
    elif isinstance(value, list):
        for inner in value:
            _without_profiles(inner)


def fhirkit_rs(resource: dict[str, Any]) -> list[str]:
    """fhirkit-rs, which reads the whole of R4."""
    try:
        issues = fhirkit.validate(json.dumps(resource))
    except fhirkit.ParseError as error:
        return [str(error)]
    return [
        f"{issue.path}: {issue.message}" for issue in issues if str(issue.severity).lower().endswith("error")
    ]


def main() -> None:
    """Every resource before every validator."""
    site = checks.site()
    modules, cache = Path(site["node_modules"]), Path(site["cache"])
    resources = json.loads(Path(site["panel"]).read_text())
    judges = {
        "official JSON schema": official_schema(modules),
        "pyrofile": pyrofile(modules, cache),
        "fhirkit-rs": fhirkit_rs,
    }
    for name, one in judges.items():
        judge(site, name, resources, one)
    for pattern, reason in MISTAKEN.items():
        checks.report(f"pyrofile: this exception is still needed: {reason}", pattern in USED, pattern)


if __name__ == "__main__":
    main()
