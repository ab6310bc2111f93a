"""Results of a client program: one line of JSON a check, on standard output."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_LIMIT_S = 20.0
"""Longest wait for something that must happen."""


def site() -> dict[str, Any]:
    """What this program was told about the server: the file that its first argument names."""
    return json.loads(Path(sys.argv[1]).read_text())


def report(check: str, ok: bool, detail: str = "") -> None:
    """Prints the result of one check."""
    print(json.dumps({"check": check, "ok": ok, "detail": detail}), flush=True)


def published(device: str, measure: str, values: list[str]) -> None:
    """Says what was published and acknowledged, for the runner to look up in the chart."""
    print(json.dumps({"published": values, "device": device, "measure": measure}), flush=True)


@contextmanager
def check(name: str):
    """A check that holds unless something is raised inside."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a foreign library raises is a failed check
        place = traceback.extract_tb(error.__traceback__)[-1]
        report(name, False, f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
    else:
        report(name, True)


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Waits until the condition is true; its value."""
    deadline = time.monotonic() + WAIT_LIMIT_S
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {WAIT_LIMIT_S:.0f} s: {what}")
        time.sleep(0.02)
