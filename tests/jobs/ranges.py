"""A web server that serves parts of files, as most do and Python's does not."""

from __future__ import annotations

import re
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import ClassVar


class RangeHandler(SimpleHTTPRequestHandler):
    whole: ClassVar[bool] = False  # whether it serves whole files all the same

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path, asked = (
            Path(self.translate_path(self.path)),
            re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")),
        )
        if not path.is_file():
            return self.send_error(HTTPStatus.NOT_FOUND)
        data = path.read_bytes()
        part = data if asked is None or self.whole else data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(200 if asked is None or self.whole else 206)
        if asked is not None and not self.whole:
            self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None
