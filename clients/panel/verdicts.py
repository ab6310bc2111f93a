"""What a validator said of resources, kept for the panel as a whole and reported as checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from house import checks


def judge(site: dict[str, Any], name: str, resources: list[dict[str, Any]], one: Callable[[dict], list[str]]) -> None:
    """Reports each resource that must be sound, and writes down what was found in all of them."""
    found: dict[str, list[str]] = {}
    for each in resources:
        errors = one(each["resource"])
        found[each["name"]] = errors
        if each["expect"] == "ok":
            checks.report(f"{name}: {each['name']}", not errors, "; ".join(errors[:5]))
    Path(site["verdicts"], f"{name}.json").write_text(json.dumps(found))
