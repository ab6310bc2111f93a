"""Search: parameters, prefixes, paging, shapes, includes, chains, operations (R4 search.html)."""

from __future__ import annotations

from blackbox.server import Server
from blackbox.spec import ok, outcome, rule, same
from house import resources

STRICT = {"prefer": "handling=strict"}
LENIENT = {"prefer": "handling=lenient"}


@rule("search.bundle", "a searchset with a self link, absolute addresses and match modes", "search.html#return")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(2)
    answer = ok(bed.search())
    same(answer.body["type"], "searchset")
    assert answer.link("self"), answer.body.get("link")
    assert all(entry["fullUrl"].endswith(f"/Observation/{entry['resource']['id']}") for entry in answer.entries)
    assert all(entry["fullUrl"].startswith("http") for entry in answer.entries)
    same([entry["search"]["mode"] for entry in answer.entries], ["match", "match"])


@rule("search.empty", "nothing found is an empty searchset, not an error", "search.html#return")
def _(server: Server) -> None:
    same(ok(server.bed().search()).ids(), [])


@rule("search.id", "_id, one and several", "search.html#id")
def _(server: Server) -> None:
    ids = server.bed().several(3)
    same(ok(server.get(f"Observation?_id={ids[0]}")).ids(), [ids[0]])
    same(set(ok(server.get(f"Observation?_id={ids[0]},{ids[2]}")).ids()), {ids[0], ids[2]})


@rule("search.post", "POST _search finds what GET finds", "http.html#search")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(3)
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = ok(server.post("Observation/_search", bed.mine, headers))
    same(set(answer.ids()), set(ids))


@rule("search.token", "token: system|code, code alone, system|, and |code without system", "search.html#token")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    lengths = [len(bed.search(f"code={code}").ids()) for code in ("http://loinc.org|8867-4", "8867-4", "http://loinc.org|", "|8867-4")]
    same(lengths, [1, 1, 1, 0])


@rule("search.token-or", "a comma means or", "search.html#combining")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    bed.kept(bed.pressure())
    same(len(ok(bed.search("code=8867-4,85354-9")).ids()), 2)


@rule("search.token-not", "code:not leaves a code out", "search.html#modifiers")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    pressure = bed.kept(bed.pressure())
    same(ok(bed.search("code:not=8867-4")).ids(), [pressure["id"]])


@rule("search.missing", ":missing finds what has no such element", "search.html#modifiers")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    same((len(ok(bed.search("date:missing=false")).ids()), len(ok(bed.search("date:missing=true")).ids())), (1, 0))


@rule("search.combo-code", "combo-code finds a component's code, component-code too", "observation.html#search")
def _(server: Server) -> None:
    bed = server.bed()
    pressure = bed.kept(bed.pressure())
    same(ok(bed.search("combo-code=http://loinc.org|8480-6")).ids(), [pressure["id"]])
    same(ok(bed.search("component-code=http://loinc.org|8480-6")).ids(), [pressure["id"]])


@rule("search.category-status", "category and status", "observation.html#search")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    same(len(ok(bed.search("category=vital-signs&status=final")).ids()), 1)
    same(len(ok(bed.search("category=laboratory")).ids()), 0)


@rule("search.reference", "a reference as Patient/id, as id, as an absolute address", "search.html#reference")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(1)
    for value in (f"Patient/{bed.patient.id}", bed.patient.id, f"{server.base}/Patient/{bed.patient.id}"):
        same(ok(server.get(f"Observation?subject={value}")).ids(), ids)
    same(ok(server.get(f"Observation?patient={bed.patient.id}")).ids(), ids)


@rule("search.reference-type", "subject:Patient= names the type", "search.html#reference")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(1)
    same(ok(server.get(f"Observation?subject:Patient={bed.patient.id}")).ids(), ids)


@rule("search.date-prefixes", "eq, ne, gt, ge, lt, le, sa, eb on instants", "search.html#prefix")
def _(server: Server) -> None:
    bed = server.bed()
    whole = resources.at(-900)[:19]
    sent = [bed.heart_rate(60 + n) | {"effectiveDateTime": f"{whole[:17]}{second:02d}Z"} for n, second in enumerate((10, 20, 30))]
    ids = [bed.kept(each)["id"] for each in sent]
    middle = sent[1]["effectiveDateTime"]
    expected = {"": [1], "eq": [1], "ne": [0, 2], "gt": [2], "ge": [1, 2], "lt": [0], "le": [0, 1], "sa": [2], "eb": [0]}
    for prefix, numbers in expected.items():
        found = ok(bed.search(f"date={prefix}{middle}")).ids()
        assert set(found) == {ids[number] for number in numbers}, f"date={prefix}: {len(found)} found"


@rule("search.date-day", "a date stands for its whole day, a month for its whole month", "search.html#date")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    day = bed.search().found()[0]["effectiveDateTime"][:10]
    same([len(ok(bed.search(f"date={text}")).ids()) for text in (day, day[:7], day[:4], "1999-01-01")], [1, 1, 1, 0])


@rule("search.date-and", "a repeated parameter means and", "search.html#combining")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(5)
    times = sorted(each["effectiveDateTime"] for each in bed.search().found())
    same(len(ok(bed.search(f"date=ge{times[1]}&date=lt{times[3]}")).ids()), 2)


@rule("search.date-wrong", "a date that is none is 400", "search.html#errors")
def _(server: Server) -> None:
    outcome(server.bed().search("date=yesterday"), 400)


