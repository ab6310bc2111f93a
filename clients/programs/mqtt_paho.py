"""Eclipse Paho for Python publishes in 3.1.1 and 5 with every quality of service over mutual TLS."""

from __future__ import annotations

import json
import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from house import checks  # noqa: E402

SITE = checks.site()
VERSIONS = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
NOT_AUTHORIZED = 0x87


def context(device: dict | None) -> ssl.SSLContext:
    """TLS with the device's certificate, or with none."""
    made = ssl.create_default_context(cafile=SITE["authority"])
    if device:
        made.load_cert_chain(device["certificate"], device["key"])
    return made


class Link:
    """A connected client, and what it was told."""

    def __init__(
        self, device: dict | None, version: str, *, client_id: str | None = None, clean: bool = True
    ):
        self.connected = threading.Event()
        self.disconnected = threading.Event()
        self.messages: list[bytes] = []
        self.acknowledged: dict[int, int] = {}
        self.reason: object = None
        self.flags: object = None
        self.subscribed = threading.Event()
        name = client_id if client_id is not None else (device["id"] if device else "")
        session = {"clean_session": clean} if version == "3.1.1" else {}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=VERSIONS[version], **session
        )
        self.client.tls_set_context(context(device))
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda *_: self.disconnected.set()
        self.client.on_message = lambda _c, _u, message: self.messages.append(message.payload)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_publish = self._on_publish
        self.version = version
        self.clean = clean

    def _on_connect(self, _client, _user, flags, reason, _properties):
        self.flags, self.reason = flags, reason
        self.connected.set()

    def _on_publish(self, _client, _user, packet_id, reason, _properties):
        self.acknowledged[packet_id] = reason.value if self.version == "5" else 0

    def open(self) -> Link:
        """Connects and waits for the answer."""
        more = {}
        if self.version == "5":
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if self.clean else 600
            more = {"clean_start": self.clean, "properties": properties}
        self.client.connect(SITE["mqtt_host"], SITE["mqtt_port"], keepalive=30, **more)
        self.client.loop_start()
        checks.until("CONNACK, or the end", lambda: self.connected.is_set() or self.disconnected.is_set())
        if not self.connected.is_set():
            self.client.loop_stop()
            raise ConnectionRefusedError("closed without CONNACK")
        if self.reason.is_failure:
            raise ConnectionError(f"CONNACK {self.reason}")
        return self

    def publish(self, topic: str, payload: bytes | str, qos: int) -> int:
        """Publishes and waits until the handshake of its quality of service is over; the reason code."""
        info = self.client.publish(topic, payload, qos=qos)
        info.wait_for_publish(checks.WAIT_LIMIT_S)
        if not info.is_published():
            raise TimeoutError(f"QoS {qos}: not acknowledged")
        checks.until("the callback ran", lambda: info.mid in self.acknowledged)
        return self.acknowledged[info.mid]

    def close(self) -> None:
        """Says farewell."""
        self.client.disconnect()
        self.disconnected.wait(checks.WAIT_LIMIT_S)
        self.client.loop_stop()


def envelope(value: str, number: int) -> str:
    """One heart rate; the number makes the instant unique. Not of now: there stand the raw values, at their receipt."""
    second = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)
    at = second.strftime("%Y-%m-%dT%H:%M:%S") + f".{number:03d}Z"
    return f'{{"measure":"heart_rate","value":{value},"unit":"/min","time":"{at}"}}'


def main() -> None:
    """Every check of this program."""
    device, other = SITE["devices"][0], SITE["devices"][1]
    own = f"auscult/v1/{device['id']}"
    sent: list[str] = []
    for version in VERSIONS:
        for qos in (0, 1, 2):
            with checks.check(f"{version}: QoS {qos} is published and its handshake ends"):
                link = Link(device, version).open()
                for _ in range(5):
                    value = f"{60 + len(sent)}.5"
                    reason = link.publish(f"{own}/envelope", envelope(value, len(sent)), qos)
                    assert reason == 0, f"reason code {reason}"
                    sent.append(value)
                link.close()
        with checks.check(f"{version}: 50 publishes with QoS 1 in flight at once are all acknowledged"):
            link = Link(device, version).open()
            values = [f"{100 + number}.{1 if version == '5' else 2}" for number in range(50)]
            first = 200 if version == "5" else 100
            infos = [
                link.client.publish(f"{own}/envelope", envelope(value, first + number), qos=1)
                for number, value in enumerate(values)
            ]
            for info in infos:
                info.wait_for_publish(checks.WAIT_LIMIT_S)
                assert info.is_published()
            sent += values
            link.close()
        with checks.check(f"{version}: a kept session is found again"):
            Link(device, version, clean=False).open().close()
            link = Link(device, version, clean=False).open()
            assert link.flags.session_present, "session present is 0"
            link.close()
            Link(device, version, clean=True).open().close()
        with checks.check(f"{version}: without a certificate nobody gets in"):
            try:
                Link(None, version, client_id="").open()
            except (ConnectionError, ssl.SSLError):
                pass
            else:
                raise AssertionError("it was let in")
        with checks.check(f"{version}: a raw characteristic (0x2A37) is taken"):
            link = Link(device, version).open()
            assert link.publish(f"{own}/gatt/2a37", bytes([0, 71 if version == "5" else 70]), 1) == 0
            sent.append("71" if version == "5" else "70")
            link.close()
        with checks.check(f"{version}: the device's command topic can be subscribed to"):
            link = Link(device, version).open()
            link.client.subscribe(f"{own}/command", qos=1)
            assert link.subscribed.wait(checks.WAIT_LIMIT_S)
            link.close()
    with checks.check(
        "5: another device's topic is refused with reason 0x87, and the connection stays usable"
    ):
        link = Link(device, "5").open()
        reason = link.publish(f"auscult/v1/{other['id']}/envelope", envelope("199", 900), 1)
        assert reason == NOT_AUTHORIZED, f"reason code {reason:#x}"
        link.close()
    with checks.check("3.1.1: another device's topic is refused by closing the connection"):
        link = Link(device, "3.1.1").open()
        link.client.reconnect_delay_set(60, 60)
        link.client.publish(f"auscult/v1/{other['id']}/envelope", envelope("198", 901), qos=1)
        assert link.disconnected.wait(checks.WAIT_LIMIT_S), "it stayed open"
        link.client.loop_stop()
    with checks.check("5: a payload that cannot be read is told by its reason code or kept in quarantine"):
        link = Link(device, "5").open()
        reason = link.publish(f"{own}/envelope", json.dumps({"measure": "nonsense", "value": 1}), 1)
        assert reason in (0, 0x99), f"reason code {reason:#x}"
        link.close()
    checks.published(device["id"], "8867-4", sent)
    checks.published(other["id"], "8867-4", [])


main()
