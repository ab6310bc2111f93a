"""Makes `vectors/fhir/mutations.json` from the sound bases and the official R4 definitions.

    python clients/mutations/generate.py [--check]

Every mutation plants one fault (or makes a sound variant) and says which rule of which element it concerns: the
expectation comes from HL7's StructureDefinitions, not from the code under test. The choice among the thousands that
are possible is drawn with a fixed seed, so that the same definitions give the same file.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mutations.definitions import Book, Site, sites  # noqa: E402
from mutations.invariants import INVARIANTS  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
VECTORS = ROOT / "vectors" / "fhir"
SEED = 20_261_122
MOST_A_RULE = 6
"""Mutations that one rule may give for one base: each rule is to be seen everywhere, none too often."""
BASES = {
    "heart-rate": "cases/00-valid-hr",
    "ecg": "cases/01-valid-sampleddata",
    "blood-pressure": "bases/blood-pressure",
    "transaction": "cases/20-valid-transaction",
    "audit-event": "cases/22-valid-auditevent",
    "device-metric": "cases/27-valid-devicemetric",
    "patient": "bases/patient",
    "device": "bases/device",
}
BAD_TEXT = {
    "dateTime": [
        "2026-13-01",
        "2026-11-22T10:15:30",
        "2026-11-22 10:15:30Z",
        "2026-11-22T24:15:30Z",
        "22.11.2026",
        "2026-11-31",
    ],
    "instant": ["2026-11-22", "2026-11-22T10:15:30", "2026-11-22T10:15Z", "2026-02-30T10:15:30Z"],
    "date": ["1950-3-21", "1950-03-21T00:00:00Z", "21.03.1950", "1950-02-30"],
    "id": ["a b", "a_b", "x" * 65],
    "code": [" final", "a  b", "a "],
    "uri": ["http://a b", " urn:x"],
    "canonical": ["http://a b"],
    "base64Binary": ["a b$"],
}
NUMBERS = {"decimal", "integer", "positiveInt", "unsignedInt"}
GOOD_TIMES = {
    "dateTime": ["2026", "2026-11", "2026-11-22", "2026-11-22T10:15:30Z", "2026-11-22T11:15:30.123456+01:00"],
    "instant": ["2026-11-22T10:15:30Z", "2026-11-22T10:15:30.123456789-05:30"],
    "date": ["1950", "1950-03"],
}


@dataclass
class Mutation:
    """One change of a base."""

    rule: str
    pointer: str
    content: Any
    removes: bool
    place: str
    why: str
    sound: bool = False


def faults(book: Book, base: dict[str, Any]) -> Iterator[Mutation]:
    """Every fault that the rules can plant."""
    kind = base["resourceType"]
    for site in sites(book, base):
        path = site.element["path"]
        is_text = isinstance(site.value, str)
        if site.element["min"] > 0 and not (site.is_list and len(site.value) > 1):
            parent_place = site.place.rsplit(".", 1)[0]
            # Where nothing else is left, the element around it is empty, and that is what is wrong.
            place = parent_place if len(site.parent) == 1 else f"{parent_place}.{site.name}"
            yield Mutation("required", site.pointer, None, True, place, f"{path} is 1..{site.element['max']}")
        if site.is_list:
            yield Mutation("single", site.pointer, site.value[0], False, site.place, f"{path} is a list")
            yield Mutation(
                "empty", site.pointer, [], False, site.place, f"{path}: a list in JSON is never empty"
            )
        else:
            yield Mutation("list", site.pointer, [site.value], False, site.place, f"{path} is no list")
            if isinstance(site.value, dict):
                yield Mutation(
                    "empty", site.pointer, {}, False, site.place, f"{path}: an element has content (ele-1)"
                )
        if is_text and site.type != "xhtml":
            yield Mutation(
                "empty", site.pointer, "", False, site.place, f"{path}: a {site.type} is not empty"
            )
            yield Mutation(
                "type", site.pointer, 5, False, site.place, f"{path} is a {site.type}, in JSON text"
            )
            for bad in BAD_TEXT.get(site.type, []):
                yield Mutation(
                    "form", site.pointer, bad, False, site.place, f"{path}: not of the form of {site.type}"
                )
        if site.type in NUMBERS:
            yield Mutation(
                "type",
                site.pointer,
                str(site.value),
                False,
                site.place,
                f"{path} is a {site.type}, in JSON a number",
            )
        if site.type == "positiveInt":
            yield Mutation("form", site.pointer, 0, False, site.place, f"{path}: a positiveInt is at least 1")
            yield Mutation("form", site.pointer, 1.5, False, site.place, f"{path}: a positiveInt is whole")
        if site.type == "boolean":
            yield Mutation("type", site.pointer, "true", False, site.place, f"{path} is a boolean")
        if site.type == "code" and site.element.get("binding", {}).get("strength") == "required" and is_text:
            yield Mutation(
                "binding",
                site.pointer,
                "nonsense",
                False,
                site.place,
                f"{path}: bound to {_set(site.element)}",
            )
        if site.type == "Reference" and not site.is_list and _targets(site.element):
            pointer, place = f"{site.pointer}/reference", f"{site.place}.reference"
            if "reference" in site.value and "Medication" not in _targets(site.element):
                yield Mutation(
                    "target",
                    pointer,
                    "Medication/m1",
                    False,
                    place,
                    f"{path} refers to {', '.join(_targets(site.element))}",
                )
        yield from _choice_faults(site)
    yield from _unknown(book, base)
    if kind != "Bundle":
        yield Mutation("unknown", "/resourceType", "Nonsense", False, "Nonsense", "there is no such resource")


def _choice_faults(site: Site) -> Iterator[Mutation]:
    if not site.name.endswith("[x]"):
        return
    second = {
        "string": "x",
        "boolean": True,
        "integer": 1,
        "dateTime": "2026-11-22",
        "instant": "2026-11-22T10:15:30Z",
    }
    parent_place, _ = site.place.rsplit(".", 1)
    for each in site.element["type"]:
        if each["code"] in second and each["code"] != site.type:
            name = site.name[:-3] + each["code"][0].upper() + each["code"][1:]
            pointer = f"{site.pointer.rsplit('/', 1)[0]}/{name}"
            why = f"{site.element['path']}: one type at a time"
            yield Mutation("choice", pointer, second[each["code"]], False, f"{parent_place}.{site.name}", why)


def _unknown(book: Book, base: dict[str, Any]) -> Iterator[Mutation]:
    yield Mutation(
        "unknown", "/colour", "red", False, f"{base['resourceType']}.colour", "there is no such element"
    )
    for site in sites(book, base):
        if isinstance(site.value, dict) and site.type != "Resource":
            yield Mutation(
                "unknown",
                f"{site.pointer}/colour",
                "red",
                False,
                f"{site.place}.colour",
                f"{site.type} has no such element",
            )


def _set(element: dict[str, Any]) -> str:
    return element["binding"]["valueSet"].split("|")[0].rsplit("/", 1)[-1]


def _targets(element: dict[str, Any]) -> list[str]:
    named = [
        profile.rsplit("/", 1)[-1] for each in element["type"] for profile in each.get("targetProfile", [])
    ]
    return [] if "Resource" in named else named


def variants(book: Book, base: dict[str, Any]) -> Iterator[Mutation]:
    """Changes that leave the base sound."""
    extension = [{"url": "urn:example:variant", "valueString": "x"}]
    for site in sites(book, base):
        path = site.element["path"]

        def sound(rule: str, pointer: str, content: Any, why: str, removes: bool = False) -> Mutation:
            return Mutation(rule, pointer, content, removes, site.place, why, sound=True)  # noqa: B023

        if isinstance(site.value, dict) and site.type not in ("Resource", "Extension"):
            yield sound(
                "extension", f"{site.pointer}/extension", extension, f"{path}: any element may be extended"
            )
            yield sound("element-id", f"{site.pointer}/id", "e1", f"{path}: any element may have an id")
        # Not on what a vital-signs profile fixes: there even an extension is one too many.
        is_fixed = path in ("Coding.system", "Coding.code", "Quantity.system", "Quantity.code")
        if isinstance(site.value, str) and not (
            site.is_list or is_fixed or site.name == "id" or site.type == "xhtml"
        ):
            last = site.pointer.rsplit("/", 1)
            yield sound(
                "primitive-extension",
                f"{last[0]}/_{last[1]}",
                {"extension": extension},
                f"{path}: a primitive may be extended",
            )
        for good in GOOD_TIMES.get(site.type, []):
            if not (path.startswith("Observation.effective") and len(good) < 10):
                # The vital-signs profile wants the day at least (vs-1).
                yield sound("time", site.pointer, good, f"{path}: a {site.type} of another precision or zone")
        if site.type == "CodeableConcept" and isinstance(site.value, dict):
            more = [*site.value.get("coding", []), {"system": "urn:example:codes", "code": "x"}]
            yield sound("coding", f"{site.pointer}/coding", more, f"{path}: a further coding")
        if site.type == "decimal" and site.name == "value":
            for number in ("72.50", "7.2e1", "0.000"):
                yield sound("decimal", site.pointer, {"$number": number}, f"{path}: digits are free")
        if site.type == "code" and site.element.get("binding", {}).get("strength") == "required":
            for code in book.codes.get(site.element["binding"]["valueSet"].split("|")[0], []):
                if code != site.value and site.element["path"] not in (
                    "Bundle.type",
                    "Bundle.entry.request.method",
                ):
                    yield sound(
                        "binding", site.pointer, code, f"{path}: another code of {_set(site.element)}"
                    )
        if site.type == "Reference" and isinstance(site.value, dict) and "reference" in site.value:
            for target in _targets(site.element):
                if not (path == "Observation.subject" and target != "Patient"):
                    yield sound(
                        "target", f"{site.pointer}/reference", f"{target}/t1", f"{path} may refer to {target}"
                    )
        if site.element["min"] == 0 and _may_go(site):
            yield sound("optional", site.pointer, None, f"{path} is optional", removes=True)


NEEDED_BY_A_RULE = {
    "Observation.category": "vital-signs",
    "Observation.subject": "vital-signs",
    "Observation.effective[x]": "vital-signs",
    "Observation.value[x]": "vs-2",
    "Observation.component": "bp",
    "Observation.component.value[x]": "vs-3",
    "Quantity.value": "vital-signs",
    "Quantity.unit": "vital-signs",
    "Quantity.system": "qty-3",
    "Quantity.code": "vital-signs",
    "Observation.category.coding": "vital-signs",
    "CodeableConcept.coding": "vital-signs",
    "Coding.system": "vital-signs",
    "Coding.code": "vital-signs",
    "ContactPoint.system": "cpt-2",
    "Patient.contact.name": "pat-1",
    "Bundle.entry.request": "bdl-3",
    "Bundle.entry.resource": "a create needs it",
    "Reference.reference": "an element has content",
    "Bundle.entry": "there would be nothing to do",
}
"""Optional by cardinality, and needed all the same: by an invariant or by a profile that the base claims."""


def _may_go(site: Site) -> bool:
    if site.element["path"] in NEEDED_BY_A_RULE or len(site.parent) == 1:
        return False
    return site.name not in ("meta", "profile") and site.type != "Extension"


def chosen(book: Book) -> list[dict[str, Any]]:
    """The mutations of the file: of each rule and base a few, drawn with the seed."""
    rows = []
    for base_name, file in BASES.items():
        base = json.loads((VECTORS / f"{file}.json").read_text())
        for make in (faults, variants):
            by_rule: dict[str, list[Mutation]] = {}
            for mutation in make(book, base):
                by_rule.setdefault(mutation.rule, []).append(mutation)
            if make is faults:
                rows += [
                    _row(base_name, Mutation("invariant", pointer, content, False, place, why))
                    for pointer, content, place, why in INVARIANTS.get(base_name, [])
                ]
            for rule, mutations in sorted(by_rule.items()):
                draw = random.Random(f"{SEED} {base_name} {make.__name__} {rule}")
                picked = draw.sample(range(len(mutations)), min(MOST_A_RULE, len(mutations)))
                rows += [_row(base_name, mutations[at]) for at in sorted(picked)]
    return rows


def _row(base: str, mutation: Mutation) -> dict[str, Any]:
    change = (
        {"remove": mutation.pointer}
        if mutation.removes
        else {"set": mutation.pointer, "to": mutation.content}
    )
    verdict = {"sound": True} if mutation.sound else {"place": mutation.place}
    return {"base": base, "rule": mutation.rule, **change, **verdict, "why": mutation.why}


def changed(base: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The base with the change of a row."""
    made = json.loads(json.dumps(base))
    *steps, last = (row.get("remove") or row["set"]).split("/")[1:]
    target: Any = made
    for step in steps:
        target = target[int(step)] if isinstance(target, list) else target[step]
    key = int(last) if isinstance(target, list) else last
    if "remove" in row:
        del target[key]
    else:
        target[key] = row["to"]
    return made


def text(rows: list[dict[str, Any]]) -> str:
    """The file: one mutation a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n"


def main() -> int:
    """Writes the file, or says whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing, and fail where the file differs"
    )
    made = text(chosen(Book.read()))
    target = VECTORS / "mutations.json"
    if parser.parse_args().check:
        if target.read_text() != made:
            print("vectors/fhir/mutations.json is not what the generator makes", file=sys.stderr)
            return 1
        return 0
    target.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
