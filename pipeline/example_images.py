"""Makes up pictures of handwritten-like digits by made-up writers, so that a fresh clone can train on images.

Guarantee: the same seed writes the same bytes; nobody wrote these digits. Each PNG carries a comment with the address of its
made-up writer, which ingest has to drop. Not covered: real handwriting is more varied.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import numpy.typing as npt

from pipeline.log_people import make_person

# 5 x 7 dots, row by row.
_GLYPHS = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11110 00001 00001 01110 00001 00001 11110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
}
DIGITS = tuple(_GLYPHS)
_DIGITS_OF_WRITER = (3, 8)

FloatArray = npt.NDArray[np.float64]


def digit_records(
    seed: int, writers: int, size: tuple[int, int], labels: Sequence[str], names: dict[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """(JSON line, values planted in its picture's metadata). names: source field by role, subject, record_id, label, image."""
    random, draw = Random(seed), np.random.default_rng(seed)  # noqa: S311 (made-up data must be reproducible)
    for number in range(writers):
        person = make_person(random, number, "en")
        slant, thick = draw.normal(0, 0.12), draw.uniform(0.55, 0.85)  # a writer's hand
        for turn in range(random.randint(*_DIGITS_OF_WRITER)):
            digit = random.choice(labels)
            pixels = _drawn(digit, size, slant, thick, draw)
            author = person.values["email"]
            record = {
                names["subject"]: person.customer,
                names["record_id"]: f"d{number}-{turn}",
                names["label"]: digit,
                names["image"]: base64.b64encode(_png(pixels, f"written by {author}")).decode(),
            }
            yield json.dumps(record), [author]


def _drawn(digit: str, size: tuple[int, int], slant: float, thick: float, draw: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The dots of the glyph, blurred and seen through a random affine map, with grain."""
    height, width = size
    dots = [(row, column) for row, line in enumerate(_GLYPHS[digit].split()) for column, dot in enumerate(line) if dot == "1"]
    scale = draw.uniform(0.85, 1.05) * min(height / 9.0, width / 7.0)
    turn, shear = draw.normal(0, 0.08), slant + draw.normal(0, 0.05)
    rows, columns = (axis.astype(np.float64) for axis in np.mgrid[0:height, 0:width])
    y = (rows - height / 2 - draw.normal(0, 0.5)) / scale
    x = (columns - width / 2 - draw.normal(0, 0.5)) / scale
    x, y = x * np.cos(turn) - y * np.sin(turn) + shear * y, x * np.sin(turn) + y * np.cos(turn)
    ink = np.zeros(size)
    for row, column in dots:
        far = np.hypot(y - (row - 3) + draw.normal(0, 0.08), x - (column - 2) + draw.normal(0, 0.08))
        ink = np.maximum(ink, np.clip(1.4 - far / thick, 0.0, 1.0))
    grainy = ink * draw.uniform(190, 255) + draw.normal(0, 9, size)
    return np.clip(grainy, 0, 255).astype(np.uint8)


def _png(pixels: npt.NDArray[np.uint8], comment: str) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("Author", comment)
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
