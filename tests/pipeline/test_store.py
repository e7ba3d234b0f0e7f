"""The store: whole or not at all, what was written, and nothing in the clear."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.stage import ArtifactRef
from pipeline.store import MAGIC, Store
from privacy.canonical import canonical_json, digest_bytes, digest_of, parse_canonical
from privacy.errors import EnvironmentFault, IntegrityError, PrivetError, UsageError
from privacy.keys import Keyring

SECRET = b"Ada Lovelace, card 4111 1111 1111 1111; "
PLACE = {"dataset": "chat", "path": "raw/part-0", "data_class": "raw"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Keyring.create(tmp_path / "keyring.json", tmp_path / "root.key")
    return tmp_path


@pytest.fixture
def store(home: Path) -> Store:
    return store_of(home)


def store_of(home: Path) -> Store:
    return Store(home, Keyring.open(home / "keyring.json", home / "root.key"))


def stored(home: Path, ref: ArtifactRef | str) -> Path:
    name = (ref if isinstance(ref, str) else ref.digest).removeprefix("sha256:")
    return home / "objects" / name[:2] / name


def leftovers(home: Path) -> list[str]:
    return [p.name for p in (home / "objects" / "tmp").iterdir()]


def test_sealed_bytes_come_back_and_never_lie_on_disk_in_the_clear(home: Path, store: Store) -> None:
    data = SECRET * 5000
    ref = store.put_sealed(data, **PLACE)
    assert store_of(home).read_sealed(ref) == data
    assert digest_bytes(stored(home, ref).read_bytes()) == ref.digest
    assert stored(home, ref).stat().st_size == ref.size
    for path in home.rglob("*"):
        assert not path.is_file() or b"Lovelace" not in path.read_bytes(), path
    assert leftovers(home) == []


def test_a_sealed_object_reads_at_random_like_the_plaintext(store: Store) -> None:
    data = os.urandom(300_000)
    with store.open_sealed(store.put_sealed(data, **PLACE)) as file:
        for start, length in [(0, 10), (299_990, 100), (16_380, 9), (100_000, 150_000), (5, 0)]:
            file.seek(start)
            assert file.read(length) == data[start : start + length]


def test_parquet_is_written_and_read_through_the_seal(store: Store) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": ["Ada Lovelace"] * 50_000, "n": list(range(50_000))})
    with store.sealed_writer(**PLACE) as sink, pq.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=10_000)
    with store.open_sealed(sink.ref) as file:
        assert pq.read_table(file, columns=["n"]).equals(table.select(["n"]))


def test_objects_of_one_plaintext_share_no_key_and_no_name(store: Store) -> None:
    one, two = store.put_sealed(SECRET, **PLACE), store.put_sealed(SECRET, **PLACE)
    assert one.digest != two.digest


def test_a_write_that_fails_leaves_nothing(home: Path, store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.sealed_writer(**PLACE) as sink:
        sink.write(SECRET * (100_000 // (sink.write(SECRET * 50_000) * 0)))
    with pytest.raises(UsageError, match="E-STORE-007"):
        _ = sink.ref
    assert [p for p in (home / "objects").rglob("*") if p.is_file()] == []


# --- tampering: one row per way, with the code that names it


def flip(position: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        altered = bytearray(data)
        altered[position] ^= 0x40
        return bytes(altered)

    return change


@pytest.mark.parametrize(
    "damage",
    [flip(0), flip(7), flip(9), flip(20), flip(400), flip(600), flip(-1), flip(-20_000), lambda d: d[:12] + b"x" + d[12:]],
)
def test_any_changed_byte_is_refused_before_the_first_byte_is_out(
    home: Path, store: Store, damage: Callable[[bytes], bytes]
) -> None:
    ref = store.put_sealed(os.urandom(50_000), **PLACE)
    path = stored(home, ref)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError, match="E-STORE-002"):
        store.open_sealed(ref)


def test_an_older_object_of_the_same_place_does_not_pass_for_the_newer(home: Path, store: Store) -> None:
    old, new = store.put_sealed(b"old" * 99, **PLACE), store.put_sealed(b"new" * 99, **PLACE)
    stored(home, new).write_bytes(stored(home, old).read_bytes())
    with pytest.raises(IntegrityError, match="E-STORE-013"):
        store.open_sealed(new)
    assert store.read_sealed(old) == b"old" * 99


def renamed(home: Path, ref: ArtifactRef, data: bytes) -> ArtifactRef:
    """An attacker who can also change the manifest: the object under its own new digest."""
    digest = digest_bytes(data)
    stored(home, digest).parent.mkdir(exist_ok=True)
    stored(home, digest).write_bytes(data)
    return dataclasses.replace(ref, digest=digest, size=len(data))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset", "shop"),
        ("path", "raw/part-1"),
        ("data_class", "protected"),
        ("version", "sha256:" + "1" * 64),
        ("schema", "sha256:" + "2" * 64),
    ],
)
def test_an_object_does_not_open_as_another_dataset_place_or_class(home: Path, store: Store, field: str, value: str) -> None:
    ref = store.put_sealed(SECRET, **PLACE)
    elsewhere = dataclasses.replace(ref, **{field: value})
    with pytest.raises(IntegrityError, match="E-STORE-004"):
        store.open_sealed(elsewhere)
    data = stored(home, ref).read_bytes()
    (length,) = struct.unpack(">I", data[8:12])
    header = parse_canonical(data[12 : 12 + length])
    assert isinstance(header, dict)
    forged = canonical_json({**header, field: value})
    moved = renamed(home, elsewhere, MAGIC + struct.pack(">I", len(forged)) + forged + data[12 + length :])
    with pytest.raises(IntegrityError, match="E-KEY-005"):
        store.open_sealed(moved)


def test_bodies_and_headers_of_two_objects_can_not_be_mixed(home: Path, store: Store) -> None:
    one, two = store.put_sealed(b"1" * 99, **PLACE), store.put_sealed(b"2" * 99, **PLACE)
    a, b = stored(home, one).read_bytes(), stored(home, two).read_bytes()
    (length,) = struct.unpack(">I", a[8:12])
    with pytest.raises(IntegrityError, match="E-SEAL-001"):
        store.open_sealed(renamed(home, one, a[: 12 + length] + b[12 + length :]))


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", SECRET, MAGIC, MAGIC + b"\xff\xff\xff\xff", MAGIC + b"\0\0\0\2{}", MAGIC + b"\0\0\0\2{ ", MAGIC * 9]
)
def test_plaintext_or_junk_does_not_pass_for_a_sealed_object(home: Path, store: Store, data: bytes) -> None:
    ref = store.put_sealed(SECRET, **PLACE)
    with pytest.raises(IntegrityError, match="E-STORE-003" if data.startswith(MAGIC) else "E-STORE-017"):
        store.open_sealed(renamed(home, ref, data))


def test_an_envelope_of_an_older_format_is_refused(home: Path, store: Store) -> None:
    """A downgrade: the first format bound neither version nor schema."""
    ref = store.put_sealed(SECRET, **PLACE)
    data = stored(home, ref).read_bytes()
    (length,) = struct.unpack(">I", data[8:12])
    header = parse_canonical(data[12 : 12 + length])
    assert isinstance(header, dict)
    older = canonical_json({k: v for k, v in header.items() if k not in ("version", "schema")} | {"v": 1})
    with pytest.raises(IntegrityError, match="E-STORE-003"):
        store.open_sealed(renamed(home, ref, MAGIC + struct.pack(">I", len(older)) + older + data[12 + length :]))


def test_another_homes_keyring_opens_nothing(home: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    ref = store.put_sealed(SECRET, **PLACE)
    other = tmp_path_factory.mktemp("other")
    stranger = Keyring.create(other / "keyring.json", other / "root.key")
    with pytest.raises(IntegrityError, match="E-KEY-006"):
        Store(home, stranger).open_sealed(ref)
    stranger.wrap("chat/raw", b"k" * 32, b"")  # now it has a domain of that name, with another key
    with pytest.raises(IntegrityError, match="E-KEY-005"):
        Store(home, stranger).open_sealed(ref)


def test_a_destroyed_domain_key_takes_every_object_of_it(home: Path, store: Store) -> None:
    refs = [store.put_sealed(SECRET, **PLACE) for _ in range(2)]
    kept = store.put_sealed(SECRET, dataset="chat", path="p", data_class="protected")
    Keyring.open(home / "keyring.json", home / "root.key").destroy("chat/raw")
    for ref in refs:
        with pytest.raises(IntegrityError, match="E-KEY-006"):
            store.open_sealed(ref)
    assert store.read_sealed(kept) == SECRET


# --- plain evidence and results


def test_plain_evidence_is_checked_against_its_digest(home: Path, store: Store) -> None:
    digest = store.put_json({"b": 1, "a": [True, None]})
    assert digest == digest_of({"a": [True, None], "b": 1})
    assert store.get_plain(digest) == b'{"a":[true,null],"b":1}'
    stored(home, digest).write_bytes(b'{"a":[true,null],"b":2}')
    with pytest.raises(IntegrityError, match="E-STORE-002"):
        store.get_plain(digest)
    assert store.put_json({"b": 1, "a": [True, None]}) == digest  # writing it again mends it
    assert store.get_plain(digest) == b'{"a":[true,null],"b":1}'
    with pytest.raises(IntegrityError, match="E-STORE-001"):
        store.get_plain(digest_bytes(b"never"))


def test_plain_and_sealed_are_never_confused(store: Store) -> None:
    plain, secret = store.put_plain(b"counts", **PLACE), store.put_sealed(SECRET, **PLACE)
    assert store.read_plain(plain) == b"counts"
    for wrong in (lambda: store.read_plain(secret), lambda: store.open_sealed(plain), lambda: store.shred(plain)):
        with pytest.raises(UsageError, match="E-STORE-006"):
            wrong()


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:../../keyring.json", "../x", "sha256:" + "A" * 64, "sha256:" + "a" * 63]
)
def test_a_digest_can_not_name_a_file_outside(store: Store, digest: str) -> None:
    with pytest.raises(UsageError, match="E-STORE-009"):
        store.get_plain(digest)
    with pytest.raises(UsageError, match="E-STORE-009"):
        store.result(digest)


def test_a_symbolic_link_is_no_object(home: Path, store: Store) -> None:
    digest = digest_bytes((home / "root.key").read_bytes())
    stored(home, digest).parent.mkdir()
    stored(home, digest).symlink_to(home / "root.key")
    with pytest.raises(IntegrityError, match="E-STORE-001"):
        store.get_plain(digest)


def test_the_first_result_stands(home: Path, store: Store) -> None:
    key, one, two = (digest_bytes(x) for x in (b"key", b"1", b"2"))
    assert store.result(key) is None
    assert store.commit_result(key, one) == one
    assert store.commit_result(key, two) == one
    assert store_of(home).result(key) == one
    (home / "results" / key.removeprefix("sha256:")).write_text("sha256:12")
    with pytest.raises(IntegrityError, match="E-STORE-005"):
        store.result(key)


def test_shredding_overwrites_the_key_and_forgets_the_object(home: Path, store: Store) -> None:
    ref = store.put_sealed(SECRET * 1000, **PLACE)
    with stored(home, ref).open("rb") as still_open:
        assert store.shred(ref)
        assert still_open.read(4096).strip(b"\0") == b""  # header and first chunk are zeros on the medium
    assert not store.shred(ref)
    assert not store.exists(ref)
    with pytest.raises(IntegrityError, match="E-STORE-001"):
        store.open_sealed(ref)


def test_shredding_cut_short_is_finished_by_the_next_process(home: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = store.put_sealed(SECRET * 1000, **PLACE)
    with stored(home, ref).open("rb", buffering=0) as still_open:
        with monkeypatch.context() as patched:
            patched.setattr("os.pwrite", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
            patched.setattr(Path, "unlink", lambda *_, **__: None)
            with pytest.raises(KeyboardInterrupt):
                store.shred(ref)
        assert not store.exists(ref)  # out of every reader's sight already
        assert still_open.read(8) == b"PRIVETS1"
        Store(home, store._keyring)
        still_open.seek(0)
        assert still_open.read(4096).strip(b"\0") == b""
    assert not list((home / "objects" / "tmp").iterdir())


# --- faults of the machine


def failing(code: int, after: int, real: Callable[..., int]) -> Callable[..., int]:
    calls = 0

    def call(*arguments: object) -> int:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    return call


@pytest.mark.parametrize("name", ["write", "fsync", "link"])
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "E-STORE-010"), (errno.EDQUOT, "E-STORE-010"), (errno.EIO, "E-STORE-011")]
)
def test_a_full_disk_leaves_the_old_state_and_running_again_continues(
    home: Path, store: Store, monkeypatch: pytest.MonkeyPatch, name: str, after: int, code: int, said: str
) -> None:
    store.put_sealed(SECRET, **PLACE)  # the domain key exists, so that the fault meets the store
    key = digest_bytes(b"key")

    def work() -> ArtifactRef:
        ref = store.put_sealed(SECRET * 100_000, **PLACE)
        store.commit_result(key, ref.digest)
        return ref

    before = sorted(p for p in home.rglob("*") if p.is_file())
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(code, after if name != "link" else 0, getattr(os, name)))
        with pytest.raises(EnvironmentFault, match=said) as caught:
            work()
    assert "Lovelace" not in str(caught.value)
    assert leftovers(home) == []
    new = [p for p in home.rglob("*") if p.is_file() and p not in before]
    assert all(digest_bytes(p.read_bytes()) == "sha256:" + p.name for p in new)  # whole objects only
    ref = work()
    assert store.result(key) == ref.digest
    assert store.read_sealed(ref) == SECRET * 100_000


def test_a_disk_that_fills_up_under_parquet_is_named_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"x": [os.urandom(1000) for _ in range(5000)]})
    store.put_sealed(b"", **PLACE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC, 1, os.write))
        with pytest.raises(EnvironmentFault, match="E-STORE-010"), store.sealed_writer(**PLACE) as sink:
            pq.write_table(table, sink)


def test_short_writes_of_the_system_lose_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: real(handle, memoryview(data)[:1000]))
        ref = store.put_sealed(SECRET * 5000, **PLACE)
    assert store.read_sealed(ref) == SECRET * 5000


def test_what_a_killed_writer_left_goes_after_a_day_and_not_before(home: Path, store: Store) -> None:
    for name, age in (("old", 25 * 3600), ("young", 60)):
        path = home / "objects" / "tmp" / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    store_of(home)
    assert leftovers(home) == ["young"]


def _write_forever(home: Path) -> None:
    store = store_of(home)
    number = 0
    while True:
        ref = store.put_sealed(os.urandom(200_000), **PLACE)
        store.commit_result(digest_of(number), ref.digest)
        number += 1


def test_a_killed_writer_leaves_whole_objects_only(home: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for round_ in range(4):
        worker = fork.Process(target=_write_forever, args=(home,))
        before = len(list((home / "results").glob("*")))
        worker.start()
        while len(list((home / "results").glob("*"))) < before + 3 and worker.is_alive():
            time.sleep(0.002)
        time.sleep(0.003 * round_)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    objects = [p for p in (home / "objects").rglob("*") if p.is_file() and p.parent.name != "tmp"]
    results = list((home / "results").iterdir())
    assert objects
    assert results
    assert all(digest_bytes(p.read_bytes()) == "sha256:" + p.name for p in objects)
    assert {p.read_text().strip().removeprefix("sha256:") for p in results} <= {p.name for p in objects}


def _commit(home: Path, barrier: object, queue: object, number: int) -> None:
    store = store_of(home)
    barrier.wait()  # type: ignore[attr-defined]
    queue.put([store.commit_result(digest_of(n), digest_of([n, number])) for n in range(20)])  # type: ignore[attr-defined]


def test_racing_processes_agree_on_every_result(home: Path, store: Store) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, queue = fork.Barrier(4), fork.Queue()
    workers = [fork.Process(target=_commit, args=(home, barrier, queue, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert all(each == found[0] for each in found)


def test_errors_carry_no_path_of_a_record_and_no_content(home: Path, store: Store) -> None:
    ref = store.put_sealed(SECRET, dataset="chat", path="customers/ada", data_class="raw")
    stored(home, ref).write_bytes(SECRET)
    with pytest.raises(PrivetError) as caught:
        store.open_sealed(ref)
    assert "ada" not in str(caught.value)
    assert "Lovelace" not in str(caught.value)
