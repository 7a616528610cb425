"""Arrays as JSON that a page's script reads without a loss: base64 of their bytes; and safely inside a page."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = ("float32", "float16", "uint8", "uint16", "int32")
_SPECIAL = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def numbers(array: NDArray[Any]) -> dict[str, Any]:
    """An array of float32, float16, uint8, uint16 or int32 as `{"dtype", "shape", "base64"}`, little-endian in C order;
    `numbers` of `static/page.js` makes a typed array of it. NaN and infinities pass.
    """
    name = array.dtype.name
    assert name in DTYPES, f"a page's numbers are {', '.join(DTYPES)}, not {name}"
    data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    return {"dtype": name, "shape": [*array.shape], "base64": base64.b64encode(data).decode()}


def in_script(value: object) -> str:
    """JSON that can stand inside `<script>`, in UTF-8: what could end it, and a half surrogate, is an escape. Raises
    `ValueError` for NaN and infinities.
    """
    found = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _SPECIAL.sub(lambda each: f"\\u{ord(each[0]):04x}", found)
