"""Every planted fault is refused over HTTP with an OperationOutcome that names its element; what is sound is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from house import checks, resources  # noqa: E402
from mutations.generate import BASES, VECTORS, changed  # noqa: E402

SITE = checks.site()
DEVICE = SITE["devices"][7]
OBSERVATIONS = {"heart-rate", "ecg", "blood-pressure"}
CREATED_AT = {
    "heart-rate": "/Observation",
    "ecg": "/Observation",
    "blood-pressure": "/Observation",
    "transaction": "",
    "patient": "/Patient",
    "device": "/Device",
}
"""Where a resource like the base is created; the others are only validated."""
UPDATE = {"method": "PUT", "url": "Observation/hr-1"}
CREATE = {"method": "POST", "url": "Observation"}
VALIDATED = {"Observation", "AuditEvent", "Patient", "Device"}
"""Types with a $validate of their own; others go to the one of the system."""
CHARTED = {"extension", "element-id", "coding", "decimal"}
"""Sound variants that mean the same measurement: these are created, not only validated."""
REFUSED = (400, 422)
"""FHIR: 400 for what is no resource, 422 for what breaks its rules."""


def encoded(value: Any) -> str:
    """JSON; `{"$number": "72.50"}` is a number with these digits."""
    if isinstance(value, dict):
        if set(value) == {"$number"}:
            return value["$number"]
        return "{" + ",".join(f"{json.dumps(name)}:{encoded(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(encoded(inner) for inner in value) + "]"
    return json.dumps(value)


class Asker:
    """Sends resources as a program."""

    def __init__(self) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = SITE["authority"]
        self.session.cert = (SITE["program"]["certificate"], SITE["program"]["key"])
        self.sent = 0

    def post(self, path: str, text: str) -> requests.Response:
        """One request."""
        headers = {"content-type": "application/fhir+json", "accept": "application/fhir+json"}
        # The bases speak of a patient and a device that have other ids here.
        text = text.replace('"Patient/p1"', f'"Patient/{DEVICE["patient"]}"')
        text = text.replace('"Device/d1"', f'"Device/{DEVICE["id"]}"')
        # It updates what is not there here; as a create it is judged for itself.
        text = text.replace(f'"request":{encoded(UPDATE)}', f'"request":{encoded(CREATE)}')
        return self.session.post(
            f"{SITE['fhir_base']}{path}", data=text.encode(), headers=headers, timeout=30
        )

    def own_time(self, resource: dict[str, Any]) -> dict[str, Any]:
        """The same measurement at a time of its own: else it would be a repeat of another."""
        self.sent += 1
        return {**resource, "effectiveDateTime": resources.at(-80_000 + self.sent)}


def errors(answer: requests.Response) -> list[dict[str, Any]]:
    """Errors of an OperationOutcome."""
    body = answer.json()
    assert body.get("resourceType") == "OperationOutcome", answer.text[:300]
    return [issue for issue in body["issue"] if issue["severity"] in ("error", "fatal")]


def names(answer: requests.Response, place: str | None) -> None:
    """The refusal says something, and names the element."""
    found = errors(answer)
    assert found, f"{answer.status_code}, no error: {answer.text[:300]}"
    assert all(issue.get("diagnostics") for issue in found), answer.text[:300]
    places = [expression for issue in found for expression in issue.get("expression", [])]
    assert place is None or place in places, f"{places}, expected {place}: {answer.text[:300]}"


def validated_at(resource: dict[str, Any]) -> str:
    """The operation of the type, or of the system."""
    kind = resource.get("resourceType")
    return f"/{kind}/$validate" if kind in VALIDATED else "/$validate"


def fault(asker: Asker, base: str, resource: dict[str, Any], place: str | None, what: str) -> None:
    """Refused where it would be created, and found by $validate."""
    text = encoded(resource)
    path = CREATED_AT.get(base)
    if path is not None:
        with checks.check(f"refused: {what}"):
            answer = asker.post(path, text)
            assert answer.status_code in REFUSED, f"{answer.status_code} {answer.text[:300]}"
            # Where one type alone is taken, another is named as such.
            names(answer, "resourceType" if resource.get("resourceType") == "Nonsense" else place)
    with checks.check(f"$validate finds: {what}"):
        answer = asker.post(validated_at(resource), text)
        assert answer.status_code in (200, *REFUSED), f"{answer.status_code} {answer.text[:300]}"
        names(answer, place)


def sound(asker: Asker, base: str, row: dict[str, Any], resource: dict[str, Any], what: str) -> None:
    """No error by $validate; created where it means a measurement."""
    with checks.check(f"$validate takes: {what}"):
        answer = asker.post(validated_at(resource), encoded(resource))
        assert answer.status_code == 200 and not errors(answer), f"{answer.status_code} {answer.text[:300]}"
    if base in OBSERVATIONS and row["rule"] in CHARTED:
        with checks.check(f"created: {what}"):
            answer = asker.post("/Observation", encoded(asker.own_time(resource)))
            assert answer.status_code in (200, 201, 202), f"{answer.status_code} {answer.text[:300]}"


def main() -> None:
    """The cases, then the mutations."""
    asker = Asker()
    bases = {name: json.loads((VECTORS / f"{file}.json").read_text()) for name, file in BASES.items()}
    for name, verdict in json.loads((VECTORS / "expect.json").read_text()).items():
        resource = json.loads((VECTORS / "cases" / f"{name}.json").read_text())
        base = {"Observation": "heart-rate", "Bundle": "transaction"}.get(resource["resourceType"], "other")
        if verdict == "bad":
            fault(asker, base, resource, None, f"case {name}")
        else:
            sound(asker, base, {"rule": "case"}, resource, f"case {name}")
    for row in json.loads((VECTORS / "mutations.json").read_text()):
        resource = changed(bases[row["base"]], row)
        what = f"{row['base']} {row['rule']} {row.get('set') or row.get('remove')} ({row['why']})"
        if row.get("sound"):
            sound(asker, row["base"], row, resource, what)
        else:
            fault(asker, row["base"], resource, row["place"], what)


main()
