"""Pictures: decoded to grey pixels, stripped of all else, refused when wrong, sealed on the way, never searched."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.images import NOT_SEARCHED, as_text, decode_image
from pipeline.ingest import ingest, replay_quarantine
from pipeline.model_words import pipeline_tag, what_it_does
from pipeline.protect import protect
from pipeline.quarantine import read_quarantine
from pipeline.read import read_protected
from pipeline.records import Rejected
from pipeline.stage import load_manifest
from pipeline.tables import read_batches
from pipeline.validate import run_suite, validate
from privacy.errors import GateClosed
from privacy.policy import Policy
from tests.worlds.chats import EmailDetector, World, lines
from tests.worlds.policies import make_policy, policy_value

SIZE = (9, 12)
PIXELS = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
CHANGES: dict[str, object] = {
    "source.fields": {"subject": "customer", "record_id": "id", "text": [], "label": "intent", "image": "scan"},
    "recipe.model": "image_cnn",
    "recipe.image_size": list(SIZE),
}
SECRET = "ada.lovelace@example.org"


def png(pixels: np.ndarray = PIXELS, mode: str | None = None, **options: object) -> bytes:
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def base(data: bytes) -> str:
    return base64.b64encode(data).decode()


def row(number: int, scan: object, **changes: object) -> dict[str, object]:
    intent = ("refund", "delivery", "greeting")[number % 3]
    return {"id": f"p{number}", "customer": f"customer-{number % 5}", "intent": intent, "scan": scan, **changes}


def code_of(value: object, size: tuple[int, int] = SIZE) -> str:
    with pytest.raises(Rejected) as caught:
        decode_image(value, size)
    return caught.value.code


@pytest.mark.parametrize("mode", [None, "RGB", "RGBA", "LA", "P", "1"])
def test_every_form_of_a_png_becomes_grey_pixels_of_its_size(mode: str | None) -> None:
    found = decode_image(base(png(mode=mode)), SIZE)
    assert len(found) == SIZE[0] * SIZE[1]
    if mode != "1":
        assert found == PIXELS.tobytes()


def test_sixteen_bits_keep_the_upper_eight() -> None:
    wide = PIXELS.astype(np.uint16) * 256 + 7
    assert decode_image(png(wide), SIZE) == PIXELS.tobytes()


def test_what_lies_under_a_transparent_place_is_not_part_of_the_picture() -> None:
    hidden = np.dstack([PIXELS, PIXELS, PIXELS, np.zeros(SIZE, dtype=np.uint8)])
    assert decode_image(png(hidden), SIZE) == b"\xff" * PIXELS.size


def test_raw_grey_of_the_declared_size_is_taken_as_it_is() -> None:
    assert decode_image(PIXELS.tobytes(), SIZE) == PIXELS.tobytes()
    assert decode_image(base(PIXELS.tobytes()), SIZE) == PIXELS.tobytes()
    assert decode_image({"bytes": png(), "path": "me.png"}, SIZE) == PIXELS.tobytes()


def test_wrong_pictures_have_a_code_each() -> None:
    assert code_of(png(), (12, 9)) == "E-INGEST-120"  # turned is another size
    assert code_of(PIXELS.tobytes()[:-1]) == "E-INGEST-120"
    assert code_of(png()[:-20]) == "E-INGEST-119"
    assert code_of("not base64!") == "E-INGEST-119"
    assert code_of("") == "E-INGEST-119"
    assert code_of(None) == "E-INGEST-119"
    assert code_of(7) == "E-INGEST-119"
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "BMP")
    assert code_of(buffer.getvalue()) == "E-INGEST-120"  # no format but PNG is decoded


def test_a_bomb_is_refused_by_its_header() -> None:
    """30,000 x 30,000 pixels of nothing in a few bytes: a gigabyte, if anybody decoded it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    assert code_of(bomb) in ("E-INGEST-119", "E-INGEST-120")


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_code(data: bytes) -> None:
    for value in (data, b"\x89PNG\r\n\x1a\n" + data, png()[: len(data)] + data):
        try:
            assert len(decode_image(value, SIZE)) == SIZE[0] * SIZE[1]
        except Rejected:
            continue


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet of bytes", "parquet of text", "parquet of structs"])
def test_pictures_come_through_every_format(world: World, form: str) -> None:
    rows = [row(n, base(png())) for n in range(6)]
    if form == "jsonl":
        world.write("a.jsonl", lines(rows))
    elif form == "csv":
        names = list(rows[0])
        text = "\n".join(",".join(map(str, r)) for r in [names, *([r[n] for n in names] for r in rows)])
        world.write("a.jsonl", text.encode())
    else:
        own = {"bytes": png(), "text": base(png()), "structs": {"bytes": png(), "path": "holiday.png"}}[form.split()[-1]]
        pq.write_table(pa.Table.from_pylist([{**r, "scan": own} for r in rows]), world.source / "a.jsonl")
    result = ingest(world.context(**CHANGES, **{"source.format": form.split()[0]}), str(world.source))
    ref = result.manifest.outputs["raw"]
    images = [r["image"] for batch in read_batches(world.home.store, ref) for r in batch.to_pylist()]
    assert images == [PIXELS.tobytes()] * 6


