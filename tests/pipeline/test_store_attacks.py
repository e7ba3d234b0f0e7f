"""Every attack on a sealed object, on every class of artifact: refused at opening, each with the code that names it."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.stage import ArtifactRef, StageContext, StageOutput, StageResult, load_manifest, run_stage
from pipeline.store import MAGIC, Store
from privacy.canonical import digest_bytes, digest_of
from privacy.errors import IntegrityError
from privacy.keys import Keyring
from privacy.seal import CHUNK, HEADER, SEALED_CHUNK
from tests.worlds.chats import World, code_of

CLASSES = ("raw", "protected", "quarantine", "checkpoint", "model", "audit_trace", "secret")
SECRET = b"Ada Lovelace, card 4111 1111 1111 1111; "
SIZE = 5 * CHUNK + 777


def stored(home: Path, ref: ArtifactRef) -> Path:
    name = ref.digest.removeprefix("sha256:")
    return home / "objects" / name[:2] / name


def plaintext(seed: int, size: int = SIZE) -> bytes:
    return (SECRET + random.Random(seed).randbytes(size))[:size]


@dataclass(frozen=True)
class Parts:
    """A sealed object taken apart: envelope, the 56 bytes of salt and commitment, chunks (the last one shorter)."""

    envelope: bytes
    header: bytes
    chunks: tuple[bytes, ...]

    @classmethod
    def of(cls, data: bytes) -> Parts:
        (length,) = struct.unpack(">I", data[8:12])
        body = data[12 + length + HEADER :]
        pieces = tuple(body[at : at + SEALED_CHUNK] for at in range(0, len(body), SEALED_CHUNK))
        return cls(data[: 12 + length], data[12 + length :][:HEADER], pieces)

    @property
    def body(self) -> bytes:
        return self.header + b"".join(self.chunks)

    def joined(self, *chunks: bytes) -> bytes:
        return self.envelope + self.header + b"".join(chunks or self.chunks)


@dataclass(frozen=True)
class Scene:
    """One object under attack, and others of the store that an attacker can take from."""

    home: Path
    store: Store
    ref: ArtifactRef
    older: ArtifactRef
    twin: ArtifactRef
    elsewhere: ArtifactRef
    of_another_class: ArtifactRef
    of_another_dataset: ArtifactRef

    def bytes_of(self, ref: ArtifactRef) -> bytes:
        return stored(self.home, ref).read_bytes()

    @property
    def own(self) -> Parts:
        return Parts.of(self.bytes_of(self.ref))

    @property
    def other(self) -> Parts:
        return Parts.of(self.bytes_of(self.twin))


def scene_of(home: Path, data_class: str, size: int = SIZE) -> Scene:
    if not (home / "keyring.json").exists():
        Keyring.create(home / "keyring.json", home / "root.key")
    store = Store(home, Keyring.open(home / "keyring.json", home / "root.key"))

    def put(seed: int, dataset: str = "chat", path: str = "part", kind: str = data_class, version: str = "2") -> ArtifactRef:
        place = {"dataset": dataset, "path": path, "data_class": kind, "version": digest_of(version)}
        return store.put_sealed(plaintext(seed, size), **place, schema=digest_of("columns"))

    another = "raw" if data_class != "raw" else "model"
    return Scene(
        home, store, put(1), put(2, version="1"), put(3), put(4, path="other"), put(5, kind=another), put(6, dataset="shop")
    )


def flipped(data: bytes, position: int) -> bytes:
    altered = bytearray(data)
    altered[position] ^= 0x10
    return bytes(altered)


Attack = Callable[[Scene], bytes]


def whole(data: Callable[[Scene], ArtifactRef]) -> Attack:
    return lambda scene: scene.bytes_of(data(scene))


def chunked(arrange: Callable[[tuple[bytes, ...], tuple[bytes, ...]], list[bytes]]) -> Attack:
    return lambda scene: scene.own.joined(*arrange(scene.own.chunks, scene.other.chunks))


ATTACKS: list[tuple[str, str, Attack]] = [
    ("swap: another place", "E-STORE-012", whole(lambda s: s.elsewhere)),
    ("swap: another class", "E-STORE-012", whole(lambda s: s.of_another_class)),
    ("swap: another dataset", "E-STORE-012", whole(lambda s: s.of_another_dataset)),
    ("rollback: an older version", "E-STORE-013", whole(lambda s: s.older)),
    ("rollback: an older attempt of the same version", "E-STORE-013", whole(lambda s: s.twin)),
    ("cut: nothing left", "E-STORE-014", lambda s: b""),
    ("cut: in the magic", "E-STORE-014", lambda s: s.own.joined()[:5]),
    ("cut: in the envelope", "E-STORE-014", lambda s: s.own.joined()[:100]),
    ("cut: in salt and commitment", "E-STORE-014", lambda s: s.own.envelope + s.own.header[:40]),
    ("cut: before the first chunk", "E-STORE-014", lambda s: s.own.envelope + s.own.header),
    ("cut: at a chunk edge", "E-STORE-014", chunked(lambda own, _: list(own[:3]))),
    ("cut: inside a chunk", "E-STORE-014", lambda s: s.own.joined(*s.own.chunks[:3], s.own.chunks[3][:9000])),
    ("cut: inside the first chunk", "E-STORE-014", lambda s: s.own.joined(s.own.chunks[0][:9000])),
    ("cut: the last chunk", "E-STORE-014", chunked(lambda own, _: list(own[:-1]))),
    ("cut: the last byte", "E-STORE-014", lambda s: s.own.joined()[:-1]),
    ("order: two chunks changed places", "E-STORE-015", chunked(lambda own, _: [own[1], own[0], *own[2:]])),
    ("order: all chunks reversed", "E-STORE-015", chunked(lambda own, _: [*reversed(own[:-1]), own[-1]])),
    ("order: a chunk doubled", "E-STORE-015", chunked(lambda own, _: [*own[:2], own[1], *own[2:]])),
    ("order: a chunk over its neighbour", "E-STORE-015", chunked(lambda own, _: [own[0], own[0], *own[2:]])),
    ("order: a chunk taken out", "E-STORE-015", chunked(lambda own, _: [own[0], *own[2:]])),
    ("order: the first chunk taken out", "E-STORE-015", chunked(lambda own, _: list(own[1:]))),
    ("splice: envelope here, sealed file there", "E-STORE-016", lambda s: s.own.envelope + s.other.body),
    ("splice: header here, every chunk there", "E-STORE-016", chunked(lambda _, other: list(other))),
    ("splice: header here, a longer body there", "E-STORE-016", chunked(lambda _, other: [*other[:-1], *other])),
    ("splice: one chunk of another file", "E-STORE-016", chunked(lambda own, other: [own[0], other[1], *own[2:]])),
    ("splice: the end of another file", "E-STORE-016", chunked(lambda own, other: [*own[:4], *other[4:]])),
    ("splice: the last chunk of another file", "E-STORE-016", chunked(lambda own, other: [*own[:-1], other[-1]])),
    ("plaintext: what was sealed", "E-STORE-017", lambda s: plaintext(1)),
    ("plaintext: a Parquet file", "E-STORE-017", lambda s: b"PAR1" + os.urandom(900) + b"PAR1"),
    ("plaintext: an encrypted Parquet file", "E-STORE-017", lambda s: b"PARE" + os.urandom(900) + b"PARE"),
    ("plaintext: zeros", "E-STORE-017", lambda s: bytes(s.ref.size)),
    ("altered: the magic", "E-STORE-002", lambda s: flipped(s.own.joined(), 3)),
    ("altered: the length of the envelope", "E-STORE-002", lambda s: flipped(s.own.joined(), 8)),
    ("altered: the envelope", "E-STORE-002", lambda s: flipped(s.own.joined(), 40)),
    ("altered: the place in the envelope", "E-STORE-002", lambda s: s.own.joined().replace(b'"part"', b'"parT"', 1)),
    ("altered: the wrapped key", "E-STORE-002", lambda s: flipped(s.own.joined(), len(s.own.envelope) - 20)),
    ("altered: the salt", "E-STORE-002", lambda s: flipped(s.own.joined(), len(s.own.envelope) + 7)),
    ("altered: the commitment", "E-STORE-002", lambda s: flipped(s.own.joined(), len(s.own.envelope) + 40)),
    ("altered: a chunk", "E-STORE-002", lambda s: flipped(s.own.joined(), -2 * SEALED_CHUNK)),
    ("altered: a tag", "E-STORE-002", lambda s: flipped(s.own.joined(), len(s.own.envelope) + HEADER + SEALED_CHUNK - 1)),
    ("altered: the last byte", "E-STORE-002", lambda s: flipped(s.own.joined(), -1)),
    ("altered: bytes put in", "E-STORE-002", lambda s: s.own.joined()[:60_000] + b"xx" + s.own.joined()[60_000:]),
    ("appended: a byte", "E-STORE-018", lambda s: s.own.joined() + b"x"),
    ("appended: what may be a tag", "E-STORE-018", lambda s: s.own.joined() + bytes(16)),
    ("appended: a chunk of its own", "E-STORE-018", lambda s: s.own.joined() + s.own.chunks[0]),
    ("appended: itself", "E-STORE-018", lambda s: s.own.joined() * 2),
]  # fmt: skip


@pytest.mark.parametrize("data_class", CLASSES)
def test_every_attack_on_every_class_is_refused_by_its_own_name(tmp_path: Path, data_class: str) -> None:
    scene = scene_of(tmp_path, data_class)
    sound = scene.bytes_of(scene.ref)
    sentences: dict[str, set[str]] = {}
    for name, code, attack in ATTACKS:
        made = attack(scene)
        assert made != sound, name
        stored(tmp_path, scene.ref).write_bytes(made)
        with pytest.raises(IntegrityError) as caught:
            scene.store.open_sealed(scene.ref)
        assert (caught.value.code, caught.value.exit_code) == (code, 4), name
        assert "Lovelace" not in str(caught.value)
        sentences.setdefault(code, set()).add(caught.value.cause)
        stored(tmp_path, scene.ref).write_bytes(sound)
    assert len(sentences) == 8
    assert all(len(said) == 1 for said in sentences.values())
    assert len({next(iter(said)) for said in sentences.values()}) == 8
    assert scene.store.read_sealed(scene.ref) == plaintext(1)


@pytest.mark.parametrize("size", [0, 1, 500, CHUNK - 1, CHUNK, CHUNK + 1])
def test_an_object_of_one_chunk_is_told_apart_as_well(tmp_path: Path, size: int) -> None:
    scene = scene_of(tmp_path, "model", size)
    attacks: list[tuple[str, Attack]] = [
        ("E-STORE-012", whole(lambda s: s.elsewhere)),
        ("E-STORE-013", whole(lambda s: s.older)),
        ("E-STORE-014", lambda s: s.own.joined()[:-1]),
        ("E-STORE-016", chunked(lambda _, other: list(other))),
        ("E-STORE-017", lambda s: b"{}"),
        ("E-STORE-002", lambda s: flipped(s.own.joined(), -1)),
        ("E-STORE-018", lambda s: s.own.joined() + b"x"),
    ]
    sound = scene.bytes_of(scene.ref)
    for code, attack in attacks:
        stored(tmp_path, scene.ref).write_bytes(attack(scene))
        assert code_of(scene.store.open_sealed, scene.ref) == code
        stored(tmp_path, scene.ref).write_bytes(sound)
    assert scene.store.read_sealed(scene.ref) == plaintext(1, size)


def test_a_chunk_of_an_object_that_is_gone_can_not_be_told_from_altered_bits(tmp_path: Path) -> None:
    """The limit that the module states: a foreign chunk is recognised by the object that it came from."""
    scene = scene_of(tmp_path, "raw")
    foreign = scene.own.joined(scene.own.chunks[0], scene.other.chunks[1], *scene.own.chunks[2:])
    stored(tmp_path, scene.ref).write_bytes(foreign)
    assert code_of(scene.store.open_sealed, scene.ref) == "E-STORE-016"
    scene.store.shred(scene.twin)
    assert code_of(scene.store.open_sealed, scene.ref) == "E-STORE-002"


def test_without_its_key_a_damaged_object_is_refused_all_the_same(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, "raw")
    stored(tmp_path, scene.ref).write_bytes(scene.bytes_of(scene.older))
    Keyring.open(tmp_path / "keyring.json", tmp_path / "root.key").destroy("chat/raw")
    assert code_of(scene.store.open_sealed, scene.ref) == "E-STORE-002"


def test_no_chunk_is_decrypted_for_a_caller_before_the_digest_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(tmp_path, "raw")
    stored(tmp_path, scene.ref).write_bytes(scene.own.joined()[:-1])

    def never(*_: object) -> None:
        raise AssertionError("a reader was made for an object whose digest is wrong")

    monkeypatch.setattr("pipeline.store.SealedReader", never)
    assert code_of(scene.store.open_sealed, scene.ref) == "E-STORE-014"


# --- rollback: who is believed about which version is the newest


@dataclass(frozen=True)
class TwoVersions:
    ctx: StageContext
    old: StageResult
    new: StageResult

    @property
    def home(self) -> Path:
        return self.ctx.home.path

    def path_of(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self.home / "objects" / name[:2] / name

    def result_of(self, result: StageResult) -> Path:
        (found,) = [p for p in (self.home / "results").iterdir() if p.read_text().strip() == result.digest]
        return found


INPUTS = [{"ingest": digest_of("monday")}, {"ingest": digest_of("tuesday")}]


def body_of(ctx: StageContext, number: int) -> Callable[[], StageOutput]:
    def body() -> StageOutput:
        place = {"dataset": "test_chat", "path": "protect/p", "data_class": "protected", "version": INPUTS[number]["ingest"]}
        return StageOutput({"protected": ctx.home.store.put_sealed(plaintext(number), **place)})

    return body


@pytest.fixture
def versions(world: World) -> TwoVersions:
    ctx = world.context()
    made = [run_stage(ctx, "protect", INPUTS[n], body_of(ctx, n)) for n in (0, 1)]
    return TwoVersions(ctx, *made)


def test_an_older_object_under_the_newer_digest_is_a_rollback(versions: TwoVersions) -> None:
    old, new = (result.manifest.outputs["protected"] for result in (versions.old, versions.new))
    versions.path_of(new.digest).write_bytes(versions.path_of(old.digest).read_bytes())
    assert code_of(versions.ctx.home.store.open_sealed, new) == "E-STORE-013"


def test_an_older_manifest_under_the_newer_digest_is_refused(versions: TwoVersions) -> None:
    versions.path_of(versions.new.digest).write_bytes(versions.path_of(versions.old.digest).read_bytes())
    assert code_of(load_manifest, versions.ctx.home, versions.new.digest) == "E-STORE-002"
    named = [e.facts["manifest"] for e in versions.ctx.home.journal.entries() if e.kind == "stage"]
    assert named == [versions.old.digest, versions.new.digest], "the signed journal still says which one is the newest"


def test_a_result_record_turned_back_to_an_older_manifest_is_refused(versions: TwoVersions) -> None:
    versions.result_of(versions.new).write_text(versions.old.digest + "\n")
    assert code_of(run_stage, versions.ctx, "protect", INPUTS[1], body_of(versions.ctx, 1)) == "E-STAGE-005"


def test_a_manifest_that_the_journal_does_not_know_is_refused(versions: TwoVersions) -> None:
    """Whoever can write files, and has no key, makes a manifest for today's input that names yesterday's rows."""
    old = versions.old.manifest.outputs["protected"]
    value = {**versions.new.manifest.to_json(), "outputs": {"protected": old.to_json()}}
    forged = versions.ctx.home.store.put_json(value)
    versions.result_of(versions.new).write_text(forged + "\n")
    assert code_of(run_stage, versions.ctx, "protect", INPUTS[1], body_of(versions.ctx, 1)) == "E-STAGE-005"


def test_a_plain_object_swapped_for_another_is_refused(versions: TwoVersions) -> None:
    store = versions.ctx.home.store
    one, two = (store.put_plain(text, dataset="chat", path="trace", data_class="evidence") for text in (b"one", b"two"))
    versions.path_of(one.digest).write_bytes(versions.path_of(two.digest).read_bytes())
    assert code_of(store.read_plain, one) == "E-STORE-002"
    assert digest_bytes(b"one") == one.digest
    assert not versions.path_of(one.digest).read_bytes().startswith(MAGIC)
