"""Faults against invariants, by hand: of FHIRPath none can be derived."""

from __future__ import annotations

from typing import Any

INVARIANTS: dict[str, list[tuple[str, Any, str, str]]] = {
    "heart-rate": [
        (
            "/dataAbsentReason",
            {"text": "x"},
            "Observation",
            "obs-6: a value, or the reason why there is none",
        ),
        (
            "/referenceRange",
            [{"type": {"text": "x"}}],
            "Observation.referenceRange[0]",
            "obs-3: low, high or text",
        ),
        (
            "/extension",
            [{"url": "urn:x"}],
            "Observation.extension[0]",
            "ext-1: a value or further extensions",
        ),
        ("/subject", {"reference": "#p9"}, "Observation", "ref-1: what is referred to inside must be inside"),
        (
            "/contained",
            [{"resourceType": "Patient", "id": "c1"}],
            "Observation",
            "dom-3: contained and never referred to",
        ),
        (
            "/component",
            [{"code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}, "valueInteger": 1}],
            "Observation",
            "obs-7: a component with the code of the whole",
        ),
    ],
    "ecg": [
        (
            "/valueSampledData/origin",
            {"value": 0, "code": "mV"},
            "Observation.valueSampledData.origin",
            "qty-3: a code needs its system",
        ),
        (
            "/valueSampledData/data",
            "1 2 abc ; 3",
            "Observation.valueSampledData.data",
            "the pattern of SampledData.data",
        ),
        (
            "/valueSampledData/origin/comparator",
            "<",
            "Observation.valueSampledData.origin.comparator",
            "SimpleQuantity has no comparator",
        ),
    ],
    "blood-pressure": [
        (
            "/component/1/dataAbsentReason",
            {"text": "x"},
            "Observation.component[1]",
            "obs-6 for a component, as the profile has it (vs-3)",
        ),
        (
            "/component/1/valueQuantity/code",
            "kPa",
            "Observation.component[1].valueQuantity.code",
            "the profile fixes mm[Hg]",
        ),
    ],
    "transaction": [
        ("/total", 1, "Bundle", "bdl-1: a total only of searches and histories"),
        ("/entry/0/search", {"mode": "match"}, "Bundle", "bdl-2: search only in searchsets"),
        (
            "/entry/0/response",
            {"status": "200"},
            "Bundle",
            "bdl-4: a response only in responses and histories",
        ),
        (
            "/entry/0/fullUrl",
            "http://a.example/Observation/1/_history/1",
            "Bundle",
            "bdl-8: no version in a fullUrl",
        ),
        (
            "/entry/0",
            {"fullUrl": "urn:uuid:6f1f0c53-6c1a-4e7e-8f0e-1b1b6a0c9d01"},
            "Bundle",
            "bdl-3 and bdl-5: an entry has a request",
        ),
    ],
    "audit-event": [
        ("/entity", [{"name": "a", "query": "YWI="}], "AuditEvent.entity[0]", "sev-1: a name or a query"),
    ],
    "patient": [
        ("/telecom", [{"value": "1"}], "Patient.telecom[0]", "cpt-2: a value needs its system"),
        (
            "/contact",
            [{"gender": "male"}],
            "Patient.contact[0]",
            "pat-1: a contact has details or an organization",
        ),
        ("/photo", [{"data": "YWI="}], "Patient.photo[0]", "att-1: data need their content type"),
        (
            "/identifier/0/period",
            {"start": "2027", "end": "2026"},
            "Patient.identifier[0].period",
            "per-1: the end is not before the start",
        ),
        ("/text", {"status": "generated", "div": "hello"}, "Patient.text.div", "txt-1: XHTML"),
    ],
}
"""By base: where, what, the place that a refusal must name, and the rule. One for each that matters here."""
