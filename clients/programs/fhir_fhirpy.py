"""fhirpy reads, searches, pages, posts and corrects, with its synchronous and its asynchronous client."""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

from fhirpy import AsyncFHIRClient, SyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from house import checks, resources  # noqa: E402

SITE = checks.site()
DEVICE = SITE["devices"][4]
PATIENT = DEVICE["patient"]
IDENTITY = (SITE["program"]["certificate"], SITE["program"]["key"])
NEWEST = 30


def made(seconds: float, value: float, **more):
    """A heart rate of this program's device."""
    return resources.observation(DEVICE["id"], PATIENT, resources.at(seconds), value, **more)


def synchronous(client: SyncFHIRClient) -> None:  # noqa: PLR0915 - a list of checks
    """What SyncFHIRClient can do."""
    with checks.check("the capability statement says FHIR 4.0.1"):
        assert client.execute("metadata", method="get")["fhirVersion"] == "4.0.1"
    with checks.check("a patient is read by its reference, name and all"):
        patient = client.reference("Patient", PATIENT).to_resource()
        assert patient.get_by_path(["name", 0, "family"]) == SITE["families"][PATIENT]
    with checks.check("a patient is found by family name and by record number"):
        family, number = SITE["families"][PATIENT], SITE["numbers"][PATIENT]
        assert client.resources("Patient").search(family=family).get()["id"] == PATIENT
        assert (
            client.resources("Patient").search(identifier=f"urn:auscult:record-number|{number}").get().id
            == PATIENT
        )
    with checks.check("a device is found by its id and names its patient"):
        device = client.resources("Device").search(_id=DEVICE["id"]).get()
        assert device["patient"]["reference"] == f"Patient/{PATIENT}"
    kept = None
    with checks.check("an Observation is created, gets an id and keeps its digits"):
        kept = client.resource(
            "Observation", **{k: v for k, v in made(-3000, 71.5).items() if k != "resourceType"}
        )
        kept.save()
        assert kept.id and kept.get_by_path(["valueQuantity", "value"]) == 71.5
        assert client.get("Observation", kept.id)["valueQuantity"]["value"] == 71.5
    with checks.check("a repeat of it is the same resource"):
        again = {key: value for key, value in kept.serialize().items() if key not in ("id", "meta")}
        repeated = client.resource("Observation", **{k: v for k, v in again.items() if k != "resourceType"})
        repeated.save()
        assert repeated.id == kept.id
    with checks.check("a faulty Observation raises fhirpy's OperationOutcome with the element's name"):
        faulty = {key: value for key, value in made(-10, 1).items() if key not in ("status", "resourceType")}
        try:
            client.resource("Observation", **faulty).save()
        except OperationOutcome as refused:
            assert "Observation.status" in str(refused), refused
        else:
            raise AssertionError("it was taken")
    with checks.check("what is not there raises ResourceNotFound"):
        try:
            client.get("Observation", "00000000-0000-4000-8000-000000000000")
        except ResourceNotFound:
            pass
        else:
            raise AssertionError("it was found")
    with checks.check(f"{NEWEST} Observations in a transaction are all answered with 201"):
        entries = [resources.entry("POST", "Observation", made(-2000 + n, 60 + n)) for n in range(NEWEST)]
        answer = client.resource("Bundle", type="transaction", entry=entries)
        done = client.execute("", data=answer.serialize())
        statuses = [each["response"]["status"][:3] for each in done["entry"]]
        assert statuses == ["201"] * NEWEST, statuses
    search = client.resources("Observation").search(
        patient=PATIENT, code="8867-4", device=f"Device/{DEVICE['id']}"
    )
    with checks.check("pages of 7 are followed to the end: nothing missing, nothing twice, in order"):
        found = search.sort("date").limit(7).fetch_all()
        times = [each["effectiveDateTime"] for each in found]
        assert len({each.id for each in found}) == len(found) == NEWEST + 1, len(found)
        assert times == sorted(times)
    with checks.check("the newest one first"):
        newest = search.sort("-date").first()
        assert newest.get_by_path(["valueQuantity", "value"]) == 60 + NEWEST - 1
    with checks.check("a range of dates"):
        times = [each["effectiveDateTime"] for each in search.sort("date").limit(100).fetch()]
        some = search.search(date__ge=times[5], date__lt=times[10]).fetch()
        assert len(some) == 5, len(some)
    with checks.check("_include brings the patient along"):
        data = search.limit(3).include("Observation", "patient").fetch_raw()
        modes = [(each.resource.resourceType, each.search.mode) for each in data.entry]
        assert modes.count(("Patient", "include")) == 1 and modes.count(("Observation", "match")) == 3, modes
    with checks.check("a chained search by the patient's name"):
        found = (
            client.resources("Observation")
            .search(patient__Patient__family=SITE["families"][PATIENT])
            .limit(5)
            .fetch()
        )
        assert found and all(each["subject"]["reference"] == f"Patient/{PATIENT}" for each in found)
    with checks.check("_has finds the patients with such an Observation"):
        found = (
            client.resources("Patient").has("Observation", "patient", device=f"Device/{DEVICE['id']}").fetch()
        )
        assert [each.id for each in found] == [PATIENT], found
    with checks.check("_elements cuts to what was asked for"):
        cut = search.elements("status", "valueQuantity").first()
        assert cut.status == "final" and "effectiveDateTime" not in cut, cut
    with checks.check("$lastn gives the newest of the code"):
        last = client.resources("Observation").execute(
            "$lastn", method="get", params={"patient": PATIENT, "code": "8867-4", "max": 1}
        )
        assert last["entry"][0]["resource"]["id"]
    with checks.check(
        "an unknown parameter is refused; count() of fhirpy, which sends one, works when lenient"
    ):
        try:
            search.count()
        except OperationOutcome as refused:
            assert "_totalMethod" in str(refused), refused
        lenient = sync({"Prefer": "handling=lenient"})
        counted = (
            lenient.resources("Observation").search(patient=PATIENT, device=f"Device/{DEVICE['id']}").count()
        )
        assert counted == NEWEST + 1, counted
    with checks.check("a correction: save() with a new status makes version 2, and the history shows both"):
        kept = client.reference("Observation", kept.id).to_resource()
        kept["status"] = "amended"
        kept["valueQuantity"]["value"] = 72.5
        kept.save()
        seen = client.get("Observation", kept.id)
        assert (seen["status"], seen["valueQuantity"]["value"], seen["meta"]["versionId"]) == (
            "amended",
            72.5,
            "2",
        )
        history = client.execute(f"Observation/{kept.id}/_history", method="get")
        assert [each["resource"]["meta"]["versionId"] for each in history["entry"]] == ["2", "1"]


