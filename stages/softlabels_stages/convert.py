"""Copy a store into the other layout. Labels, keys and content digest stay; the same command resumes where it was stopped."""

from __future__ import annotations

import sys

from tqdm import tqdm

from softlabels.errors import ConfigError
from softlabels.store import open_store, store_splits
from softlabels.store.convert import convert
from softlabels.store.root import require_apart, require_root, write_root
from softlabels.system.places import files_of, folder_of
from softlabels_stages.arguments import Convert
from softlabels_stages.run import should_stop, stage, suggested


@stage("convert", resumable=True, settings="")
def main(args: Convert) -> int:
    """Convert every split."""
    if not args.from_ or not args.store:
        raise ConfigError(
            "a store and a target are needed", remedy="write softlabels convert --from=STORE --store=COPY"
        )
    source, target = files_of(args.from_), folder_of(args.store)
    splits = store_splits(source)
    single = list(splits.values()) == [source]
    if not single:
        require_apart(source, target)
        require_root(target, tuple(splits))
    for split, path in splits.items():
        store = open_store(path)
        layout = args.layout or ("arrow" if store.layout == "zarr" else "zarr")
        with tqdm(total=store.spec.shards, desc=f"convert {split}", unit="shard", disable=None) as bar:
            manifest = convert(
                path,
                target if single else target.within(split),
                layout=layout,
                compression=args.compression,
                progress=bar.update,
                should_stop=should_stop,
            )
        print(f"{split}: {layout}, {manifest.bytes:,} bytes, content digest {manifest.content_digest} (unchanged)")
    if not single:
        write_root(target)
    print(f"converted: {target} (look: {suggested('info', target)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
