"""What a validator said of resources, kept for the panel as a whole and reported as checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from house import checks


def judge(
    site: dict[str, Any], name: str, resources: list[dict[str, Any]], one: Callable[[dict], list[str]]
) -> None:
    """Reports each resource that must be sound, and writes down what was found in all of them."""
    found: dict[str, list[str]] = {}
    for each in resources:
        try:
            errors = one(each["resource"])
        except Exception as error:  # noqa: BLE001 - a validator that breaks has not taken the resource
            errors = [f"{type(error).__name__}: {error}"]
        found[each["name"]] = errors
        if each["expect"] == "ok":
            checks.report(f"{name}: {each['name']}", not errors, "; ".join(errors[:5]))
    Path(site["verdicts"], f"{name}.json").write_text(json.dumps(found))
