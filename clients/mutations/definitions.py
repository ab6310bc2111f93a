"""HL7's definitions of R4, as far as they say what may stand where; and the elements of a resource in their light."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = (
    Path(__file__).resolve().parent.parent
    / "node_modules"
    / "@medplum"
    / "definitions"
    / "dist"
    / "fhir"
    / "r4"
)


@dataclass
class Definition:
    """A type's elements by path, from its snapshot."""

    elements: dict[str, dict[str, Any]]

    def children(self, path: str) -> dict[str, dict[str, Any]]:
        """Elements directly below a path, by name."""
        prefix = f"{path}."
        below = {
            name[len(prefix) :]: element for name, element in self.elements.items() if name.startswith(prefix)
        }
        return {name: element for name, element in below.items() if "." not in name}


@dataclass
class Book:
    """HL7's definitions, and the codes of the value sets that are required."""

    types: dict[str, Definition] = field(default_factory=dict)
    codes: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Book:
        """Reads them from the installed package."""
        book = cls()
        for name in ("profiles-types", "profiles-resources"):
            for entry in json.loads((FOLDER / f"{name}.json").read_text())["entry"]:
                resource = entry["resource"]
                if resource["resourceType"] == "StructureDefinition" and "snapshot" in resource:
                    elements = {element["path"]: element for element in resource["snapshot"]["element"]}
                    book.types[resource["name"]] = Definition(elements)
        systems = {}
        sets = []
        for entry in json.loads((FOLDER / "valuesets.json").read_text())["entry"]:
            resource = entry["resource"]
            if resource["resourceType"] == "CodeSystem" and resource.get("content") == "complete":
                systems[resource["url"]] = list(_codes(resource.get("concept", [])))
            elif resource["resourceType"] == "ValueSet":
                sets.append(resource)
        for each in sets:
            includes = each.get("compose", {}).get("include", [])
            if includes and all(
                set(include) <= {"system", "concept"} and "system" in include for include in includes
            ):
                listed = [
                    [concept["code"] for concept in include["concept"]]
                    if "concept" in include
                    else systems.get(include["system"], [])
                    for include in includes
                ]
                book.codes[each["url"]] = sorted({code for codes in listed for code in codes})
        return book


def _codes(concepts: list[dict[str, Any]]) -> Iterator[str]:
    for concept in concepts:
        yield concept["code"]
        yield from _codes(concept.get("concept", []))


@dataclass
class Site:
    """An element of a base: where it stands, what it is, and what the definition says of it."""

    pointer: str
    place: str
    name: str
    element: dict[str, Any]
    type: str
    value: Any
    parent: dict[str, Any]

    @property
    def is_list(self) -> bool:
        """Whether the element repeats."""
        return self.element["max"] != "1"


def sites(book: Book, base: dict[str, Any]) -> Iterator[Site]:
    """Every element that stands in the base, depth first."""
    kind = base["resourceType"]
    yield from _below(book, kind, kind, base, "", kind)


def _below(
    book: Book, kind: str, path: str, value: dict[str, Any], pointer: str, place: str
) -> Iterator[Site]:
    children = book.types[kind].children(path)
    for name, inner in value.items():
        found = _element(children, name)
        if found is None:
            continue
        element_name, element, type_name = found
        site = Site(f"{pointer}/{name}", f"{place}.{name}", element_name, element, type_name, inner, value)
        yield site
        for at, each in enumerate(inner) if isinstance(inner, list) else [(None, inner)]:
            if not isinstance(each, dict):
                continue
            below_pointer = site.pointer if at is None else f"{site.pointer}/{at}"
            below_place = site.place if at is None else f"{site.place}[{at}]"
            if type_name == "Resource":
                kind_inside = each["resourceType"]
                # R4 addresses what stands in a bundle from the bundle's root.
                yield from _below(book, kind_inside, kind_inside, each, below_pointer, below_place)
            elif type_name in ("BackboneElement", "Element"):
                yield from _below(book, kind, f"{path}.{element_name}", each, below_pointer, below_place)
            elif type_name in book.types:
                yield from _below(book, type_name, type_name, each, below_pointer, below_place)


def _element(children: dict[str, dict[str, Any]], name: str) -> tuple[str, dict[str, Any], str] | None:
    if name in children and "type" in children[name]:
        return name, children[name], _type(children[name]["type"][0])
    for choice, element in children.items():
        if choice.endswith("[x]") and name.startswith(choice[:-3]):
            for each in element["type"]:
                if name[len(choice) - 3 :] == each["code"][0].upper() + each["code"][1:]:
                    return choice, element, each["code"]
    return None


def _type(given: dict[str, Any]) -> str:
    code = given["code"]
    if code.startswith("http://hl7.org/fhirpath/System."):
        for extension in given.get("extension", []):
            if extension["url"].endswith("structuredefinition-fhir-type"):
                return extension["valueUrl"]
        return "string"
    return code
