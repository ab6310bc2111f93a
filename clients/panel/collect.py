"""Makes the server show every kind of resource that it renders, and writes them down for the validators."""

from __future__ import annotations

import base64
import json
import struct
import sys
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from house import checks, resources  # noqa: E402

SITE = checks.site()
DEVICE = SITE["devices"][7]
SCALARS = {
    "heart_rate": ("72", "/min"),
    "pulse_rate_oximeter": ("71", "/min"),
    "pulse_rate_cuff": ("70", "/min"),
    "oxygen_saturation": ("97.50", "%"),
    "respiratory_rate": ("14", "/min"),
    "body_temperature": ("36.80", "Cel"),
    "perfusion_index": ("4.2", "%"),
    "body_weight": ("71.35", "kg"),
    "body_height": ("171", "cm"),
    "body_mass_index": ("24.4", "kg/m2"),
    "glucose": ("104", "mg/dL"),
    "rr_interval": ("812", "ms"),
    "energy_expended": ("12", "kJ"),
    "battery_level": ("84", "%"),
    "central_venous_pressure": ("6", "mm[Hg]"),
    "end_tidal_co2": ("38", "mm[Hg]"),
    "glasgow_coma_score": ("15", "{score}"),
    "room_temperature": ("21.5", "Cel"),
}
ABSENT = ("not-a-number", "positive-infinity", "negative-infinity", "error", "unavailable")


def entries() -> list[dict[str, Any]]:
    """One entry of the envelope for every kind of Observation."""
    made: list[dict[str, Any]] = []
    for at, (measure, (value, unit)) in enumerate(SCALARS.items()):
        made.append(
            {"measure": measure, "value": _Digits(value), "unit": unit, "time": resources.at(-600 + at)}
        )
    for at, absent in enumerate(ABSENT):
        made.append(
            {"measure": "heart_rate", "value": None, "absent": absent, "time": resources.at(-500 + at)}
        )
    # Odd values are kept with findings.
    made.append({"measure": "heart_rate", "value": 290, "unit": "/min", "time": resources.at(-490)})
    made.append(
        {
            "measure": "body_temperature",
            "value": _Digits("98.6"),
            "unit": "[degF]",
            "time": resources.at(-489),
        }
    )
    for panel, parts in (("blood_pressure", ("systolic", "diastolic", "mean")), ("arterial_pressure", None)):
        names = parts or ("arterial_systolic", "arterial_diastolic", "arterial_mean")
        values = dict(zip(names, (121, 79, 93), strict=True))
        made.append({"panel": panel, "values": values, "unit": "mm[Hg]", "time": resources.at(-480)})
        made.append({"panel": panel, "values": {names[0]: 118}, "unit": "mm[Hg]", "time": resources.at(-470)})
    samples = base64.b64encode(struct.pack("<8h", 0, 10, -10, 200, -32768, 5, 6, 7)).decode()
    for waveform, unit in (("ecg_ii", "mV"), ("plethysmogram", "1"), ("arterial_waveform", "mm[Hg]")):
        curve = {"waveform": waveform, "rate": 250, "unit": unit, "gain": _Digits("0.005"), "offset": 0}
        made.append({**curve, "time": resources.at(-460), "samples_base64": samples})
    made.append({"event": "dose", "time": resources.at(-450), "amount": 4, "unit": "[iU]"})
    made.append({"event": "device_alarm", "time": resources.at(-449), "text": "Leads off"})
    made.append({"event": "patient_call", "time": resources.at(-448)})
    return made


class _Digits(float):
    """A number that is written with the digits that it was made of."""

    def __new__(cls, text: str):
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __repr__(self) -> str:
        return self.text