async def asynchronous() -> None:
    """What AsyncFHIRClient can do, many at once."""
    context = ssl.create_default_context(cafile=SITE["authority"])
    context.load_cert_chain(*IDENTITY)
    client = AsyncFHIRClient(SITE["fhir_base"], aiohttp_config={"ssl": context})
    with checks.check("16 creations at once, of the same reading, make one"):
        same = made(-1500, 99)

        async def create() -> str:
            one = client.resource("Observation", **{k: v for k, v in same.items() if k != "resourceType"})
            await one.save()
            return one.id

        ids = await asyncio.gather(*(create() for _ in range(16)))
        assert len(set(ids)) == 1, set(ids)
    with checks.check("16 readers at once"):
        search = client.resources("Observation").search(patient=PATIENT, device=f"Device/{DEVICE['id']}")
        lengths = await asyncio.gather(*(_length(search.limit(10)) for _ in range(16)))
        assert set(lengths) == {NEWEST + 2}, set(lengths)


async def _length(search) -> int:
    return len(await search.fetch_all())


def sync(headers: dict | None = None) -> SyncFHIRClient:
    """A client with the program's certificate."""
    config = {"cert": IDENTITY, "verify": SITE["authority"]}
    return SyncFHIRClient(SITE["fhir_base"], requests_config=config, extra_headers=headers)


synchronous(sync())
asyncio.run(asynchronous())
