"""Single resources: capabilities, read, create, update, delete, versions and history (R4 http.html)."""

from __future__ import annotations

import concurrent.futures
import uuid
from decimal import Decimal
from email.utils import parsedate_to_datetime

from blackbox.server import Server
from blackbox.spec import ok, outcome, rule, same

NOBODY = "00000000-0000-4000-8000-000000000000"


# -- capabilities ------------------------------------------------------------------------------------------------------


@rule(
    "capabilities.statement",
    "metadata answers with a CapabilityStatement of FHIR 4.0.1",
    "http.html#capabilities",
)
def _(server: Server) -> None:
    statement = ok(server.get("metadata")).body
    same(statement["resourceType"], "CapabilityStatement")
    same(statement["fhirVersion"], "4.0.1")
    same(statement["rest"][0]["mode"], "server")
    assert any("json" in each for each in statement["format"]), statement["format"]


@rule("capabilities.parameters", "each search parameter is listed with its type", "capabilitystatement.html")
def _(server: Server) -> None:
    parts = ok(server.get("metadata")).body["rest"][0]["resource"]
    observation = next(part for part in parts if part["type"] == "Observation")
    types = {each["name"]: each["type"] for each in observation["searchParam"]}
    same(
        {name: types.get(name) for name in ("code", "date", "patient")},
        {"code": "token", "date": "date", "patient": "reference"},
    )


# -- read --------------------------------------------------------------------------------------------------------------


@rule("read.headers", "a read carries id, versionId, a weak ETag of it, and Last-Modified", "http.html#read")
def _(server: Server) -> None:
    kept = server.bed().kept()
    answer = ok(server.get(f"Observation/{kept['id']}"))
    same(answer.body["id"], kept["id"])
    same(answer.headers["etag"], f'W/"{answer.body["meta"]["versionId"]}"')
    assert answer.body["meta"]["lastUpdated"]
    parsedate_to_datetime(answer.headers["last-modified"])


@rule("read.content-type", "resources are application/fhir+json", "http.html#mime-type")
def _(server: Server) -> None:
    kept = server.bed().kept()
    assert server.get(f"Observation/{kept['id']}").headers["content-type"].startswith("application/fhir+json")


@rule("read.unknown", "an unknown id is 404 with an OperationOutcome", "http.html#read")
def _(server: Server) -> None:
    outcome(server.get(f"Patient/{NOBODY}"), 404)


@rule("read.unknown-type", "a type that does not exist is 404 with an OperationOutcome", "http.html#summary")
def _(server: Server) -> None:
    outcome(server.get("Nonsense/1"), 404)


@rule("read.if-none-match", "If-None-Match with the current version is 304", "http.html#cread")
def _(server: Server) -> None:
    kept = server.bed().kept()
    tag = server.get(f"Observation/{kept['id']}").headers["etag"]
    same(server.get(f"Observation/{kept['id']}", {"if-none-match": tag}).status, 304)


@rule("read.if-modified-since", "If-Modified-Since after the last change is 304", "http.html#cread")
def _(server: Server) -> None:
    kept = server.bed().kept()
    since = server.get(f"Observation/{kept['id']}").headers["last-modified"]
    same(server.get(f"Observation/{kept['id']}", {"if-modified-since": since}).status, 304)


@rule("read.format", "_format=json is taken and _pretty does no harm", "http.html#parameters")
def _(server: Server) -> None:
    kept = server.bed().kept()
    answer = ok(server.get(f"Observation/{kept['id']}?_format=json&_pretty=true", {"accept": "*/*"}))
    same(answer.body["id"], kept["id"])


@rule("read.not-acceptable", "a format that is not supported is 406", "http.html#mime-type")
def _(server: Server) -> None:
    kept = server.bed().kept()
    same(server.get(f"Observation/{kept['id']}", {"accept": "text/csv"}).status, 406)


@rule("read.summary", "_elements works on a read, and marks the result SUBSETTED", "search.html#elements")
def _(server: Server) -> None:
    kept = server.bed().kept()
    cut = ok(server.get(f"Observation/{kept['id']}?_elements=valueQuantity")).body
    assert "valueQuantity" in cut or "value" in cut, cut
    assert "device" not in cut, cut
    assert any(tag["code"] == "SUBSETTED" for tag in cut["meta"].get("tag", [])), cut["meta"]


# -- create ------------------------------------------------------------------------------------------------------------


@rule("create.answer", "201 with Location of the version, ETag and Last-Modified", "http.html#create")
def _(server: Server) -> None:
    bed = server.bed()
    made = ok(server.post("Observation", bed.heart_rate(71)), 201)
    kept = server.get(made.headers["location"].split("/_history/")[0]).body
    assert made.headers["location"].endswith(
        f"/Observation/{kept['id']}/_history/{kept['meta']['versionId']}"
    ), made.headers
    same(made.headers["etag"], f'W/"{kept["meta"]["versionId"]}"')
    parsedate_to_datetime(made.headers["last-modified"])