def encoded(value: Any) -> str:
    """JSON that keeps the digits."""
    if isinstance(value, _Digits):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{encoded(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(encoded(inner) for inner in value) + "]"
    return json.dumps(value)


def session(identity: dict[str, str]) -> requests.Session:
    """A session with this certificate."""
    made = requests.Session()
    made.trust_env = False
    made.verify = SITE["authority"]
    made.cert = (identity["certificate"], identity["key"])
    return made


def main() -> None:
    """Sends, then collects."""
    collected: dict[str, dict[str, Any]] = {}
    base, program = SITE["fhir_base"], session(SITE["program"])

    def keep(name: str, resource: Any) -> None:
        assert isinstance(resource, dict) and "resourceType" in resource, f"{name} is no resource: {resource}"
        collected.setdefault(name, resource)

    def ask(name: str, method: str, path: str, body: Any = None, expect: tuple[int, ...] = (200, 201)) -> Any:
        with checks.check(f"it is rendered: {name}"):
            answer = program.request(method, f"{base}{path}", json=body)
            assert answer.status_code in expect, (
                f"{method} {path} -> {answer.status_code}: {answer.text[:300]}"
            )
            keep(name, answer.json())
            return collected[name]
        return None

    sent = entries()
    with checks.check("every kind of reading is taken"):
        data = encoded({"readings": sent, "message_id": "panel-1", "message_number": 5})
        headers = {"content-type": "application/json"}
        device = session(DEVICE)
        first = device.post(f"{SITE['https_base']}ingest/v1/envelope", data=data.encode(), headers=headers)
        assert first.ok, first.text
        # A gap in the numbers becomes a gap record in the chart.
        later = encoded({"readings": sent[:1], "message_id": "panel-2", "message_number": 9})
        second = device.post(f"{SITE['https_base']}ingest/v1/envelope", data=later.encode(), headers=headers)
        assert second.ok, second.text
        for outcome in first.json().get("entries", []):
            assert "quarantine" not in json.dumps(outcome), outcome
    ask("a searchset of Observations", "GET", f"/Observation?device=Device/{DEVICE['id']}&_count=3")
    # Judged one by one: the validators are slow with large bundles.
    bundle = program.get(f"{base}/Observation?device=Device/{DEVICE['id']}&_count=1000").json()
    with checks.check("every kind of reading is in the chart"):
        found = [
            entry["resource"]
            for entry in bundle["entry"]
            if entry["resource"]["resourceType"] == "Observation"
        ]
        for number, resource in enumerate(found):
            code = resource["code"]
            text = code.get("text") or code["coding"][0]["code"]
            absent = resource.get("dataAbsentReason", {}).get("coding", [{}])[0].get("code", "")
            keep(f"Observation {number}: {text} {absent}".strip(), resource)
        # Curves are found by their code; a gap record comes on top.
        curves = sum(1 for entry in sent if "waveform" in entry)
        assert len(found) == len(sent) - curves + 1, f"{len(found)} Observations of {len(sent)} entries"
    interval = f"date=ge{resources.at(-465)}&date=lt{resources.at(-450)}"
    for curve in (
        "urn:iso:std:iso:11073:10101|131330",
        "http://loinc.org|76523-0",
        "urn:auscult:measure|arterial_waveform",
    ):
        found = ask(
            f"a curve, {curve}", "GET", f"/Observation?device=Device/{DEVICE['id']}&code={curve}&{interval}"
        )
        with checks.check(f"the curve {curve} has its samples"):
            curve_found = found["entry"][0]["resource"]
            keep(f"Observation: curve {curve}", curve_found)
            assert "valueSampledData" in json.dumps(curve_found)
    ask("a Patient", "GET", f"/Patient/{DEVICE['patient']}")
    ask("a Device", "GET", f"/Device/{DEVICE['id']}")
    patient = collected.get("a Patient", {})
    place = next(
        (e["valueReference"]["reference"] for e in patient.get("extension", []) if "valueReference" in e),
        None,
    )
    if place:
        ask("a Location", "GET", f"/{place}")
    ask("a searchset of AuditEvents", "GET", "/AuditEvent?_count=3")
    audit = program.get(f"{base}/AuditEvent?_count=1000").json()
    kinds: dict[str, Any] = {}
    for entry in audit["entry"]:
        event = entry["resource"]
        kinds.setdefault(f"{event.get('action')} {event['type'].get('code')} {event.get('outcome')}", event)
    for kind, event in kinds.items():
        keep(f"AuditEvent {kind}", event)
    ask("the CapabilityStatement", "GET", "/metadata")
    ask("$lastn", "GET", f"/Observation/$lastn?patient={DEVICE['patient']}")
    ask("an OperationOutcome of a refused search", "GET", "/Observation?colour=red", expect=(400,))
    ask(
        "an OperationOutcome of a refused resource",
        "POST",
        "/Observation",
        {"resourceType": "Observation"},
        (400, 422),
    )
    one = resources.observation(DEVICE["id"], DEVICE["patient"], resources.at(-300), 66)
    created = ask("a created Observation", "POST", "/Observation", one)
    pressure = resources.blood_pressure(DEVICE["id"], DEVICE["patient"], resources.at(-290), 120, 80)
    entry = resources.entry("POST", "Observation", pressure)
    ask("a transaction's response", "POST", "", resources.bundle("transaction", entry))
    bad = resources.entry("POST", "Observation", {"resourceType": "Observation"})
    ask("a batch's response", "POST", "", resources.bundle("batch", entry, bad))
    ask("a history", "GET", f"/Observation/{(created or {}).get('id')}/_history")
    ask("$everything", "GET", f"/Patient/{DEVICE['patient']}/$everything?_count=20")

    ask(
        "$stats",
        "GET",
        f"/Observation/$stats?subject=Patient/{DEVICE['patient']}&code=http://loinc.org|8867-4&statistic=average&duration=1",
    )
    ask(
        "a search with what belongs to it",
        "GET",
        f"/Observation?device=Device/{DEVICE['id']}&_include=Observation:patient&_include=Observation:device&_count=3",
    )
    ask("a subset", "GET", f"/Observation?device=Device/{DEVICE['id']}&_elements=status&_count=2")
    panel = [{"name": name, "resource": resource, "expect": "ok"} for name, resource in collected.items()]
    panel += planted()
    Path(SITE["panel"]).write_text(json.dumps(panel))


def planted() -> list[dict[str, Any]]:
    """The cases with one planted fault each, which the panel must find: what cannot fail proves nothing."""
    folder = Path(__file__).resolve().parent.parent.parent / "vectors" / "fhir"
    verdicts = json.loads((folder / "expect.json").read_text())
    cases = []
    for name, verdict in verdicts.items():
        resource = json.loads((folder / "cases" / f"{name}.json").read_text())
        cases.append({"name": f"case {name}", "resource": resource, "expect": verdict})
    return cases


main()
