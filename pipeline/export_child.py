"""The process that touches encrypted Parquet: the C++ below may abort the process, and then only this one dies.

A script of its own (it imports nothing of Privet): the request, with the key, comes as one line of JSON on standard input,
never as an argument; rows come and go as an Arrow stream. It leaves no core file and, when it fails, no output.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from contextlib import suppress
from typing import Any

_PR_SET_DUMPABLE = 4
_SAFE = {"store_aad_prefix": False, "encryption_algorithm": "AES_GCM_V1", "plaintext_footer": False}


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    request = json.loads(sys.stdin.buffer.readline())
    resource.setrlimit(resource.RLIMIT_CPU, (request["seconds"], request["seconds"]))
    work = {"write": _write, "read": _read, "refusals": _refusals}[request["work"]]
    try:
        work(request["path"], bytes.fromhex(request["key"]), bytes.fromhex(request["aad"]), request["rows"])
    except BaseException as error:
        if request["work"] == "write":
            with suppress(OSError):
                os.truncate(request["path"], 0)
        sys.stderr.write(type(error).__name__)  # what it says may quote a value
        return 1
    return 0


def _write(path: str, key: bytes, aad: bytes, rows: int) -> None:
    """One row group for each batch of the stream; all columns under the footer key."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.parquet.encryption as pe

    properties = pe.create_encryption_properties(key, aad_prefix=aad, **_SAFE)
    written = 0
    with (
        pa.ipc.open_stream(sys.stdin.buffer) as stream,
        pq.ParquetWriter(path, stream.schema, compression="zstd", encryption_properties=properties) as writer,
    ):
        for batch in stream:
            writer.write_batch(batch)
            written += batch.num_rows
    if written != rows:  # a stream that is cut at a batch looks like one that ended
        raise EOFError
    with open(path, "rb+") as file:  # noqa: PTH123
        os.fsync(file.fileno())


def _read(path: str, key: bytes, aad: bytes, rows: int) -> None:
    import pyarrow as pa

    with _opened(path, key, aad) as file, pa.ipc.new_stream(sys.stdout.buffer, file.schema_arrow) as stream:
        for group in range(file.num_row_groups):
            for batch in file.read_row_group(group, use_threads=False).combine_chunks().to_batches():
                stream.write_batch(batch)


def _refusals(path: str, key: bytes, aad: bytes, rows: int) -> None:
    """Prints which of the openings that must fail did not."""
    import pyarrow.parquet as pq

    wrong = bytes(byte ^ 0xFF for byte in key)
    ways: dict[str, Any] = {
        "no key": lambda: pq.ParquetFile(path).read(),
        "another key": lambda: _opened(path, wrong, aad).read(),
        "no AAD": lambda: _opened(path, key, None).read(),
        "another AAD": lambda: _opened(path, key, aad + b"x").read(),
    }
    accepted = []
    for name, way in ways.items():
        with suppress(Exception):
            way()
            accepted.append(name)
    sys.stdout.write(json.dumps(accepted))


def _opened(path: str, key: bytes, aad: bytes | None) -> Any:
    import pyarrow.parquet as pq
    import pyarrow.parquet.encryption as pe

    return pq.ParquetFile(path, decryption_properties=pe.create_decryption_properties(key, aad_prefix=aad))


if __name__ == "__main__":
    sys.exit(main())
