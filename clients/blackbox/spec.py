"""How a check of the suite is written: its name, what the specification says and where, and a function that asserts."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blackbox.server import Answer, Server

Check = Callable[[Server], None]


@dataclass(frozen=True)
class Rule:
    """One check."""

    name: str
    says: str
    section: str
    check: Check


RULES: list[Rule] = []


def rule(name: str, says: str, section: str) -> Callable[[Check], Check]:
    """Registers a check: `name` is stable and stands in differences.json; `section` is a page of hl7.org/fhir/R4."""

    def register(check: Check) -> Check:
        assert all(known.name != name for known in RULES), f"{name} stands twice"
        RULES.append(Rule(name, says, section, check))
        return check

    return register


def outcome(answer: Answer, *statuses: int) -> None:
    """A refusal with one of these statuses and an OperationOutcome that says something."""
    assert answer.status in statuses, answer
    assert answer.body.get("resourceType") == "OperationOutcome", f"no OperationOutcome: {answer}"
    for issue in answer.body["issue"]:
        assert issue["severity"] in ("fatal", "error", "warning", "information"), issue
        assert issue["code"], issue
    assert any(issue["severity"] in ("fatal", "error") for issue in answer.body["issue"]), answer
    assert any(issue.get("diagnostics") or issue.get("details") for issue in answer.body["issue"]), (
        "it says nothing"
    )


def ok(answer: Answer, *statuses: int) -> Answer:
    """The answer, which must have one of these statuses (200)."""
    assert answer.status in (statuses or (200,)), answer
    return answer


def same(found: object, expected: object) -> None:
    """Both are equal; else the error shows both."""
    assert found == expected, f"found {found}, expected {expected}"


def run(server: Server) -> dict[str, str]:
    """Every check; what failed of each, empty where it holds."""
    results = {}
    for each in RULES:
        try:
            each.check(server)
            results[each.name] = ""
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the check does not hold
            place = traceback.extract_tb(error.__traceback__)[-1]
            results[each.name] = (
                f"{type(error).__name__}: {error}"[:600] or f"{Path(place.filename).name}:{place.lineno}"
            )
    return results
