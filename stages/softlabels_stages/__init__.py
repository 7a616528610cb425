"""The commands, thin: each parses its arguments, wires rooms of `softlabels` together, and prints.

`python -m softlabels_stages` puts the working folder before everything on Python's path, so that a `yaml.py` in a folder from
somebody else would be imported in the place of the installed one. It is taken away again before anything else is imported;
`softlabels.objects` looks there last, and only for what a class path names.
"""

import os
import sys

if sys.argv[:1] == ["-m"] and any(word.removeprefix("-m").startswith(__name__) for word in sys.orig_argv[1:]):
    try:  # `python -m` is looking for a module of this package just now
        if sys.path[:1] == [os.getcwd()]:  # noqa: PTH109  # pathlib imports more, and from there
            del sys.path[0]
    except FileNotFoundError:  # the folder was removed
        pass
