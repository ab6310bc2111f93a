"""The committed mutations are what the generator makes of the installed definitions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from house import checks  # noqa: E402
from mutations import generate  # noqa: E402

with checks.check("vectors/fhir/mutations.json is what clients/mutations/generate.py makes"):
    made = generate.chosen(generate.Book.read())
    kept = json.loads((generate.VECTORS / "mutations.json").read_text())
    assert made == kept, (
        f"{sum(row not in kept for row in made)} rows differ: run it and look at the difference"
    )