@rule("search.last-updated", "_lastUpdated", "search.html#lastUpdated")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    same(len(ok(bed.search(f"_lastUpdated=gt{resources.at(-3600)}")).ids()), 1)
    same(len(ok(bed.search(f"_lastUpdated=lt{resources.at(-3600)}")).ids()), 0)


@rule("search.quantity", "value-quantity with a prefix and a unit", "search.html#quantity")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(3)
    same(ok(bed.search("value-quantity=gt61|http://unitsofmeasure.org|/min")).ids(), [ids[2]])


@rule("search.sort", "_sort=date and _sort=-date", "search.html#sort")
def _(server: Server) -> None:
    bed = server.bed()
    ids = bed.several(4)
    same(ok(bed.search("_sort=date")).ids(), ids)
    same(ok(bed.search("_sort=-date")).ids(), ids[::-1])


@rule("search.strict", "with handling=strict an unknown parameter is refused", "search.html#errors")
def _(server: Server) -> None:
    outcome(server.bed().search("colour=red", STRICT), 400)


@rule("search.lenient", "with handling=lenient an unknown parameter is ignored, and the self link does not show it", "search.html#errors")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    answer = ok(bed.search("colour=red", LENIENT))
    same(len(answer.ids()), 1)
    assert "colour" not in (answer.link("self") or ""), answer.link("self")


@rule("search.string", "a string matches from its start, whatever its case and accents", "search.html#string")
def _(server: Server) -> None:
    patient = server.patient("Wåhlström")
    for text in ("Wåhl", "wåhlström", "WAHLSTROM"):
        assert patient.id in ok(server.get(f"Patient?family={text}&_count=100")).ids("Patient"), text
    assert patient.id not in ok(server.get("Patient?family=hlstr")).ids("Patient")


@rule("search.string-exact", ":exact and :contains", "search.html#string")
def _(server: Server) -> None:
    patient = server.patient("Exactly")
    found = {text: patient.id in ok(server.get(f"Patient?family{text}")).ids("Patient") for text in (":exact=Exactly", ":exact=exactly", ":contains=xact")}
    same(found, {":exact=Exactly": True, ":exact=exactly": False, ":contains=xact": True})


@rule("search.patient", "identifier, birthdate and gender of a patient", "patient.html#search")
def _(server: Server) -> None:
    patient = server.patient("Params", gender="other")
    same(ok(server.get(f"Patient?identifier={server.number_system}|{patient.number}")).ids("Patient"), [patient.id])
    found = ok(server.get("Patient?birthdate=1950-03-21&gender=other&family=Params")).ids("Patient")
    assert patient.id in found, found


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


@rule("shape.summary", "_summary=true leaves out what is no summary element, and marks it", "search.html#summary")
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


@rule("shape.elements", "_elements: what was asked for, what is mandatory, and a mark", "search.html#elements")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    cut = ok(bed.search("_elements=effectiveDateTime")).found()[0]
    assert {"id", "resourceType"} <= set(cut), cut
    assert "valueQuantity" not in cut and "device" not in cut, cut
    assert any(tag["code"] == "SUBSETTED" for tag in cut["meta"].get("tag", [])), cut["meta"]


# -- what belongs to it ------------------------------------------------------------------------------------------------


@rule("include.patient", "_include=Observation:patient brings the patient once, as include", "search.html#include")
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
    same((answer.ids("Device", "include"), answer.ids("Patient", "include")), ([bed.device], [bed.patient.id]))


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
    same((answer.ids("Device", "include"), answer.ids("Patient", "include")), ([bed.device], [bed.patient.id]))


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
    same(ok(server.get(f"Observation?patient.identifier={server.number_system}|{bed.patient.number}")).ids(), ids)


@rule("chain.reverse", "_has:Observation:patient:code", "search.html#has")
def _(server: Server) -> None:
    bed, other = server.bed(), server.bed()
    bed.kept(bed.pressure())
    other.several(1)
    found = ok(server.get(f"Patient?_has:Observation:patient:code=85354-9&_id={bed.patient.id},{other.patient.id}"))
    same(found.ids("Patient"), [bed.patient.id])


@rule("compartment", "Patient/id/Observation searches in the patient's compartment", "http.html#vsearch")
def _(server: Server) -> None:
    bed, other = server.bed(), server.bed()
    ids = bed.several(2)
    other.several(1)
    same(set(ok(server.get(f"Patient/{bed.patient.id}/Observation?code=8867-4")).ids()), set(ids))


# -- operations --------------------------------------------------------------------------------------------------------


@rule("operation.everything", "$everything: the patient and what was measured, not another's", "patient-operation-everything.html")
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


@rule("operation.validate", "$validate: a sound resource has no error, an unsound one has", "resource-operation-validate.html")
def _(server: Server) -> None:
    bed = server.bed()
    good = ok(server.post("Observation/$validate", bed.heart_rate(70))).body
    assert not any(issue["severity"] in ("error", "fatal") for issue in good["issue"]), good
    sent = bed.heart_rate(70)
    del sent["code"]
    answer = server.post("Observation/$validate", sent)
    assert answer.status in (200, 400, 422), answer
    assert any(issue["severity"] in ("error", "fatal") for issue in answer.body["issue"]), answer


@rule("operation.validate-profile", "$validate: a heart rate of the vital-signs profile has no error", "heartrate.html")
def _(server: Server) -> None:
    answer = ok(server.post("Observation/$validate", server.bed().heart_rate(70)))
    assert not any(issue["severity"] in ("error", "fatal") for issue in answer.body["issue"]), answer
