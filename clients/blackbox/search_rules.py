"""Search: which parameters find what (R4 search.html)."""

from __future__ import annotations

from blackbox.server import Server
from blackbox.spec import ok, outcome, rule, same
from house import resources

STRICT = {"prefer": "handling=strict"}
LENIENT = {"prefer": "handling=lenient"}


@rule(
    "search.bundle", "a searchset with a self link, absolute addresses and match modes", "search.html#return"
)
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(2)
    answer = ok(bed.search())
    same(answer.body["type"], "searchset")
    assert answer.link("self"), answer.body.get("link")
    assert all(
        entry["fullUrl"].endswith(f"/Observation/{entry['resource']['id']}") for entry in answer.entries
    )
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


@rule(
    "search.token", "token: system|code, code alone, system|, and |code without system", "search.html#token"
)
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    lengths = [
        len(bed.search(f"code={code}").ids())
        for code in ("http://loinc.org|8867-4", "8867-4", "http://loinc.org|", "|8867-4")
    ]
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
    same(
        (len(ok(bed.search("date:missing=false")).ids()), len(ok(bed.search("date:missing=true")).ids())),
        (1, 0),
    )


@rule(
    "search.combo-code", "combo-code finds a component's code, component-code too", "observation.html#search"
)
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
    sent = [
        bed.heart_rate(60 + n) | {"effectiveDateTime": f"{whole[:17]}{second:02d}Z"}
        for n, second in enumerate((10, 20, 30))
    ]
    ids = [bed.kept(each)["id"] for each in sent]
    middle = sent[1]["effectiveDateTime"]
    expected = {
        "": [1],
        "eq": [1],
        "ne": [0, 2],
        "gt": [2],
        "ge": [1, 2],
        "lt": [0],
        "le": [0, 1],
        "sa": [2],
        "eb": [0],
    }
    for prefix, numbers in expected.items():
        found = ok(bed.search(f"date={prefix}{middle}")).ids()
        assert set(found) == {ids[number] for number in numbers}, f"date={prefix}: {len(found)} found"


@rule("search.date-day", "a date stands for its whole day, a month for its whole month", "search.html#date")
def _(server: Server) -> None:
    bed = server.bed()
    bed.several(1)
    day = bed.search().found()[0]["effectiveDateTime"][:10]
    same(
        [len(ok(bed.search(f"date={text}")).ids()) for text in (day, day[:7], day[:4], "1999-01-01")],
        [1, 1, 1, 0],
    )


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


@rule(
    "search.lenient",
    "with handling=lenient an unknown parameter is ignored, and the self link does not show it",
    "search.html#errors",
)
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
    found = {
        text: patient.id in ok(server.get(f"Patient?family{text}")).ids("Patient")
        for text in (":exact=Exactly", ":exact=exactly", ":contains=xact")
    }
    same(found, {":exact=Exactly": True, ":exact=exactly": False, ":contains=xact": True})


@rule("search.patient", "identifier, birthdate and gender of a patient", "patient.html#search")
def _(server: Server) -> None:
    patient = server.patient("Params", gender="other")
    same(
        ok(server.get(f"Patient?identifier={server.number_system}|{patient.number}")).ids("Patient"),
        [patient.id],
    )
    found = ok(server.get("Patient?birthdate=1950-03-21&gender=other&family=Params")).ids("Patient")
    assert patient.id in found, found
