"""Batches and transactions (R4 http.html#transaction)."""

from __future__ import annotations

import uuid

from blackbox.server import Server
from blackbox.spec import ok, outcome, rule, same
from house.resources import bundle, entry


def _statuses(answer) -> list[str]:
    return [each["response"]["status"][:3] for each in answer.entries]


@rule(
    "batch.mixed",
    "a batch of a create, a read and a search: an answer each, in order",
    "http.html#transaction-response",
)
def _(server: Server) -> None:
    bed = server.bed()
    kept = bed.kept()
    sent = bundle(
        "batch",
        entry("POST", "Observation", bed.heart_rate(80)),
        entry("GET", f"Observation/{kept['id']}"),
        entry("GET", f"Observation?{bed.mine}"),
    )
    answer = ok(server.post("", sent))
    same((answer.body["type"], _statuses(answer)), ("batch-response", ["201", "200", "200"]))
    same(answer.entries[1]["resource"]["id"], kept["id"])
    same(answer.entries[2]["resource"]["type"], "searchset")


@rule(
    "batch.partial",
    "of a batch the good entries are kept, the bad one has its outcome",
    "http.html#transaction",
)
def _(server: Server) -> None:
    bed = server.bed()
    sent = bundle(
        "batch",
        entry("POST", "Observation", bed.heart_rate(80)),
        entry("POST", "Observation", {"resourceType": "Observation"}),
    )
    answer = ok(server.post("", sent))
    same(_statuses(answer)[0], "201")
    assert _statuses(answer)[1] in ("400", "422"), answer
    same(answer.entries[1]["response"]["outcome"]["resourceType"], "OperationOutcome")
    same(len(bed.search().ids()), 1)


@rule(
    "batch.unknown",
    "an entry that reads what is not there is 404 in its place",
    "http.html#transaction-response",
)
def _(server: Server) -> None:
    answer = ok(server.post("", bundle("batch", entry("GET", "Patient/nobody"))))
    same(_statuses(answer), ["404"])


@rule(
    "transaction.create",
    "a transaction of creates: 201, Location and ETag each",
    "http.html#transaction-response",
)
def _(server: Server) -> None:
    bed = server.bed()
    sent = bundle("transaction", *(entry("POST", "Observation", bed.heart_rate(60 + n)) for n in range(3)))
    answer = ok(server.post("", sent))
    same((answer.body["type"], _statuses(answer)), ("transaction-response", ["201"] * 3))
    assert all("Observation/" in each["response"]["location"] for each in answer.entries)
    assert all(each["response"]["etag"].startswith('W/"') for each in answer.entries)
    same(len(bed.search().ids()), 3)


@rule("transaction.atomic", "one bad entry refuses the whole, and nothing is kept", "http.html#trules")
def _(server: Server) -> None:
    bed = server.bed()
    bad = bed.heart_rate(80)
    del bad["code"]
    sent = bundle(
        "transaction", entry("POST", "Observation", bed.heart_rate(80)), entry("POST", "Observation", bad)
    )
    outcome(server.post("", sent), 400, 422)
    same(bed.search().ids(), [])


@rule("transaction.two-devices", "one transaction with the observations of two devices", "http.html#trules")
def _(server: Server) -> None:
    one, two = server.bed(), server.bed()
    sent = bundle(
        "transaction",
        entry("POST", "Observation", one.heart_rate(80)),
        entry("POST", "Observation", two.heart_rate(81)),
    )
    same(_statuses(ok(server.post("", sent))), ["201", "201"])
    same((len(one.search().ids()), len(two.search().ids())), (1, 1))


@rule("transaction.read", "reads of a transaction come after its writes", "http.html#trules")
def _(server: Server) -> None:
    bed = server.bed()
    sent = bundle(
        "transaction",
        entry("GET", f"Observation?{bed.mine}"),
        entry("POST", "Observation", bed.heart_rate(80)),
    )
    answer = ok(server.post("", sent))
    same(len(answer.entries[0]["resource"].get("entry", [])), 1)


@rule("transaction.update", "an update in a transaction, with ifMatch", "http.html#trules")
def _(server: Server) -> None:
    kept = server.bed().kept()
    changed = {**kept, "status": "amended", "valueQuantity": {**kept["valueQuantity"], "value": 73}}
    changed.pop("issued", None)
    tag = f'W/"{kept["meta"]["versionId"]}"'
    same(
        _statuses(
            ok(
                server.post(
                    "", bundle("transaction", entry("PUT", f"Observation/{kept['id']}", changed, ifMatch=tag))
                )
            )
        ),
        ["200"],
    )
    same(server.get(f"Observation/{kept['id']}").body["valueQuantity"]["value"], 73)
    stale = server.post(
        "",
        bundle(
            "transaction",
            entry("PUT", f"Observation/{kept['id']}", {**changed, "status": "corrected"}, ifMatch=tag),
        ),
    )
    outcome(stale, 400, 409, 412)


