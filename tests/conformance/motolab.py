"""A real emulator of AWS's services, moto's server in a process of its own, and boto3 to look at it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from botocore.config import Config

from botolab import session
from live import BOUND_S

REGION = "us-east-1"
ACCOUNT = "123456789012"


class Moto:
    """The emulator.

    Attributes:
        url: where all services are.

    """

    def __init__(self, url: str) -> None:
        self.url = url

    def boto(self, service: str) -> closing[Any]:
        """A client of boto3's for the length of a block."""
        return closing(
            session("test", "test", region=REGION).client(service, endpoint_url=self.url, config=Config(proxies={}))
        )

    def reset(self) -> None:
        """Take everything out of it."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")) as answer:
            assert answer.status == 200

    def queue(self, name: str) -> str:
        """A queue's URL; it is made."""
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        with self.boto("sqs") as sqs:
            url: str = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url

    def messages(self, queue_url: str) -> list[dict[str, Any]]:
        """What is in a queue."""
        with self.boto("sqs") as sqs:
            answer = sqs.receive_message(
                QueueUrl=queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
            )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found


@contextmanager
def emulating(folder: Path) -> Iterator[Moto]:
    """An emulator for the length of a block; `folder` is for its log."""
    log = folder / "moto.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=output,
            stderr=output,
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )
    try:
        deadline = time.monotonic() + BOUND_S
        while "Running on " not in (words := log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, words
            time.sleep(0.02)
        yield Moto(words.partition("Running on ")[2].split()[0])
    finally:
        process.kill()
        process.wait()
