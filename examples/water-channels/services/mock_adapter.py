"""The mocks of channels 2 to 5: they make up readings, and hand them on as the real adapters will.

    mock_adapter.py CHANNEL --to URL [--rate N]

`electricity` posts one reading and ends; the others serve /health/ready and /metrics on port 8080 and go on. `iot` also
publishes telemetry over MQTT, to the broker at DEVICES_URL. Needs Python 3.9 and nothing else.

A request with the header `x-landfall-message` begins a journey that somebody counts: the header is passed on as it came.
"""

import argparse
import http.client
import json
import os
import random
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import uuid
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HEADER = "x-landfall-message"
PORT = 8080

# How long anybody who is called may take, in seconds.
TIMEOUT = 5

# How long a job tries again: a pod that has just started may come before the policies that let it out.
PATIENCE = 20

# By channel: who calls, who is called, what is measured, and the largest value.
CHANNELS = {
    "electricity": ("mock-electricity-adapter", "field-ops", "energy", 900.0),
    "pumps": ("mock-runtime-adapter", "field-ops", "duration", 86400.0),
    "inform": ("mock-inform-adapter", "messaging", "flag", 1.0),
    "iot": ("mock-iot-adapter", "field-ops", "volume", 50000.0),
}


def submission(channel):
    """A reading in the canonical form (schemas/submission.json)."""
    _, _, kind, most = CHANNELS[channel]
    value = random.choice([0, 1]) if kind == "flag" else round(random.uniform(0, most), 1)
    return {
        "id": str(uuid.uuid4()),
        "channel": channel,
        "scheme": f"scheme-{random.randint(1, 40):02}",
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "kind": kind,
        "value": value,
    }


def log(level, text, **fields):
    line = {"timestamp": datetime.now(timezone.utc).isoformat(), "level": level, "message": text, **fields}
    print(json.dumps(line), flush=True)


class Counts:
    """How often each edge of the architecture has carried something, and how often it failed."""

    def __init__(self, *edges):
        self.lock = threading.Lock()
        self.edges = {edge: {"carried": 0, "failed": 0, "error": None} for edge in edges}

    def use(self, edge, work):
        try:
            work()
        except Exception as error:
            with self.lock:
                self.edges[edge]["failed"] += 1
                self.edges[edge]["error"] = str(error)
            raise
        with self.lock:
            self.edges[edge]["carried"] += 1

    def metrics(self):
        name = "landfall_edge_operations_total"
        lines = [f"# HELP {name} What an edge of the architecture has carried or failed to carry.", f"# TYPE {name} counter"]
        with self.lock:
            for edge, count in self.edges.items():
                for result in ("carried", "failed"):
                    lines.append(f'{name}{{edge="{edge}",result="{result}"}} {count[result]}')
        return "\n".join(lines) + "\n"