@rule(
    "create.own-id",
    "the server chooses the id of what is created, whatever the client sent",
    "http.html#create",
)
def _(server: Server) -> None:
    sent = server.bed().heart_rate(71, id="mine")
    made = ok(server.post("Observation", sent), 201)
    assert "/Observation/mine/" not in made.headers["location"], made.headers["location"]


@rule("create.minimal", "Prefer: return=minimal has no body", "http.html#ops")
def _(server: Server) -> None:
    made = server.post("Observation", server.bed().heart_rate(71), {"prefer": "return=minimal"})
    same((made.status, made.text), (201, ""))


@rule("create.representation", "Prefer: return=representation has the resource", "http.html#ops")
def _(server: Server) -> None:
    made = ok(
        server.post("Observation", server.bed().heart_rate(71), {"prefer": "return=representation"}), 201
    )
    same(made.body["resourceType"], "Observation")


@rule("create.outcome", "Prefer: return=OperationOutcome has an OperationOutcome", "http.html#ops")
def _(server: Server) -> None:
    made = ok(
        server.post("Observation", server.bed().heart_rate(71), {"prefer": "return=OperationOutcome"}), 201
    )
    same(made.body["resourceType"], "OperationOutcome")


@rule("create.digits", "72.50 is not 72.5: the digits of a decimal are kept", "datatypes.html#decimal")
def _(server: Server) -> None:
    bed = server.bed()
    kept = bed.kept(bed.heart_rate(Decimal("72.50")))
    assert "72.50" in server.get(f"Observation/{kept['id']}").text


@rule("create.components", "components come back with their codes and values", "observation.html")
def _(server: Server) -> None:
    bed = server.bed()
    kept = server.get(f"Observation/{bed.kept(bed.pressure(123, 77))['id']}").body
    values = {part["code"]["coding"][0]["code"]: part["valueQuantity"]["value"] for part in kept["component"]}
    same(values, {"8480-6": 123, "8462-4": 77})


@rule(
    "create.other-elements",
    "what a client sent beside the measurement comes back: a note, an extension",
    "http.html#create",
)
def _(server: Server) -> None:
    more = {"note": [{"text": "after a walk"}], "extension": [{"url": "urn:example:x", "valueString": "y"}]}
    bed = server.bed()
    kept = server.get(f"Observation/{bed.kept(bed.heart_rate(71, **more))['id']}").body
    assert any(note["text"] == "after a walk" for note in kept.get("note", [])), kept.get("note")
    assert any(each["url"] == "urn:example:x" for each in kept.get("extension", [])), kept.get("extension")


@rule("create.identifier", "an identifier that a client gave is kept and found", "observation.html#search")
def _(server: Server) -> None:
    bed = server.bed()
    value = uuid.uuid4().hex
    kept = bed.kept(bed.heart_rate(71, identifier=[{"system": "urn:example:order", "value": value}]))
    same(ok(server.get(f"Observation?identifier=urn:example:order|{value}")).ids(), [kept["id"]])


@rule("create.malformed", "what is no JSON is 400 with an OperationOutcome", "http.html#create")
def _(server: Server) -> None:
    outcome(server.post("Observation", '{"resourceType": "Observation",'), 400)


@rule("create.invalid", "an Observation without status is refused with 400 or 422", "http.html#create")
def _(server: Server) -> None:
    sent = server.bed().heart_rate(71)
    del sent["status"]
    outcome(server.post("Observation", sent), 400, 422)


@rule("create.unknown-element", "an element that does not exist is refused", "json.html")
def _(server: Server) -> None:
    outcome(server.post("Observation", server.bed().heart_rate(71, colour="red")), 400, 422)


@rule("create.wrong-type", "a Patient posted to Observation is refused", "http.html#create")
def _(server: Server) -> None:
    outcome(server.post("Observation", {"resourceType": "Patient"}), 400, 422)


@rule("create.media-type", "a body that is no FHIR JSON is 415", "http.html#mime-type")
def _(server: Server) -> None:
    same(server.post("Observation", "a,b", {"content-type": "text/csv"}).status, 415)


@rule(
    "create.reference-integrity",
    "a subject that does not exist is refused, or taken: never an error of the server",
    "http.html#create",
)
def _(server: Server) -> None:
    sent = server.bed().heart_rate(71)
    sent["subject"] = {"reference": f"Patient/{NOBODY}"}
    assert server.post("Observation", sent).status in (201, 400, 409, 422)


# -- conditional create ------------------------------------------------------------------------------------------------


