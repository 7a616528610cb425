"""The stores of the fuzzer far away: served by a web server and as S3 does, as they lie there, and opened by their address."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.jobs import lying
from tests.jobs.lying import BUCKET, Lying

HERE = ("repair", "push", "pull from a liar", "pull into it", "convert into it")  # which are for folders
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_REGION": "nowhere"}


@dataclass
class Far:
    """The server, which follows links as web servers do."""

    server: Lying

    @property
    def port(self) -> int:
        return int(self.server.endpoint.rpartition(":")[2])

    def works(self, path: Path, kind: str, base: Path, rng: np.random.Generator) -> dict[str, Callable[[], int]]:
        """What may be done with a store at an address, which is served from now on."""
        from tests.faults.fuzz import works

        self.server.root = path.parent
        there = (self.server.endpoint, f"s3://{BUCKET}")[rng.integers(2)]
        every = works(path, kind, base, f"{there}/{path.name}")
        return {name: work for name, work in every.items() if name not in HERE}


@contextmanager
def serving() -> Iterator[Far]:
    with lying.running(Path("/nowhere")) as server:
        os.environ.update(ENVIRONMENT | {"AWS_ENDPOINT_URL": server.endpoint})
        yield Far(server)
