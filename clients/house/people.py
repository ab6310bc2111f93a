"""People of the site with a password and an authenticator app, and programs that are registered there."""

from __future__ import annotations

import base64
import hmac
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import requests

from house.site import ANSWER_LIMIT_S, Site

STEP_S = 30
"""The step of RFC 6238."""


def code_of(secret: bytes, step: int) -> str:
    """The code of one step."""
    tag = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    at = tag[-1] & 15
    return f"{(int.from_bytes(tag[at : at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


def person(site: Site, name: str, role: str, **more: Any) -> dict[str, str]:
    """Adds a person and makes their way in complete with the invitation; what they sign in with."""
    new = {"name": name, "display": name.title(), "role": role, "wards": None, **more}
    token = site.json("POST", "/users", new)["invitation"]["path"].split("=", 1)[1]
    session = requests.Session()
    session.trust_env = False
    session.headers["x-auscult"] = "1"

    def ask(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{site.ready['address']}/api/v1{path}"
        answer = session.request(method, url, json=body, timeout=ANSWER_LIMIT_S)
        if not answer.ok:
            raise RuntimeError(f"{method} {path} -> {answer.status_code}: {answer.text}")
        return answer.json()

    password = secrets.token_urlsafe(24)
    ask("POST", "/sign-in/link", {"token": token})
    ask("PUT", "/account/password", {"password": password})
    secret = ask("POST", "/account/totp/begin", {})["secret"]
    # The step before: the one of now is left for signing in.
    code = code_of(base64.b32decode(secret), int(time.time()) // STEP_S - 1)
    ask("POST", "/account/totp", {"code": code})
    ask("POST", "/sign-out", {})
    return {"name": name, "password": password, "totp_secret": secret}


def free_port() -> int:
    """A port that nobody listens on now, for a page whose address must be known before it is served."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def key_pair(folder: Path, name: str, *options: str) -> tuple[str, str]:
    """A key made by openssl: the file of the private half, and the public half as PEM."""
    private = folder / f"{name}.key"
    subprocess.run(["openssl", "genpkey", *options, "-out", private], check=True, capture_output=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", private, "-pubout"], check=True, capture_output=True, text=True
    )
    return str(private), public.stdout


def trusted_programs(site: Site) -> dict[str, Any]:
    """An app, two services, an identity provider and two people, for the programs of SMART and OpenID Connect."""
    app_port, provider_port = free_port(), free_port()
    app = {
        "name": "Trend viewer",
        "kind": "app",
        "redirect_uris": [f"http://localhost:{app_port}/callback"],
        "scopes": "launch/patient patient/Patient.r patient/Observation.rs?category=vital-signs "
        "openid fhirUser offline_access online_access",
    }
    described: dict[str, Any] = {
        "address": site.ready["address"],
        "app": {"id": site.json("POST", "/clients", app)["id"], "port": app_port},
        "people": [person(site, "nora", "nurse"), person(site, "piet", "physician")],
        "services": {},
    }
    kinds = {
        "ES384": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
        "RS384": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    }
    for algorithm, options in kinds.items():
        key, pem = key_pair(site.directory, algorithm, *options)
        service = {
            "name": f"Population {algorithm}",
            "kind": "service",
            "scopes": "system/Observation.rs system/Patient.r",
            "pem": pem,
        }
        described["services"][algorithm] = {"id": site.json("POST", "/clients", service)["id"], "key": key}
    secret = secrets.token_urlsafe(24)
    provider = {
        "name": "Clinic sign-in",
        "issuer": f"http://localhost:{provider_port}",
        "client_id": "auscult",
        "client_secret": secret,
        "enabled": True,
    }
    site.json("PUT", "/identity-providers/settings/clinic", provider)
    described["provider"] = {"port": provider_port, "secret": secret}
    return described
