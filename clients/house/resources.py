"""FHIR resources as a program would send them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


def at(seconds: float) -> str:
    """An instant so many seconds from now, to the millisecond."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def concept(system: str, code: str, text: str = "") -> dict[str, Any]:
    """A concept with one coding."""
    return {"coding": [{"system": system, "code": code}], **({"text": text} if text else {})}


def quantity(value: float | str, unit: str, code: str) -> dict[str, Any]:
    """A quantity in UCUM."""
    return {"value": value, "unit": unit, "system": UCUM, "code": code}


def observation(device: str, patient: str | None, when: str, value: Any, **more: Any) -> dict[str, Any]:
    """A heart rate that conforms to the vital-signs profile."""
    subject = {"subject": {"reference": f"Patient/{patient}"}} if patient else {}
    return {
        "resourceType": "Observation",
        "meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/heartrate"]},
        "status": "final",
        "category": [concept(CATEGORY, "vital-signs")],
        "code": concept(LOINC, "8867-4", "Heart rate"),
        **subject,
        "effectiveDateTime": when,
        "device": {"reference": f"Device/{device}"},
        "valueQuantity": quantity(value, "beats/minute", "/min"),
        **more,
    }


def blood_pressure(device: str, patient: str, when: str, systolic: int, diastolic: int) -> dict[str, Any]:
    """A blood pressure with its two components."""
    made = observation(device, patient, when, 0)
    del made["valueQuantity"]
    made["meta"] = {"profile": ["http://hl7.org/fhir/StructureDefinition/bp"]}
    made["code"] = concept(LOINC, "85354-9", "Blood pressure")
    made["component"] = [
        {"code": concept(LOINC, "8480-6"), "valueQuantity": quantity(systolic, "mmHg", "mm[Hg]")},
        {"code": concept(LOINC, "8462-4"), "valueQuantity": quantity(diastolic, "mmHg", "mm[Hg]")},
    ]
    return made


def entry(method: str, url: str, resource: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An entry of a batch or a transaction; further members of the request by name."""
    full_url = more.pop("fullUrl", None)
    made: dict[str, Any] = {"request": {"method": method, "url": url, **more}}
    if full_url:
        made["fullUrl"] = full_url
    if resource is not None:
        made["resource"] = resource
    return made


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    """A batch or a transaction."""
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
