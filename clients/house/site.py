"""A real server on throw-away encrypted data: started, furnished with patients and devices, stopped by its process."""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

READY_LIMIT_S = 60.0
"""Longest wait for the line that says "ready": keys and certificates on a busy machine."""
STOP_LIMIT_S = 60.0
"""Longest wait for the end of a server that was asked to stop."""
ANSWER_LIMIT_S = 60.0
"""Longest wait for one HTTP answer."""


@dataclass
class Device:
    """A registered device with its certificate, and the patient it is assigned to."""

    id: str
    name: str
    patient: str
    certificate: str
    key: str

    def topic(self, last: str) -> str:
        """One of the topics that the device may use."""
        return f"auscult/v1/{self.id}/{last}"


@dataclass
class Site:
    """The server under test. Everything lies in one temporary directory, the key of the data in another."""

    binary: Path
    directory: Path
    key_directory: Path
    process: subprocess.Popen[str]
    ready: dict[str, Any]
    people: requests.Session = field(default_factory=requests.Session)
    programs: dict[str, tuple[str, str]] = field(default_factory=dict)
    app_secret: bytes = b""
    last_step: int = 0

    @classmethod
    def start(cls, binary: Path) -> Site:
        """Starts `auscult serve` on free ports and makes the first administrator with the printed link."""
        directory = Path(tempfile.mkdtemp(prefix="auscult-clients-"))
        key_directory = Path(tempfile.mkdtemp(prefix="auscult-clients-key-"))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AUSCULT_")}
        subprocess.run([binary, "key", "generate", key_directory / "key"], check=True, capture_output=True)
        free = "127.0.0.1:0"
        arguments = ["--data", directory / "data", "--key-file", key_directory / "key", "--print-json"]
        process = subprocess.Popen(
            [binary, "serve", *arguments, "--web", free, "--mqtt", free, "--devices", free],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(directory / "log.txt").open("w"),
            env=environment,
            text=True,
        )
        site = cls(binary, directory, key_directory, process, {})
        try:
            site.ready = site._first_line()
            site._set_up()
        except BaseException:
            site.stop()
            raise
        return site

    def _first_line(self) -> dict[str, Any]:
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.append(self.process.stdout.readline()), daemon=True)
        reading.start()
        reading.join(READY_LIMIT_S)
        if not lines or not lines[0]:
            raise RuntimeError(f"the server did not become ready; its log:\n{self.log()}")
        return json.loads(lines[0])

    def _set_up(self) -> None:
        token = self.ready["setup_link"].split("=")[-1]
        self.people.trust_env = False
        self.people.headers["x-auscult"] = "1"
        password = secrets.token_urlsafe(24)
        self.json(
            "POST", "/setup", {"token": token, "name": "admin", "display": "Admin", "password": password}
        )
        self.app_secret = base64.b32decode(self.json("POST", "/account/totp/begin", {})["secret"])
        self.json("POST", "/account/totp", {"code": self._next_code()})

    def _next_code(self) -> str:
        """The next code of the administrator's authenticator app (RFC 6238): each is taken once, so it may be waited for."""
        while True:
            step = int(time.time()) // 30
            # A step ahead is taken too, which saves half of the waiting.
            for step in (step, step + 1):
                if step > self.last_step:
                    self.last_step = step
                    tag = hmac.digest(self.app_secret, step.to_bytes(8, "big"), "sha1")
                    at = tag[-1] & 15
                    return f"{(int.from_bytes(tag[at : at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"
            time.sleep(1)

    def log(self) -> str:
        """What the server has logged so far."""
        return (self.directory / "log.txt").read_text()

    def stop(self) -> int:
        """Asks the server to stop, waits for its end and removes everything; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.key_directory, ignore_errors=True)
        return status

    # -- what is asked of it -----------------------------------------------------------------------------------------

    def json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Asks the JSON API as the administrator."""
        url = f"{self.ready['address']}/api/v1{path}"
        answer = self.people.request(method, url, json=body, timeout=ANSWER_LIMIT_S)
        if answer.status_code == 403 and answer.json().get("code") == "step-up-needed":
            self.json("POST", "/step-up/totp", {"code": self._next_code()})
            answer = self.people.request(method, url, json=body, timeout=ANSWER_LIMIT_S)
        if not answer.ok:
            raise RuntimeError(f"{method} {path} -> {answer.status_code}: {answer.text}")
        return answer.json()

    @property
    def fhir_base(self) -> str:
        """The FHIR interface for programs: TLS with a client certificate."""
        return f"https://localhost:{self.ready['devices'].rsplit(':', 1)[1]}/fhir"

    @property
    def authority(self) -> str:
        """The certificate of the site's own authority."""
        return str(self.directory / "data" / "pki" / "authority.pem")

    def _issue(self, kind: str, name: str) -> tuple[str, str]:
        out = self.directory / "certificates" / name
        pki = self.directory / "data" / "pki"
        scopes = ["--scope", "system/*.cruds"] if kind == "program" else []
        subprocess.run(
            [self.binary, "pki", "issue", pki, f"--{kind}", name, "--out", out, *scopes],
            check=True,
            env=os.environ | {"AUSCULT_KEY_FILE": str(self.key_directory / "key")},
            capture_output=True,
        )
        return str(out / f"{name}.pem"), str(out / f"{name}.key")

    def program(self, name: str) -> tuple[str, str]:
        """Certificate and key of a program, made at the first call."""
        if name not in self.programs:
            self.programs[name] = self._issue("program", name)
        return self.programs[name]

    def fhir(self, program: str = "clients") -> requests.Session:
        """A session of a program with its certificate."""
        session = requests.Session()
        # Else an authority or a proxy of the environment would go before ours.
        session.trust_env = False
        session.cert = self.program(program)
        session.verify = self.authority
        session.headers["accept"] = "application/fhir+json"
        return session

    # -- what lives in it --------------------------------------------------------------------------------------------

    def place(self, name: str, kind: str, ward: str | None = None) -> str:
        """Adds a place; its id."""
        return self.json("POST", "/places", {"name": name, "kind": kind, "ward_id": ward})["id"]

    def patient(
        self, family: str, given: str, number: str, *, gender: str = "female", place: str | None = None
    ) -> str:
        """Admits a patient; the id."""
        body = {"family": family, "given": given, "birth_date": "1950-03-21", "gender": gender}
        return self.json("POST", "/patients", {**body, "record_number": number, "place_id": place})["id"]

    def device(self, name: str, patient: str, *, certificate: bool = True) -> Device:
        """Registers a device that has been assigned to the patient for two days, with its certificate."""
        body = {
            "name": name,
            "kind": "monitor",
            "manufacturer": "Auscult",
            "model": "clients",
            "serial": name,
        }
        device = self.json("POST", "/devices", {**body, "utc_offset_min": 0, "expected_interval_s": None})[
            "id"
        ]
        start = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        assignment = {"subject": {"kind": "patient", "id": patient}, "start": start, "end": None}
        self.json("POST", f"/devices/{device}/assignments", assignment)
        files = self._issue("device", device) if certificate else ("", "")
        return Device(device, name, patient, *files)

    def described(self, devices: list[Device], **more: Any) -> dict[str, Any]:
        """What a client program is told, as JSON."""
        certificate, key = self.program("clients")
        return {
            "fhir_base": self.fhir_base,
            "mqtt_host": "localhost",
            "mqtt_port": int(self.ready["mqtt"].rsplit(":", 1)[1]),
            "https_base": urllib.parse.urljoin(self.fhir_base, "/"),
            "authority": self.authority,
            "program": {"certificate": certificate, "key": key},
            "devices": [vars(device) for device in devices],
            **more,
        }
