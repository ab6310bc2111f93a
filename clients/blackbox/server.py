"""A FHIR server as the suite sees it: an address, a way to ask, and a way to furnish it."""

from __future__ import annotations

import itertools
import json
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import requests

from house import resources
from house.site import Site

ANSWER_LIMIT_S = 30.0
"""Longest wait for one answer."""
FHIR_JSON = "application/fhir+json"
MINUTES_BACK = 20 * 60
"""How long ago the first observation of a check was measured, in seconds."""


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    text: str

    @property
    def body(self) -> Any:
        """The JSON, with the digits of its numbers; nothing where there is none."""
        try:
            return json.loads(self.text, parse_float=Decimal)
        except ValueError:
            return {}

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Entries of a bundle."""
        return self.body.get("entry", [])

    def found(self, kind: str = "Observation", mode: str = "match") -> list[dict[str, Any]]:
        """Resources of a searchset, of one type and search mode."""
        all_found = (entry for entry in self.entries if entry.get("search", {}).get("mode", "match") == mode)
        return [entry["resource"] for entry in all_found if entry["resource"]["resourceType"] == kind]

    def ids(self, kind: str = "Observation", mode: str = "match") -> list[str]:
        """Their ids."""
        return [resource["id"] for resource in self.found(kind, mode)]

    def link(self, relation: str) -> str | None:
        """A link of a bundle."""
        return next((link["url"] for link in self.body.get("link", []) if link["relation"] == relation), None)

    def __str__(self) -> str:
        return f"{self.status} {self.text[:400]}"


@dataclass
class Server:
    """A server under test, asked as a program."""

    name: str
    base: str
    session: requests.Session
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: Any
    ) -> Answer:
        """One request; `body` is JSON, or text as it is."""
        url = path if path.startswith("http") else f"{self.base}/{path}".rstrip("/")
        all_headers = {"accept": FHIR_JSON, **(headers or {})}
        data = None
        if body is not None:
            data = body.encode() if isinstance(body, str) else encoded(body)
            all_headers.setdefault("content-type", FHIR_JSON)
        answer = self.session.request(
            method, url, data=data, headers=all_headers, timeout=ANSWER_LIMIT_S, **more
        )
        return Answer(answer.status_code, answer.headers, answer.text)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """GET."""
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        """POST."""
        return self.ask("POST", path, body, headers)

    def put(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        """PUT."""
        return self.ask("PUT", path, body, headers)

    def delete(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """DELETE."""
        return self.ask("DELETE", path, headers=headers)

    # -- furnishing --------------------------------------------------------------------------------------------------

    def patient(self, family: str = "Suite", given: str = "Test", gender: str = "female") -> Patient:
        """A patient with a number of its own."""
        number = f"BB-{next(self.numbers)}-{uuid.uuid4().hex[:8]}"
        resource = {
            "resourceType": "Patient",
            "identifier": [{"system": self.number_system, "value": number}],
            "name": [{"family": family, "given": [given]}],
            "gender": gender,
            "birthDate": "1950-03-21",
        }
        made = self.post("Patient", resource)
        assert made.status == 201, made
        return Patient(self, made.body["id"], number)

    number_system = "urn:auscult:record-number"

    def device(self, patient: Patient) -> str:
        """A device that measures the patient; its id."""
        resource = {
            "resourceType": "Device",
            "status": "active",
            "deviceName": [{"name": f"suite {next(self.numbers)}", "type": "user-friendly-name"}],
            "patient": {"reference": f"Patient/{patient.id}"},
        }
        made = self.post("Device", resource)
        assert made.status == 201, made
        return made.body["id"]

    def bed(self) -> Bed:
        """A patient with a device that nobody else uses: what a check finds there, it has put there."""
        patient = self.patient()
        return Bed(self, patient, self.device(patient))


@dataclass
class Auscult(Server):
    """Ours: patients and devices are admitted by people, through the JSON API."""

    site: Site | None = None

    @classmethod
    def of(cls, site: Site) -> Auscult:
        """The running site, asked with the certificate of a program."""
        return cls("auscult", site.fhir_base, site.fhir("blackbox"), site=site)

    def patient(self, family: str = "Suite", given: str = "Test", gender: str = "female") -> Patient:
        """Admits a patient."""
        number = f"BB-{next(self.numbers)}-{uuid.uuid4().hex[:8]}"
        return Patient(self, self.site.patient(family, given, number, gender=gender), number)

    def device(self, patient: Patient) -> str:
        """Registers a device and assigns it."""
        return self.site.device(f"suite {next(self.numbers)}", patient.id, certificate=False).id


@dataclass
class Patient:
    """A patient that the suite has made."""

    server: Server
    id: str
    number: str


@dataclass
class Bed:
    """A patient and the device that measures."""

    server: Server
    patient: Patient
    device: str
    sent: int = 0

    def heart_rate(self, value: Any = 72, *, seconds_ago: float | None = None, **more: Any) -> dict[str, Any]:
        """A heart rate, each a second later than the one before."""
        self.sent += 1
        ago = MINUTES_BACK - self.sent if seconds_ago is None else seconds_ago
        return _bare(resources.observation(self.device, self.patient.id, resources.at(-ago), value, **more))

    def pressure(self, systolic: int = 120, diastolic: int = 80) -> dict[str, Any]:
        """A blood pressure."""
        self.sent += 1
        when = resources.at(-(MINUTES_BACK - self.sent))
        return _bare(resources.blood_pressure(self.device, self.patient.id, when, systolic, diastolic))

    def kept(self, resource: dict[str, Any] | None = None) -> dict[str, Any]:
        """Sends it; what was kept."""
        made = self.server.post("Observation", resource or self.heart_rate())
        assert made.status == 201, made
        return made.body if made.body else self.server.get(made.headers["location"]).body

    def several(self, count: int) -> list[str]:
        """Heart rates 60, 61, … in order of time; their ids."""
        return [self.kept(self.heart_rate(60 + number))["id"] for number in range(count)]

    @property
    def mine(self) -> str:
        """The search parameter that finds what this device has measured, and nothing else."""
        return f"device=Device/{self.device}"

    def search(self, query: str = "", headers: dict[str, str] | None = None) -> Answer:
        """Searches what this device has measured."""
        return self.server.get(f"Observation?{self.mine}{'&' if query else ''}{query}", headers)


def _bare(resource: dict[str, Any]) -> dict[str, Any]:
    """Without a claim of a profile: profiles have a rule of their own."""
    return {name: value for name, value in resource.items() if name != "meta"}


def encoded(body: Any) -> bytes:
    """JSON; decimals are written with their digits."""

    def text(value: Any) -> str:
        if isinstance(value, Decimal):
            return str(value)
        if isinstance(value, dict):
            return "{" + ",".join(f"{json.dumps(name)}:{text(inner)}" for name, inner in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(text(inner) for inner in value) + "]"
        return json.dumps(value)

    return text(body).encode()
