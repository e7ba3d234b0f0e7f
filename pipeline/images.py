"""Pictures in a source: decoded to grey pixels of the declared size, or refused with a code.

Guarantee: what goes on is height x width bytes of grey and nothing else: EXIF, comments, file names, thumbnails and what lies
under a transparent place stay behind in the sealed original. Only PNG is decoded, its size is read before its pixels, and
none is larger than 512 x 512, so a small file can't unpack into a large one.
Not covered: what a picture shows. Faces, names and numbers in it are NOT searched for; the privacy claim alone protects them.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Final

from pipeline.records import Rejected

_PNG: Final = b"\x89PNG\r\n\x1a\n"
NOT_SEARCHED: Final = (
    "Images are not searched for personal data: what a picture shows (a face, a name, a number) went into training as it is, "
    "protected by the privacy claim alone. Metadata of image files was dropped: they were decoded to grey pixels."
)


def decode_image(value: object, size: tuple[int, int]) -> bytes:
    """height * width bytes of grey, row by row.

    value: base64 text, or bytes, of a PNG or of just that many bytes of grey; also the {bytes, path} that datasets in Parquet
    have. Raises Rejected E-INGEST-119 (can't be decoded), E-INGEST-120 (another size).
    """
    data = _as_bytes(value)
    if data.startswith(_PNG):
        return _decoded_png(data, size)
    if len(data) != size[0] * size[1]:
        raise Rejected("E-INGEST-120" if data else "E-INGEST-119")
    return data


def as_text(value: object) -> object:
    """Bytes of a Parquet column as base64 text, so that a quarantined row can be read again from its JSON."""
    try:
        return base64.b64encode(_as_bytes(value)).decode() if isinstance(value, bytes | Mapping) else value
    except Rejected:
        return value


def _as_bytes(value: object) -> bytes:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise Rejected("E-INGEST-119")
    try:
        return base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("E-INGEST-119") from None


def _decoded_png(data: bytes, size: tuple[int, int]) -> bytes:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as whole:
            whole.verify()  # to the end, checksums included: decoding alone takes a file that was cut
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if (image.height, image.width) != size:
                raise Rejected("E-INGEST-120")
            if image.mode.startswith("I"):  # 16 bits of grey: the upper eight
                import numpy as np

                return (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8).tobytes()
            # Over white: what lies under a transparent place is not part of the picture.
            seen = Image.new("RGBA", image.size, "white")
            seen.alpha_composite(image.convert("RGBA"))
            return seen.convert("L").tobytes()
    except Rejected:
        raise
    except Exception:  # Pillow raises many kinds for hostile bytes; none may stop the other records
        raise Rejected("E-INGEST-119") from None
