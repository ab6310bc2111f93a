"""The panel as a whole: its validators must find the planted faults, or their silence about us is worthless."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from house import checks  # noqa: E402

NOT_FOUND = {
    "case 13-profile-wrong-ucum": "none of the four compares the unit with the profile's value set",
    "case 15-sampled-bad-data": "none of the four reads the pattern of SampledData.data",
    "case 19-qty-3-code-no-system": "none of the four evaluates qty-3",
}
"""Planted faults that none of these validators finds; our own tests hold them (crates/health-codecs/tests)."""
EACH_FINDS_AT_LEAST = {"medplum": 11, "pyrofile": 16, "fhirkit-rs": 11, "official JSON schema": 9}
"""What each found when the panel was chosen."""


def main() -> None:
    """Reads every validator's verdicts."""
    site = checks.site()
    cases = [each for each in json.loads(Path(site["panel"]).read_text()) if each["expect"] == "bad"]
    verdicts = {
        name: json.loads(Path(site["verdicts"], f"{name}.json").read_text()) for name in EACH_FINDS_AT_LEAST
    }
    for name, least in EACH_FINDS_AT_LEAST.items():
        with checks.check(f"{name} finds at least {least} of the {len(cases)} planted faults"):
            found = sum(1 for case in cases if verdicts[name][case["name"]])
            assert found >= least, f"{found}"
    with checks.check(f"together they find all but {len(NOT_FOUND)} of them"):
        missed = {
            case["name"] for case in cases if not any(found[case["name"]] for found in verdicts.values())
        }
        assert missed == set(NOT_FOUND), missed


main()
