"""`privet export`: a protected dataset as encrypted Parquet, for tools outside of Privet."""

from __future__ import annotations

from argparse import Namespace


def export(args: Namespace) -> int:
    from pipeline.export import export as export_dataset
    from pipeline.home import Home

    done = export_dataset(Home.open(args.home), args.manifest, args.to, args.key_file, args.by)
    print(f"wrote {done.rows} rows to {done.file}; {done.left_out} rows of erased units left out")
    print(f"the key is in {done.key_file}, mode 0600; how to read the file is in {done.sidecar}")
    print("erasures from now on do not reach this copy; the journal names it")
    return 0
