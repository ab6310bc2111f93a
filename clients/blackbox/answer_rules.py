"""What a search answers with: pages, shapes, what belongs to it; and the operations (R4 search.html, operations.html)."""

from __future__ import annotations

from blackbox.server import Server
from blackbox.spec import ok, rule, same

# -- pages -------------------------------------------------------------------------------------------------------------


@rule("page.all-once", "following next meets each once, in order, none missing", "http.html#paging")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(11)
    seen, page = [], ok(bed.search("_count=3&_sort=date"))
    for _ in range(10):
        assert len(page.ids()) <= 3, page
        seen += page.ids()
        if not page.link("next"):
            break
        page = ok(server.get(page.link("next")))
    same(seen, ids)


@rule("page.arrivals", "what arrives between two pages makes nothing come twice", "http.html#paging")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(6)
    page = ok(bed.search("_count=2&_sort=-date"))
    seen = page.ids()
    while page.link("next"):
        # Newer than all: before the first page.
        bed.kept(bed.heart_rate(99))
        page = ok(server.get(page.link("next")))
        seen += page.ids()
    assert len(seen) == len(set(seen)), "one came twice"
    same([each for each in seen if each in ids], ids[::-1])


@rule("page.count-zero", "_count=0 is _summary=count", "search.html#count")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(3)
    answer = ok(bed.search("_count=0"))
    same((answer.body.get("total"), answer.ids()), (3, []))


@rule("page.total", "_total=accurate counts all, whatever the page holds", "search.html#total")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(5)
    answer = ok(bed.search("_count=2&_total=accurate"))
    same((answer.body.get("total"), len(answer.ids())), (5, 2))


@rule("page.total-none", "_total=none is taken", "search.html#total")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(2)
    same(len(ok(bed.search("_total=none")).ids()), 2)


# -- shapes ------------------------------------------------------------------------------------------------------------


@rule("shape.count", "_summary=count: a total and no entries", "search.html#summary")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(3)
    answer = ok(bed.search("_summary=count"))
    same((answer.body.get("total"), answer.entries), (3, []))


@rule(
    "shape.summary",
    "_summary=true leaves out what is no summary element, and marks it",
    "search.html#summary",
)
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    cut = ok(bed.search("_summary=true")).found()[0]
    assert "valueQuantity" in cut and "device" not in cut, cut
    assert any(tag["code"] == "SUBSETTED" for tag in cut["meta"].get("tag", [])), cut["meta"]


@rule("shape.data", "_summary=data leaves out the text, _summary=text the data", "search.html#summary")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    data = ok(bed.search("_summary=data")).found()[0]
    assert "valueQuantity" in data and "text" not in data, data
    text = ok(bed.search("_summary=text")).found()[0]
    assert "valueQuantity" not in text and "code" in text, text


@rule(
    "shape.elements", "_elements: what was asked for, what is mandatory, and a mark", "search.html#elements"
)
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    cut = ok(bed.search("_elements=effectiveDateTime")).found()[0]
    assert {"id", "resourceType"} <= set(cut), cut
    assert "valueQuantity" not in cut and "device" not in cut, cut
    assert any(tag["code"] == "SUBSETTED" for tag in cut["meta"].get("tag", [])), cut["meta"]


# -- what belongs to it ------------------------------------------------------------------------------------------------


@rule(
    "include.patient",
    "_include=Observation:patient brings the patient once, as include",
    "search.html#include",
)
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(3)
    answer = ok(bed.search("_include=Observation:patient"))
    same((len(answer.ids()), answer.ids("Patient", "include")), (3, [bed.patient.id]))


@rule("include.device", "_include=Observation:device and Observation:subject together", "search.html#include")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    answer = ok(bed.search("_include=Observation:device&_include=Observation:subject"))
    same(
        (answer.ids("Device", "include"), answer.ids("Patient", "include")), ([bed.device], [bed.patient.id])
    )


@rule("include.typed", "_include=Observation:subject:Patient", "search.html#include")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    same(ok(bed.search("_include=Observation:subject:Patient")).ids("Patient", "include"), [bed.patient.id])


@rule("include.page", "every page brings its own includes", "search.html#include")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(3)
    page = ok(bed.search("_include=Observation:patient&_count=2"))
    same(page.ids("Patient", "include"), [bed.patient.id])
    same(ok(server.get(page.link("next"))).ids("Patient", "include"), [bed.patient.id])


@rule("include.iterate", "_include:iterate goes on from what was included", "search.html#include")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    answer = ok(bed.search("_include=Observation:device&_include:iterate=Device:patient"))
    same(
        (answer.ids("Device", "include"), answer.ids("Patient", "include")), ([bed.device], [bed.patient.id])
    )


