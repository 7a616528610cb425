"""Write a store's labels as others read them: softlabels export-labels STORE FILE.parquet --to_format=axolotl.

parquet and npz hold every store: keys, hard labels, inputs where they are kept, and the outputs of all members (of topk labels
the most probable classes of the ensemble). axolotl and distillkit-raw hold rows of tokens. docs/translate.md says more.
"""

from __future__ import annotations

import sys

from softlabels.errors import ConfigError
from softlabels.jobs.export_labels import export_labels
from softlabels.jobs.watch import Watch
from softlabels_stages.arguments import ExportLabels
from softlabels_stages.run import say, should_stop, stage, warn


@stage("export-labels", settings="--")
def main(args: ExportLabels) -> int:
    """Write the file."""
    if not args.store or not args.to:
        raise ConfigError("a store and a file are needed", remedy="write softlabels export-labels STORE FILE.parquet")
    export_labels(**vars(args), watch=Watch(say, warn, should_stop))
    say(f"written: {args.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