def test_wrong_pictures_go_to_quarantine_and_come_back_when_the_policy_is_mended(world: World) -> None:
    pq.write_table(
        pa.Table.from_pylist([row(0, png()), row(1, png(PIXELS.T.copy())), row(2, b"\x89PNG\r\n\x1a\nno")]),
        world.source / "a.jsonl",
    )
    ctx = world.context(**CHANGES, **{"source.format": "parquet"})
    result = ingest(ctx, str(world.source))
    assert result.manifest.facts["records"] == 1
    codes = [reject.code for reject in read_quarantine(world.home.store, result.manifest.outputs["quarantine"])]
    assert codes == ["E-INGEST-120", "E-INGEST-119"]
    mended = world.context(**{**CHANGES, "recipe.image_size": list(SIZE[::-1])}, **{"source.format": "parquet"})
    again = replay_quarantine(mended, result.digest)
    assert again.manifest.facts["records"] == 1
    [batch] = read_batches(world.home.store, again.manifest.outputs["raw"])
    assert batch.to_pylist()[0]["image"] == PIXELS.T.tobytes()


def test_pixels_reach_the_protected_dataset_and_metadata_does_not(world: World) -> None:
    info = PngInfo()
    info.add_text("Author", SECRET)
    rows = [row(n, base(png(pnginfo=info, exif=b"Exif\x00\x00MM\x00*" + SECRET.encode()))) for n in range(12)]
    assert SECRET.encode() in base64.b64decode(str(rows[0]["scan"]))
    world.write("a.jsonl", lines(rows))
    ctx = world.context(**CHANGES)
    ingested = ingest(ctx, str(world.source))
    protected = protect(ctx, ingested.digest, EmailDetector())
    assert protected.manifest.facts["images_not_searched"] == 12
    table = read_protected(world.home, protected.manifest)
    assert table["image"].to_pylist() == [PIXELS.tobytes()] * 12
    assert SECRET not in str(table.to_pylist())
    assert all(SECRET.encode() not in path.read_bytes() for path in world.home.path.rglob("*") if path.is_file())
    assert world.home.vault.reveal(ctx.policy.dataset, str(table["unit"][0]))  # the original, metadata and all, is sealed


def test_a_dataset_of_pictures_validates_and_one_of_another_size_does_not(world: World) -> None:
    world.write("a.jsonl", lines([row(n, base(png())) for n in range(12)]))
    ctx = world.context(**CHANGES)
    protected = protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector())
    result = validate(ctx, protected.digest)
    assert result.manifest.facts["verdict"] == "passed"
    stored = json.loads(world.home.store.read_plain(result.manifest.outputs["validation"]))
    assert {"privet.pixels"} <= {r["column"] for r in stored["results"]}
    frame = read_protected(world.home, load_manifest(world.home, protected.digest)).to_pandas()
    frame["privet.record_of_unit"] = 1
    frame["privet.pixels"] = [len(image) for image in frame.pop("image")]
    frame.loc[3, "privet.pixels"] = 5
    failed = [c for c in run_suite(frame, ctx.policy) if c.outcome != "passed"]
    assert [c.column for c in failed] == ["privet.pixels"]


def test_a_second_scan_of_words_beside_pictures_still_happens(world: World) -> None:
    """With words, the text expectations are there again: a picture switches nothing off."""
    fields = {**CHANGES["source.fields"], "text": ["note"]}  # type: ignore[dict-item]
    changes = {**CHANGES, "source.fields": fields}
    world.write("a.jsonl", lines([row(n, base(png()), note=f"call +1 415 555 01{n:02d}, mail {SECRET}") for n in range(12)]))
    ctx = world.context(**changes)
    blind = protect(ctx, ingest(ctx, str(world.source)).digest, _Blind())
    with pytest.raises(GateClosed, match="max_residual_pii_rate"):
        validate(ctx, blind.digest)


class _Blind(EmailDetector):
    def analyze_batch(self, texts: object, language: str) -> list[list[object]]:  # type: ignore[override]
        return [[] for _ in texts]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"recipe.image_size": None}, "image_size"),
        ({"recipe.model": "text_mlp"}, "image_size"),
        ({"source.fields": {"subject": "customer", "text": ["t"], "label": "intent"}}, "source.fields.image"),
        ({"source.fields": {"subject": "customer", "text": [], "label": "intent"}}, "names no field"),
        ({"source.fields": {"subject": "customer", "text": ["scan"], "label": "intent", "image": "scan"}}, "two roles"),
        ({"recipe.image_size": [4, 28]}, "greater than or equal to 8"),
        ({"recipe.image_size": [28, 5000]}, "less than or equal to 512"),
    ],
)
def test_contradictions_about_pictures_are_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        make_policy(**{**CHANGES, **changes})


def test_the_card_says_that_nobody_searched_the_pictures() -> None:
    policy = Policy.model_validate(policy_value(**CHANGES))
    assert NOT_SEARCHED in what_it_does(policy, "a, b")
    assert pipeline_tag(policy) == "image-classification"
    assert NOT_SEARCHED not in what_it_does(make_policy(), "a, b")
    assert pipeline_tag(make_policy()) == "text-classification"


def test_text_stays_text_for_a_replay() -> None:
    assert as_text(base(png())) == base(png())
    assert as_text(png()) == base(png())
    assert as_text({"path": "x"}) == {"path": "x"}
    assert as_text(None) is None


def test_docs_say_that_pictures_are_not_searched() -> None:
    root = Path(__file__).resolve().parents[2]
    assert "Images are not searched for personal data" in (root / "docs" / "policy.md").read_text()
    assert "NOT searched for personal data" in (root / "dags" / "policies" / "images.yaml").read_text()
