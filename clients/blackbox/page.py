"""Writes the tables of docs/reference/interoperability.md from the data of the suite, or checks that they are there.

python clients/blackbox/page.py [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blackbox.rules import RULES  # noqa: E402

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "reference" / "interoperability.md"
BEGIN, END = "<!-- black-box suite: made by clients/blackbox/page.py -->", "<!-- end -->"
SPECIFICATION = "https://hl7.org/fhir/R4/"


def tables() -> str:
    """What differs and why, and the counts."""
    explained = json.loads((HERE / "differences.json").read_text())
    peer_file = HERE / "hfs-0.2.7.json"
    peer = json.loads(peer_file.read_text()) if peer_file.exists() else None
    ours = sum(1 for each in RULES if not explained.get(each.name, {}).get("auscult"))
    lines = [f"Auscult holds {ours} of the {len(RULES)} rules."]
    if peer is not None:
        theirs = sum(1 for failure in peer.values() if not failure)
        lines[0] += f" helios-hfs 0.2.7 holds {theirs}."
    lines += ["", "| Rule | What the specification says | Auscult | hfs |", "|---|---|---|---|"]
    for each in RULES:
        reasons = explained.get(each.name, {})
        if not reasons:
            continue
        holds = {"auscult": "holds", "hfs": "holds" if peer is not None else "–"}
        cells = [reasons.get(server, holds[server]).replace("|", "\\|") for server in holds]
        says = each.says.replace("|", "\\|")
        lines.append(f"| `{each.name}` | [{says}]({SPECIFICATION}{each.section}) | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with the tables of now."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main() -> int:
    """Writes or checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing, and fail where the page differs"
    )
    page = PAGE.read_text()
    if parser.parse_args().check:
        return 0 if written(page) == page else 1
    PAGE.write_text(written(page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