class Receiver:
    """The service that takes submissions."""

    def __init__(self, channel, url):
        self.channel = channel
        self.url = urllib.parse.urlsplit(url)

    def post(self, message):
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port or 80, timeout=TIMEOUT)
        try:
            headers = {"content-type": "application/json"}
            if message:
                headers[HEADER] = message
            connection.request("POST", self.url.path or "/", json.dumps(submission(self.channel)), headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace").strip()
            if answer.status >= 300:
                raise RuntimeError(f"{self.url.hostname} answers {answer.status}: {text[:200]}")
        finally:
            connection.close()


class Broker:
    """A client of MQTT 3.1.1 that publishes with quality of service 1, one message after the other."""

    def __init__(self, url):
        self.url = urllib.parse.urlsplit(url)
        self.lock = threading.Lock()
        self.stream = None
        self.packet = 0

    def publish(self, topic, payload):
        with self.lock:
            try:
                if self.stream is None:
                    self.connect()
                self.packet = self.packet % 65535 + 1
                head = text(topic) + struct.pack("!H", self.packet)
                self.send(0x32, head + payload)
                kind, body = self.receive()
                if kind != 0x40 or struct.unpack("!H", body[:2])[0] != self.packet:
                    raise RuntimeError("the broker has not acknowledged the message")
            except Exception:
                # Whatever it was, the next message goes over a new connection.
                if self.stream is not None:
                    self.stream.close()
                self.stream = None
                raise

    def connect(self):
        encrypted = self.url.scheme == "mqtts"
        port = self.url.port or (8883 if encrypted else 1883)
        stream = socket.create_connection((self.url.hostname, port), TIMEOUT)
        if encrypted:
            stream = ssl.create_default_context().wrap_socket(stream, server_hostname=self.url.hostname)
        self.stream = stream
        # Clean session, with a user and a password; nothing is sent to keep it alive, as something always is.
        credentials = text(urllib.parse.unquote(self.url.username or "")) + text(urllib.parse.unquote(self.url.password or ""))
        body = text("MQTT") + bytes([4, 0xC2]) + struct.pack("!H", 60) + text(f"mock-iot-{uuid.uuid4().hex[:12]}") + credentials
        self.send(0x10, body)
        kind, answer = self.receive()
        if kind != 0x20 or answer[1] != 0:
            raise RuntimeError(f"the broker refuses the connection: {answer.hex()}")

    def send(self, kind, body):
        length, left = b"", len(body)
        while True:
            left, digit = divmod(left, 128)
            length += bytes([digit | (0x80 if left else 0)])
            if not left:
                break
        self.stream.sendall(bytes([kind]) + length + body)

    def receive(self):
        kind, length, shift = self.exactly(1)[0], 0, 0
        while True:
            digit = self.exactly(1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                break
        return kind & 0xF0, self.exactly(length)

    def exactly(self, count):
        read = b""
        while len(read) < count:
            some = self.stream.recv(count - len(read))
            if not some:
                raise RuntimeError("the broker has closed the connection")
            read += some
        return read


def text(value):
    value = value.encode()
    return struct.pack("!H", len(value)) + value


class Adapter:
    def __init__(self, channel, url):
        self.name, to, _, _ = CHANNELS[channel]
        self.channel = channel
        self.receiver = Receiver(channel, url)
        self.call_edge = f"{self.name} call {to}"
        self.publish_edge = f"{self.name} publish devices/telemetry"
        self.broker = Broker(os.environ["DEVICES_URL"]) if channel == "iot" else None
        edges = [self.call_edge] + ([self.publish_edge] if self.broker else [])
        self.counts = Counts(*edges)

    def call(self, message=None):
        self.counts.use(self.call_edge, lambda: self.receiver.post(message))

    def publish(self, message=None):
        # Who counts journeys reads the fields of the message beside the reading.
        context = json.loads(message) if message else {"flow": None, "id": time.time_ns() // 1000, "sent_us": time.time_ns() // 1000}
        payload = json.dumps({**context, "submission": submission(self.channel)}).encode()
        self.counts.use(self.publish_edge, lambda: self.broker.publish("telemetry", payload))

    def begin(self, message):
        """Begins a journey: a reading goes everywhere where readings of this channel go."""
        if self.broker:
            self.publish(message)
        self.call(message)

    def go_on(self, work, each_second):
        """Does something for as long as the process lives, so often."""
        while True:
            begin = time.monotonic()
            try:
                work()
            except Exception as error:
                log("WARN", "a reading was not taken", channel=self.channel, error=str(error))
            time.sleep(max(0.0, 1.0 / each_second - (time.monotonic() - begin)))


def handler(adapter):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.path == "/metrics":
                self.answer(200, adapter.counts.metrics())
            elif self.path == "/health/ready":
                self.answer(200, "ready\n")
            else:
                self.answer(404, "there is nothing here\n")

        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            message = self.headers.get(HEADER)
            try:
                if message and json.loads(message).get("flow"):
                    adapter.begin(message)
                self.answer(200, "")
            except Exception as error:
                log("WARN", "a journey could not begin", channel=adapter.channel, error=str(error))
                self.answer(502, str(error))

        def answer(self, status, body):
            body = body.encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def run_job(adapter):
    """Posts one reading, and those that somebody wants to count; says in the log what the edges have carried."""
    messages = [None] + [json.dumps(message) for message in json.loads(os.environ.get("LANDFALL_BEGIN", "[]"))]
    failure = None
    for message in messages:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                adapter.call(message)
                break
            except Exception as error:
                if time.monotonic() >= deadline:
                    failure = error
                    break
                time.sleep(0.25)
    log("INFO", "done", seen={"edges": adapter.counts.edges, "arrivals": {}, "suppressed": {}})
    if failure:
        log("ERROR", "a reading was not taken", channel=adapter.channel, error=str(failure))
    return 1 if failure else 0


def main():
    parser = argparse.ArgumentParser(description="Makes up readings of a channel.")
    parser.add_argument("channel", choices=CHANNELS)
    parser.add_argument("--to", required=True, help="the URL of the service that takes submissions")
    parser.add_argument("--rate", type=float, default=1.0, help="how many readings each second")
    arguments = parser.parse_args()
    adapter = Adapter(arguments.channel, arguments.to)
    if arguments.channel == "electricity":
        return run_job(adapter)
    # Nothing here is worth finishing: readings are made up, and what was acknowledged is with others.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    loops = [(adapter.call, arguments.rate)] + ([(adapter.publish, 10.0)] if adapter.broker else [])
    for work, each_second in loops:
        threading.Thread(target=adapter.go_on, args=(work, each_second), daemon=True).start()
    log("INFO", "serving", channel=arguments.channel, port=PORT)
    # Where pods share the network of a machine, each has an address of its own there.
    ThreadingHTTPServer((os.environ.get("POD_IP", ""), PORT), handler(adapter)).serve_forever()


if __name__ == "__main__":
    sys.exit(main())
