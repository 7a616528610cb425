"""Vega, Vega-Lite and Vega-Embed as one script that fetches nothing, from vl-convert (extra `[report]`)."""

from __future__ import annotations

import functools
import logging
import os
import stat

from softlabels.errors import SoftLabelsError
from softlabels.objects import require_extra
from softlabels.system.local import LocalFolder
from softlabels.transfer.cache import default_cache

_log = logging.getLogger(__name__)


@functools.cache
def vega_bundle() -> str:
    """The script, 0.9 MB; it sets `vega`, `vegaLite` and `vegaEmbed` in `window`. It takes seconds to make, so it is kept in
    the cache of prepared rows, by vl-convert's version.

    Raises:
        MissingExtra: vl-convert is not installed.
    """
    convert = require_extra("vl_convert", extra="report")
    cache, name = LocalFolder(default_cache()), f"vega-{convert.__version__}.js"
    if _is_ours(cache, name):
        return cache.read(name).decode()
    # its names stay inside: as a plain script it would make hundreds of them global
    script = f"(() => {{{convert.javascript_bundle()}\n}})();\n"
    try:
        cache.make()
        cache.put(name, script.encode())
    except SoftLabelsError as error:
        _log.info("the plots' script is not kept: %s", error)
    return script


def _is_ours(cache: LocalFolder, name: str) -> bool:
    """Whether the file is there, and nobody but this user, or root, can have written it: it becomes a script of our pages."""
    status = cache.status(name)
    if status is None or not stat.S_ISREG(status.st_mode):
        return False
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
