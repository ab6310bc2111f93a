"""Runs the suite against the site and, where it is there, against the peer; every difference must be explained."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blackbox import page, spec  # noqa: E402
from blackbox.server import Server  # noqa: E402

HERE = Path(__file__).resolve().parent
EXPLAINED = HERE / "differences.json"
PEER_RESULTS = HERE / "hfs-0.2.7.json"
"""What the suite found at the peer, recorded by `cargo xtask peers`; the test command has no time to build it."""
PEER_READY_LIMIT_S = 120.0
"""Longest wait until the peer answers: it fills its database with search parameters first."""


class Peer:
    """The peer server on throw-away data: SQLite, validation enforced, audit on; its weaker promises are its defaults."""

    def __init__(self, binary: Path, definitions: Path):
        self.folder = Path(tempfile.mkdtemp(prefix="auscult-peer-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = self.folder / "data"
        data.mkdir()
        # The crate ships none of these definitions.
        shutil.copy(definitions / "search-parameters.json", data / "search-parameters-r4.json")
        base = f"http://127.0.0.1:{port}"
        settings = {
            "HFS_BASE_URL": base,
            "HFS_VALIDATION_MODE": "enforce",
            "HFS_AUDIT_BACKEND": "file",
            "HFS_AUDIT_FILE_PATH": str(self.folder / "audit.ndjson"),
        }
        compartment = json.loads((definitions / "compartmentdefinition-patient.json").read_text())
        collection = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": compartment}]}
        (data / "compartment-definitions-r4.json").write_text(json.dumps(collection))
        environment = {**os.environ, **settings, "HFS_LOG_LEVEL": "warn"}
        arguments = ["--port", str(port), "--database-url", self.folder / "peer.db", "--data-dir", data]
        self.process = subprocess.Popen(
            [binary, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "log.txt").open("w"),
            stderr=subprocess.STDOUT,
        )
        session = requests.Session()
        session.trust_env = False
        self.server = Server("hfs", base, session)
        deadline = time.monotonic() + PEER_READY_LIMIT_S
        while True:
            try:
                if self.server.get("metadata").status == 200:
                    return
            except requests.ConnectionError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log.txt").read_text()
                self.stop()
                raise RuntimeError(f"the peer did not become ready:\n{log[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends it and removes its data."""
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def judged(ours: dict[str, str]) -> list[tuple[str, bool, str]]:
    """A check a rule: it holds, or why it does not is explained; an explanation that is not needed any more is a fault."""
    explained = json.loads(EXPLAINED.read_text())
    results = []
    for name, failure in ours.items():
        reason = explained.get(name, {}).get("auscult")
        if failure and reason:
            results.append((f"{name} (explained)", True, reason))
        elif not failure and reason:
            results.append((name, False, "it holds: take its explanation out of differences.json"))
        else:
            results.append((name, not failure, failure))
    unknown = sorted(set(explained) - set(ours))
    results.append(("every explanation is of a rule", not unknown, ", ".join(unknown)))
    is_shown = page.written(page.PAGE.read_text()) == page.PAGE.read_text()
    results.append(
        ("docs/reference/interoperability.md shows them", is_shown, "run clients/blackbox/page.py")
    )
    return results


def unexplained(name: str, results: dict[str, str]) -> list[tuple[str, bool, str]]:
    """The same for the peer, whose faults we cannot mend: each needs its sentence."""
    explained = json.loads(EXPLAINED.read_text())
    found = []
    for rule, failure in results.items():
        has_reason = bool(explained.get(rule, {}).get(name))
        what = (
            "it fails and is not explained"
            if failure
            else "it holds: take its explanation out of differences.json"
        )
        found.append((f"{name}: {rule}", bool(failure) == has_reason, f"{what}: {failure}"))
    return found


def run_peer(binary: Path, definitions: Path, ours: dict[str, str]) -> list[tuple[str, bool, str]]:
    """Runs the suite against the peer and records what it found."""
    peer = Peer(binary, definitions)
    try:
        results = spec.run(peer.server)
    finally:
        peer.stop()
    known = json.loads(PEER_RESULTS.read_text()) if PEER_RESULTS.exists() else {}
    if {name: bool(failure) for name, failure in results.items()} != {
        name: bool(failure) for name, failure in known.items()
    }:
        PEER_RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        print(f"{PEER_RESULTS.name} was written anew: look at the difference and keep it")
    assert set(results) == set(ours)
    return unexplained("hfs", results)