def _conditional(server: Server, value: str) -> tuple[dict, dict]:
    sent = server.bed().heart_rate(71, identifier=[{"system": "urn:example:once", "value": value}])
    return sent, {"if-none-exist": f"identifier=urn:example:once|{value}"}


@rule(
    "conditional-create.once", "If-None-Exist: first 201, then 200 and the same resource", "http.html#ccreate"
)
def _(server: Server) -> None:
    sent, condition = _conditional(server, uuid.uuid4().hex)
    first = ok(server.post("Observation", sent, condition), 201)
    ok(server.post("Observation", sent, condition), 200)
    kept = first.headers["location"].split("/_history/")[0].rsplit("/", 1)[-1]
    same(ok(server.get(f"Observation?{condition['if-none-exist']}")).ids(), [kept])


@rule(
    "conditional-create.race",
    "16 at once with one condition make one resource (5 rounds)",
    "http.html#ccreate",
)
def _(server: Server) -> None:
    for _ in range(5):
        value = uuid.uuid4().hex
        sent, condition = _conditional(server, value)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: server.post("Observation", sent, condition), range(16)))  # noqa: B023
        assert all(answer.status in (200, 201) for answer in answers), sorted(
            answer.status for answer in answers
        )
        same(len(ok(server.get(f"Observation?identifier=urn:example:once|{value}")).ids()), 1)


@rule("conditional-create.different", "another identifier makes another resource", "http.html#ccreate")
def _(server: Server) -> None:
    ids = set()
    for _ in range(2):
        sent, condition = _conditional(server, uuid.uuid4().hex)
        ids.add(ok(server.post("Observation", sent, condition), 201).headers["location"])
    same(len(ids), 2)


# -- update ------------------------------------------------------------------------------------------------------------


def _amended(kept: dict, value: int) -> dict:
    changed = {**kept, "status": "amended", "valueQuantity": {**kept["valueQuantity"], "value": value}}
    return {name: inner for name, inner in changed.items() if name != "issued"}


@rule("update.version", "PUT makes a new version: 200, a new ETag, the new content", "http.html#update")
def _(server: Server) -> None:
    kept = server.bed().kept()
    answer = ok(server.put(f"Observation/{kept['id']}", _amended(kept, 73)))
    seen = server.get(f"Observation/{kept['id']}")
    same((seen.body["status"], seen.body["valueQuantity"]["value"]), ("amended", 73))
    assert seen.body["meta"]["versionId"] != kept["meta"]["versionId"]
    same(answer.headers["etag"], seen.headers["etag"])


@rule("update.if-match", "If-Match with an old version is 412 and changes nothing", "http.html#concurrency")
def _(server: Server) -> None:
    kept = server.bed().kept()
    old = server.get(f"Observation/{kept['id']}").headers["etag"]
    ok(server.put(f"Observation/{kept['id']}", _amended(kept, 73), {"if-match": old}))
    outcome(server.put(f"Observation/{kept['id']}", _amended(kept, 74), {"if-match": old}), 412)
    same(server.get(f"Observation/{kept['id']}").body["valueQuantity"]["value"], 73)


