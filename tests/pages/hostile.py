"""Names and texts that a stranger may have chosen: each would run code, or spoil the page, where it is taken for more
than text. Whatever runs sets `window.__pwned`.
"""

from __future__ import annotations

RUN = "window.__pwned=1"
SCRIPTS = [
    f"</script><script>{RUN}</script>",
    f"<!--<script>{RUN}//",
    f"<img src=x onerror={RUN}>",
    f'"><svg onload="{RUN}">',
    f"' onmouseover='{RUN}' x='",
    f"</style><script>{RUN}</script>",
    f"</title></textarea></template><script>{RUN}</script>",
    f"javascript:{RUN}",
    f"<a href='javascript:{RUN}'>here</a>",
    "<iframe srcdoc='<script>parent.__pwned=1</script>'></iframe>",
    "<meta http-equiv=refresh content='0;url=https://example.invalid/'>",
    "<link rel=stylesheet href=https://example.invalid/x.css>",
    "<img src=https://example.invalid/x.png>",
    "url(https://example.invalid/x.png)",
    "<base href=https://example.invalid/>",
    "<form id=sections name=getElementById><input name=body>",
    f"'); {RUN}; ('",
    f'"); {RUN}; ("',
    f"${{{RUN}}}",
    f"\\'; {RUN} //",
    f"datum.constructor.constructor('{RUN}')()",
]
TEXTS = [
    "\u202egnp.exe\u202d ltr",  # the direction overridden
    "\u2067\u2067\u2067 never closed",
    "שלום עולם",
    "مرحبا بالعالم",
    "a\0b",
    "line\u2028separator\u2029paragraph",
    "new\nline\r\n\ttab",
    "\x1b[31mred\x1b[0m",
    "\ud800 alone \udfff",
    "e" + "\u0301" * 200,
    "👩‍👩‍👧‍👦" * 20,
    "&lt;b&gt; &amp; &#60;",
    "a.b[0]['c']",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "",
    " ",
    "undefined",
]
LONG = ["x" * 100_000, "word " * 20_000, f"<img src=x onerror={RUN}>" * 4_000]  # 100 kB each
NAMES = SCRIPTS + TEXTS + LONG
CLASSES = [  # ten names of classes, distinct also where a page shortens them
    f"</script><script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"datum.constructor.constructor('{RUN}')()",
    "\u202egnp.exe\u202d \u2067\u2067 never closed",
    "\u200b\u200b\u200b",
    "constructor",
    "a.b[0]['c']",
    "x" * 4096,  # the most that a store takes
    "e" + "\u0301" * 300,
    f"{{{{signal}}}} ${{{RUN}}} \\'; {RUN} //",
]
FOLDER = f"<img src=x onerror={RUN}> \u202egnp.exe"  # a name that a folder may have