@rule("transaction.if-none-exist", "ifNoneExist in a transaction: created once", "http.html#trules")
def _(server: Server) -> None:
    bed = server.bed()
    value = uuid.uuid4().hex
    once = bed.heart_rate(80, identifier=[{"system": "urn:example:once", "value": value}])
    sent = bundle(
        "transaction", entry("POST", "Observation", once, ifNoneExist=f"identifier=urn:example:once|{value}")
    )
    same([_statuses(ok(server.post("", sent))) for _ in range(2)], [["201"], ["200"]])
    same(len(bed.search().ids()), 1)


@rule(
    "transaction.household",
    "a patient, a device of hers and what it measured, in one transaction, by urn:uuid",
    "http.html#trules",
)
def _(server: Server) -> None:
    who, what = f"urn:uuid:{uuid.uuid4()}", f"urn:uuid:{uuid.uuid4()}"
    patient = {
        "resourceType": "Patient",
        "identifier": [{"system": server.number_system, "value": uuid.uuid4().hex}],
        "name": [{"family": "House", "given": ["Hold"]}],
        "birthDate": "1980-01-01",
        "gender": "female",
    }
    device = {
        "resourceType": "Device",
        "status": "active",
        "deviceName": [{"name": "cuff", "type": "user-friendly-name"}],
        "patient": {"reference": who},
    }
    observed = server.bed().heart_rate(81, seconds_ago=0)
    observed["subject"], observed["device"] = {"reference": who}, {"reference": what}
    # In this order, so that each refers to what comes later.
    sent = bundle(
        "transaction",
        entry("POST", "Observation", observed),
        entry("POST", "Device", device, fullUrl=what),
        entry("POST", "Patient", patient, fullUrl=who),
    )
    answer = ok(server.post("", sent))
    same(_statuses(answer), ["201"] * 3)
    made = [each["response"]["location"].split("/_history/")[0] for each in answer.entries]
    relative = ["/".join(each.split("/")[-2:]) for each in made]
    kept = server.get(relative[0]).body
    same([kept["device"]["reference"], kept["subject"]["reference"]], relative[1:])
    same(server.get(relative[1]).body["patient"]["reference"], relative[2])


@rule(
    "transaction.references",
    "urn:uuid references inside a transaction become the new ids",
    "http.html#trules",
)
def _(server: Server) -> None:
    bed = server.bed()
    temporary = f"urn:uuid:{uuid.uuid4()}"
    patient = {
        "resourceType": "Patient",
        "identifier": [{"system": server.number_system, "value": uuid.uuid4().hex}],
        "name": [{"family": "Linked", "given": ["In"]}],
        "birthDate": "1980-01-01",
        "gender": "female",
    }
    observed = bed.heart_rate(80)
    observed["subject"] = {"reference": temporary}
    sent = bundle(
        "transaction",
        entry("POST", "Patient", patient, fullUrl=temporary),
        entry("POST", "Observation", observed),
    )
    answer = ok(server.post("", sent))
    new = answer.entries[0]["response"]["location"].split("Patient/")[1].split("/")[0]
    location = answer.entries[1]["response"]["location"].split("/_history/")[0]
    kept = server.get(location.removeprefix(f"{server.base}/")).body
    same(kept["subject"]["reference"].split("/")[-1], new)


@rule("transaction.duplicate", "one resource twice in a transaction is refused", "http.html#trules")
def _(server: Server) -> None:
    kept = server.bed().kept()
    changed = {**kept, "status": "amended"}
    sent = bundle("transaction", *(entry("PUT", f"Observation/{kept['id']}", changed) for _ in range(2)))
    outcome(server.post("", sent), 400, 409, 412, 422)


@rule("transaction.empty", "an empty transaction is answered with an empty response", "http.html#transaction")
def _(server: Server) -> None:
    same(
        ok(server.post("", {"resourceType": "Bundle", "type": "transaction"})).body["type"],
        "transaction-response",
    )


@rule("bundle.wrong-type", "a bundle that is no batch and no transaction is refused", "http.html#transaction")
def _(server: Server) -> None:
    outcome(server.post("", {"resourceType": "Bundle", "type": "collection"}), 400, 422)


@rule("bundle.no-request", "an entry without a request is refused", "bundle.html#invs")
def _(server: Server) -> None:
    outcome(server.post("", bundle("transaction", {"resource": server.bed().heart_rate(80)})), 400, 422)
