"""A relay before a server on loopback that hands requests on later, and counts them and the bytes that come back."""

from __future__ import annotations

import multiprocessing as mp
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any


@dataclass(frozen=True)
class Relay:
    """Where it listens; `requests` and `bytes` since the last `reset`."""

    endpoint: str
    asked: Synchronized[int]
    came: Synchronized[int]

    def reset(self) -> None:
        """Count from here on."""
        self.asked.value = self.came.value = 0


@contextmanager
def relay(endpoint: str, delay: float) -> Iterator[Relay]:
    """A process of its own that holds each request back for `delay` seconds."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    context = mp.get_context("spawn")
    asked, came = context.Value("q", 0), context.Value("q", 0)
    here, there = context.Pipe()
    process = context.Process(target=_run, args=((host, int(port)), delay, asked, came, there), daemon=True)
    process.start()
    try:
        yield Relay(f"http://127.0.0.1:{here.recv()}", asked, came)
    finally:
        process.kill()
        process.join()


def _run(server: tuple[str, int], delay: float, asked: Any, came: Any, ready: Any) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    ready.send(listening.getsockname()[1])
    while True:
        client, _ = listening.accept()
        upstream = socket.create_connection(server)
        for each in (client, upstream):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_up, args=(client, upstream, delay, asked), daemon=True).start()
        threading.Thread(target=_down, args=(upstream, client, came), daemon=True).start()


def _up(source: socket.socket, target: socket.socket, delay: float, asked: Any) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if data[:4] in (b"GET ", b"HEAD", b"PUT ", b"POST", b"DELE"):  # else the rest of one
                with asked.get_lock():
                    asked.value += 1
                time.sleep(delay)
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _down(source: socket.socket, target: socket.socket, came: Any) -> None:
    part = bytearray(1 << 18)
    with suppress(OSError):
        while count := source.recv_into(part):
            target.sendall(memoryview(part)[:count])
            with came.get_lock():
                came.value += count
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