@rule("update.race", "of 8 updates at once with one If-Match, one wins (3 rounds)", "http.html#concurrency")
def _(server: Server) -> None:
    for _ in range(3):
        kept = server.bed().kept()
        tag = server.get(f"Observation/{kept['id']}").headers["etag"]
        sent = [_amended(kept, 73 + number) for number in range(8)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            put = lambda each: server.put(f"Observation/{kept['id']}", each, {"if-match": tag}).status  # noqa: B023, E731
            statuses = sorted(pool.map(put, sent))
        same((statuses.count(200), all(status in (200, 409, 412) for status in statuses)), (1, True))


@rule("update.id-mismatch", "an id in the body that is not the id of the address is 400", "http.html#update")
def _(server: Server) -> None:
    kept = server.bed().kept()
    outcome(server.put(f"Observation/{kept['id']}", {**_amended(kept, 73), "id": "another"}), 400, 422)


@rule(
    "update.as-create",
    "PUT to an id that is not there creates it, or is refused with 405 or 404",
    "http.html#upsert",
)
def _(server: Server) -> None:
    # An id of its own: other rules rely on NOBODY.
    new = str(uuid.uuid4())
    answer = server.put(f"Observation/{new}", server.bed().heart_rate(71, id=new))
    assert answer.status in (201, 404, 405), answer


@rule("update.invalid", "an invalid update is refused and changes nothing", "http.html#update")
def _(server: Server) -> None:
    kept = server.bed().kept()
    faulty = _amended(kept, 73)
    del faulty["code"]
    outcome(server.put(f"Observation/{kept['id']}", faulty), 400, 422)
    same(server.get(f"Observation/{kept['id']}").body["meta"]["versionId"], kept["meta"]["versionId"])


@rule(
    "update.entered-in-error", "what was entered in error stays readable with that status", "observation.html"
)
def _(server: Server) -> None:
    kept = server.bed().kept()
    ok(server.put(f"Observation/{kept['id']}", {**_amended(kept, 72), "status": "entered-in-error"}))
    same(server.get(f"Observation/{kept['id']}").body["status"], "entered-in-error")


# -- delete ------------------------------------------------------------------------------------------------------------


@rule("delete.gone", "after DELETE (200 or 204) a read is 410, or 404", "http.html#delete")
def _(server: Server) -> None:
    kept = server.bed().kept()
    ok(server.delete(f"Observation/{kept['id']}"), 200, 202, 204)
    assert server.get(f"Observation/{kept['id']}").status in (404, 410)


@rule("delete.search", "what was deleted is not found any more", "http.html#delete")
def _(server: Server) -> None:
    bed = server.bed()
    kept = bed.kept()
    ok(server.delete(f"Observation/{kept['id']}"), 200, 202, 204)
    same(bed.search().ids(), [])


@rule("delete.unknown", "DELETE of what never was is 200, 204 or 404", "http.html#delete")
def _(server: Server) -> None:
    assert server.delete(f"Observation/{uuid.uuid4()}").status in (200, 204, 404)


# -- versions and history ----------------------------------------------------------------------------------------------


@rule("vread", "both versions are read by their numbers", "http.html#vread")
def _(server: Server) -> None:
    kept = server.bed().kept()
    ok(server.put(f"Observation/{kept['id']}", _amended(kept, 73)))
    new = server.get(f"Observation/{kept['id']}").body
    for version, value in ((kept["meta"]["versionId"], 72), (new["meta"]["versionId"], 73)):
        answer = ok(server.get(f"Observation/{kept['id']}/_history/{version}"))
        same((answer.body["valueQuantity"]["value"], answer.headers["etag"]), (value, f'W/"{version}"'))


@rule("vread.unknown", "a version that never was is 404", "http.html#vread")
def _(server: Server) -> None:
    kept = server.bed().kept()
    outcome(server.get(f"Observation/{kept['id']}/_history/4711"), 404)


@rule(
    "history.instance",
    "the history of a resource: type history, newest first, with request and response",
    "http.html#history",
)
def _(server: Server) -> None:
    kept = server.bed().kept()
    ok(server.put(f"Observation/{kept['id']}", _amended(kept, 73)))
    history = ok(server.get(f"Observation/{kept['id']}/_history"))
    same(history.body["type"], "history")
    same([entry["resource"]["valueQuantity"]["value"] for entry in history.entries], [73, 72])
    same([entry["request"]["method"] for entry in history.entries], ["PUT", "POST"])
    assert all("fullUrl" in entry for entry in history.entries)


@rule("history.count", "_count limits the history", "http.html#history")
def _(server: Server) -> None:
    kept = server.bed().kept()
    ok(server.put(f"Observation/{kept['id']}", _amended(kept, 73)))
    same(len(ok(server.get(f"Observation/{kept['id']}/_history?_count=1")).entries), 1)


@rule("history.unknown", "the history of what never was is 404", "http.html#history")
def _(server: Server) -> None:
    outcome(server.get(f"Observation/{NOBODY}/_history"), 404)


@rule("history.type", "the history of a type", "http.html#history")
def _(server: Server) -> None:
    server.bed()
    same(ok(server.get("Patient/_history?_count=2")).body["type"], "history")


@rule("patient.update", "a patient's name is changed, the old one stands in the history", "http.html#update")
def _(server: Server) -> None:
    patient = server.patient("Before")
    resource = server.get(f"Patient/{patient.id}").body
    resource["name"][0]["family"] = "After"
    ok(server.put(f"Patient/{patient.id}", resource))
    same(server.get(f"Patient/{patient.id}").body["name"][0]["family"], "After")
    history = ok(server.get(f"Patient/{patient.id}/_history"))
    same([entry["resource"]["name"][0]["family"] for entry in history.entries], ["After", "Before"])


@rule("patient.create", "a patient is created over FHIR", "http.html#create")
def _(server: Server) -> None:
    resource = {
        "resourceType": "Patient",
        "identifier": [{"system": server.number_system, "value": uuid.uuid4().hex}],
        "name": [{"family": "New", "given": ["Born"]}],
        "gender": "male",
        "birthDate": "1990-01-01",
    }
    made = ok(server.post("Patient", resource), 201)
    same(server.get(made.headers["location"].split("/_history/")[0]).body["name"][0]["family"], "New")


@rule(
    "method.unsupported",
    "a method that makes no sense is 405 or 404, with an OperationOutcome",
    "http.html#summary",
)
def _(server: Server) -> None:
    outcome(server.delete("metadata"), 400, 404, 405)