@rule("include.reverse", "_revinclude=Observation:patient brings what was measured", "search.html#revinclude")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(2)
    answer = ok(server.get(f"Patient?_id={bed.patient.id}&_revinclude=Observation:patient"))
    same((answer.ids("Patient"), set(answer.ids("Observation", "include"))), ([bed.patient.id], set(ids)))


@rule("chain.name", "subject:Patient.family and patient.family", "search.html#chaining")
def _(server: Server) -> None:
    patient = server.patient("Chainlink")
    bed = server.bed()
    bed.patient, bed.device = patient, server.device(patient)
    ids = bed.several(2)
    for name in ("subject:Patient.family", "patient.family", "patient.name"):
        same(set(ok(server.get(f"Observation?{name}=Chainlink&{bed.mine}")).ids()), set(ids))
    same(ok(bed.search("patient.family=Nobody")).ids(), [])


@rule("chain.identifier", "patient.identifier", "search.html#chaining")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(1)
    same(
        ok(server.get(f"Observation?patient.identifier={server.number_system}|{bed.patient.number}")).ids(),
        ids,
    )


@rule("chain.reverse", "_has:Observation:patient:code", "search.html#has")
def _(server: Server) -> None:
    bed, other = server.bed(), server.bed()
    bed.kept(bed.pressure())
    other.several(1)
    found = ok(
        server.get(f"Patient?_has:Observation:patient:code=85354-9&_id={bed.patient.id},{other.patient.id}")
    )
    same(found.ids("Patient"), [bed.patient.id])


@rule("compartment", "Patient/id/Observation searches in the patient's compartment", "http.html#vsearch")
def _(server: Server) -> None:
    bed, other = server.bed(), server.bed()
    ids = bed.several(2)
    other.several(1)
    same(set(ok(server.get(f"Patient/{bed.patient.id}/Observation?code=8867-4")).ids()), set(ids))


# -- operations --------------------------------------------------------------------------------------------------------


@rule(
    "operation.everything",
    "$everything: the patient and what was measured, not another's",
    "patient-operation-everything.html",
)
def _(server: Server) -> None:
    bed, other = server.bed(), server.bed()
    ids = bed.several(2)
    other.several(1)
    answer = ok(server.get(f"Patient/{bed.patient.id}/$everything"))
    resources_found = [entry["resource"] for entry in answer.entries]
    same([each["id"] for each in resources_found if each["resourceType"] == "Patient"], [bed.patient.id])
    same({each["id"] for each in resources_found if each["resourceType"] == "Observation"}, set(ids))


@rule("operation.lastn", "$lastn: the newest max of each code", "observation-operation-lastn.html")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(3)
    pressure = bed.kept(bed.pressure())
    answer = ok(server.get(f"Observation/$lastn?patient=Patient/{bed.patient.id}&category=vital-signs&max=2"))
    same(set(answer.ids()), {ids[1], ids[2], pressure["id"]})


@rule("operation.stats", "$stats: average, minimum, maximum and count", "observation-operation-stats.html")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(5)
    query = f"subject=Patient/{bed.patient.id}&code=8867-4&system=http://loinc.org&duration=1"
    names = "&".join(f"statistic={name}" for name in ("average", "minimum", "maximum", "count"))
    answer = ok(server.get(f"Observation/$stats?{query}&{names}"))
    same(answer.body["resourceType"], "Parameters")
    text = answer.text
    assert "62" in text and "60" in text and "64" in text, text[:400]


@rule(
    "operation.validate",
    "$validate: a sound resource has no error, an unsound one has",
    "resource-operation-validate.html",
)
def _(server: Server) -> None:
    bed = server.bed()
    good = ok(server.post("Observation/$validate", bed.heart_rate(70))).body
    assert not any(issue["severity"] in ("error", "fatal") for issue in good["issue"]), good
    sent = bed.heart_rate(70)
    del sent["code"]
    answer = server.post("Observation/$validate", sent)
    assert answer.status in (200, 400, 422), answer
    assert any(issue["severity"] in ("error", "fatal") for issue in answer.body["issue"]), answer


@rule(
    "create.profile",
    "a heart rate that claims the vital-signs profile, and keeps it, is created",
    "heartrate.html",
)
def _(server: Server) -> None:
    profile = {"profile": ["http://hl7.org/fhir/StructureDefinition/heartrate"]}
    ok(server.post("Observation", server.bed().heart_rate(70) | {"meta": profile}), 201)


@rule(
    "operation.validate-profile",
    "$validate: a heart rate that claims the vital-signs profile, and keeps it, has no error",
    "heartrate.html",
)
def _(server: Server) -> None:
    profile = {"profile": ["http://hl7.org/fhir/StructureDefinition/heartrate"]}
    answer = ok(server.post("Observation/$validate", server.bed().heart_rate(70) | {"meta": profile}))
    assert not any(issue["severity"] in ("error", "fatal") for issue in answer.body["issue"]), answer
