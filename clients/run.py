"""Runs every client program of this folder against one real server, and prints what held and what did not.

    python clients/run.py --auscult target/debug/auscult [--only NAME]...

`cargo xtask clients` installs what is needed (see README.md) and then runs this.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from blackbox import run as blackbox
from blackbox import spec
from blackbox.server import Auscult
from house import checks
from house.people import trusted_programs
from house.site import Site

HERE = Path(__file__).resolve().parent
BLACKBOX = "the suite"
"""Not a program of its own: it furnishes the server as it goes."""
PROGRAM_LIMIT_S = 240.0
"""Longest run of one client program; the slowest takes a tenth of it on an idle machine."""


NEEDS = {"validators": {"collect"}, "validator": {"collect"}, "panel": {"collect", "validators", "validator"}}
"""Programs that must have run before."""


@dataclass
class Program:
    """A client program, and the fewest checks that it must report: a program that ends early has not passed."""

    name: str
    what: str
    command: list[str]
    least: int
    results: list[tuple[str, bool, str]] = field(default_factory=list)
    seconds: float = 0.0


def programs(node: str, rumqttc: str | None) -> list[Program]:
    """Every program, in the order in which they run."""

    def python(name: str, what: str, path: str, least: int) -> Program:
        return Program(name, what, [sys.executable, str(HERE / path)], least)

    def javascript(name: str, what: str, path: str, least: int) -> Program:
        return Program(name, what, [node, str(HERE / path)], least)

    rust = [rumqttc] if rumqttc else []
    all_programs = [
        python("paho", "paho-mqtt 2.1.0 (Python)", "programs/mqtt_paho.py", 19),
        python("mosquitto", "mosquitto_pub of the system", "programs/mqtt_mosquitto.py", 15),
        Program("rumqttc", "rumqttc 0.25.1 (Rust)", rust, 8),
        python("fhirpy", "fhirpy 2.3.1 (Python)", "programs/fhir_fhirpy.py", 20),
        javascript("fhir-kit", "fhir-kit-client 2.0.3 (JavaScript)", "programs/fhir_kit_client.mjs", 16),
        javascript("medplum", "@medplum/core 5.2.13 (JavaScript)", "programs/fhir_medplum.mjs", 13),
        javascript("fhirclient", "fhirclient 2.6.3 (SMART, in Chromium)", "programs/smart_fhirclient.mjs", 14),
        javascript("services", "SMART Backend Services by jose 6.2.17", "programs/smart_service.mjs", 8),
        javascript("oidc", "oidc-provider 9.13.3 (in Chromium)", "programs/oidc_provider.mjs", 6),
        python("collect", "every kind of resource", "panel/collect.py", 15),
        python("validators", "pyrofile, fhirkit-rs, JSON schema", "panel/python_validators.py", 150),
        javascript("validator", "the validator of @medplum/core", "panel/medplum.mjs", 50),
        python("panel", "the panel of validators as a whole", "panel/union.py", 5),
        python("mutations", "the mutations are what the generator makes", "mutations/check.py", 1),
        python("refusals", "faults and sound variants over HTTP", "mutations/refusals.py", 900),
        Program("blackbox", "the black-box suite of FHIR R4", [BLACKBOX], 100),
    ]
    return [program for program in all_programs if program.command]


def furnish(site: Site) -> dict:
    """Patients and devices for the programs, and what they are told."""
    ward = site.place("Ward 1", "ward")
    beds = [site.place(f"Bed {number}", "bed", ward) for number in (1, 2, 3)]
    people = [("Zaunkönig", "Amélie", "female"), ("Finch", "Bo", "male"), ("Sparrow", "Cleo", "other")]
    families, numbers = {}, {}
    for at, (family, given, gender) in enumerate(people):
        number = f"MRN-000{at + 1}"
        patient = site.patient(family, given, number, gender=gender, place=beds[at])
        families[patient], numbers[patient] = family, number
    patients = list(families)
    devices = [site.device(f"Monitor {number}", patients[number % 3]) for number in range(9)]
    return site.described(devices, families=families, numbers=numbers, trusted=trusted_programs(site))


def run_suite(program: Program, site: Site, peer: Path | None) -> None:
    """Runs the black-box suite, against the peer as well where one is named."""
    started = time.monotonic()
    ours = spec.run(Auscult.of(site))
    program.results = blackbox.judged(ours)
    if peer:
        definitions = HERE / "node_modules" / "@medplum" / "definitions" / "dist" / "fhir" / "r4"
        program.results += blackbox.run_peer(peer, definitions, ours)
    elif blackbox.PEER_RESULTS.exists():
        program.results += blackbox.unexplained("hfs", json.loads(blackbox.PEER_RESULTS.read_text()))
    program.seconds = time.monotonic() - started


def run(program: Program, told: Path, site: Site) -> None:
    """Runs one program to its end and looks up in the chart what it published."""
    started = time.monotonic()
    # Authorities and proxies of the surroundings are not meant for a server of ours.
    hidden = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY"}
    surroundings = {name: value for name, value in os.environ.items() if name.upper() not in hidden}
    try:
        done = subprocess.run(
            [*program.command, str(told)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=surroundings,
            timeout=PROGRAM_LIMIT_S,
            check=False,
        )
        out, errors, status = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        out, errors, status = (late.stdout or b"").decode(), "it did not end in time", -1
    for line in out.splitlines():
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "check" in result:
            program.results.append((result["check"], result["ok"], result["detail"]))
        elif "published" in result:
            program.results.append(look_up(site, result))
    if status != 0:
        program.results.append(
            ("it ends without an error", False, f"status {status}: {errors.strip()[-2000:]}")
        )
    elif len(program.results) < program.least:
        what = f"{len(program.results)} checks, at least {program.least} were expected"
        program.results.append(("it runs to its end", False, what))
    program.seconds = time.monotonic() - started


def look_up(site: Site, said: dict) -> tuple[str, bool, str]:
    """Whether the chart holds exactly what a device published: nothing missing, nothing twice, nothing else."""
    name = f"all {len(said['published'])} published values are in the chart, once each"
    expected = Counter(Decimal(value) for value in said["published"])
    session = site.fhir()
    found: Counter[Decimal] = Counter()

    def charted() -> bool:
        found.clear()
        query = f"?device=Device/{said['device']}&code=http://loinc.org|{said['measure']}&_count=1000"
        bundle = session.get(f"{site.fhir_base}/Observation{query}").json(parse_float=Decimal)
        for entry in bundle.get("entry", []):
            found[Decimal(entry["resource"]["valueQuantity"]["value"])] += 1
        return found.total() >= expected.total()

    # What has not come by then is missing, and is named below.
    with contextlib.suppress(TimeoutError):
        checks.until(name, charted)
    missing, extra = expected - found, found - expected
    return (
        name,
        found == expected,
        "" if found == expected else f"missing {dict(missing)}, too much {dict(extra)}",
    )


def table(all_programs: list[Program]) -> int:
    """Prints the results; the number of checks that failed."""
    failed = 0
    width = max(len(program.what) for program in all_programs)
    print(f"\n{'client':{width}}  checks  failed  seconds")
    for program in all_programs:
        wrong = [result for result in program.results if not result[1]]
        failed += len(wrong)
        print(f"{program.what:{width}}  {len(program.results):6}  {len(wrong):6}  {program.seconds:7.1f}")
    for program in all_programs:
        for name, ok, detail in program.results:
            if not ok:
                print(f"\nFAILED {program.name}: {name}\n    {detail}")
    return failed


def main() -> int:
    """Starts the server, runs what was asked for, stops the server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--auscult", type=Path, required=True, help="the server's binary")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this program alone")
    parser.add_argument("--node", default="node", help="the program that runs JavaScript")
    parser.add_argument(
        "--cache", type=Path, default=HERE.parent / "target" / "clients", help="what is kept for next time"
    )
    parser.add_argument(
        "--hfs", type=Path, help="the peer server's binary: the black-box suite runs against it as well"
    )
    parser.add_argument("--keep", type=Path, help="write what the panel judged into this folder")
    parser.add_argument("--rumqttc", help="the built client of programs/mqtt_rumqttc")
    arguments = parser.parse_args()
    chosen = programs(arguments.node, arguments.rumqttc)
    known = {program.name for program in chosen}
    if unknown := set(arguments.only) - known:
        parser.error(
            f"there is no program {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )
    wanted = set(arguments.only).union(*(NEEDS.get(name, set()) for name in arguments.only))
    chosen = [program for program in chosen if not wanted or program.name in wanted]
    site = Site.start(arguments.auscult.resolve())
    try:
        with tempfile.TemporaryDirectory(prefix="auscult-clients-told-") as folder:
            told = Path(folder) / "site.json"
            places = {
                "panel": f"{folder}/panel.json",
                "verdicts": folder,
                "cache": str(arguments.cache.resolve()),
            }
            told.write_text(
                json.dumps({**furnish(site), **places, "node_modules": str(HERE / "node_modules")})
            )
            for program in chosen:
                print(f"==> {program.what}", flush=True)
                if program.command == [BLACKBOX]:
                    run_suite(program, site, arguments.hfs)
                else:
                    run(program, told, site)
            if arguments.keep:
                shutil.copytree(
                    folder, arguments.keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("site.json")
                )
        log = site.log()
    finally:
        status = site.stop()
    failed = table(chosen)
    if status != 0:
        failed += 1
        print(f"\nFAILED: the server ended with status {status}; the end of its log:\n{log[-4000:]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
