"""The bundle folder: read without trusting it, written whole or not at all.

Guarantee of reading: only regular files with a known name are opened (never through a link), and nothing of
unbounded size is kept in memory. Guarantee of writing: the folder `bundle` is always one complete release.
Not covered: file modes and dates, which carry no meaning here.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from pipeline.evidence import EVIDENCE_FILES, EvidenceFile, read_evidence
from privacy.canonical import Digest, Json, digest_bytes, parse_canonical
from privacy.errors import EnvironmentFault, IntegrityError, UsageError

EVIDENCE_LIST: Final = "evidence.json"
RELEASE_STATEMENT: Final = "release.dsse.json"
_APPROVAL = re.compile(r"approvals/(use|release|delegation)-[0-9a-f]{16}\.dsse\.json")
_FOLDERS: Final = frozenset({"approvals", "audit", "model", "proofs", "statements"})
_KEPT: Final = (".json", ".tlog-proof", "CARD.md", ".html")
_MEBIBYTE: Final = 1_048_576
# What an honest bundle stays far below, and what a hostile one may cost in time and memory. First match counts.
_MAX_BYTES: Final[tuple[tuple[str, int], ...]] = (
    (r"approvals/.*", _MEBIBYTE // 16),
    (r".*\.dsse\.json", _MEBIBYTE),
    (r"trust\.json", _MEBIBYTE // 4),
    (r"proofs/.*", _MEBIBYTE // 4),
    (r"journal\.json", 16 * _MEBIBYTE),
    (r".*\.json", 4 * _MEBIBYTE),
    (r"CARD\.md", _MEBIBYTE),
    (r".*\.html", 16 * _MEBIBYTE),
    (r"model\.safetensors", 8192 * _MEBIBYTE),
    (r".*", 64 * _MEBIBYTE),
)
_MAX_APPROVALS: Final = 100
_CHUNK: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class BundleView:
    """What a bundle holds: digest and size of every file, and the bytes of JSON files, proofs, pages and the card."""

    files: Mapping[str, EvidenceFile]
    texts: Mapping[str, bytes]

    def json(self, path: str) -> Json:
        """Raises IntegrityError E-BUNDLE-003 (missing) or E-BUNDLE-006 (not canonical); both name the file."""
        data = self.texts.get(path)
        if data is None:
            raise _missing(path)
        try:
            return parse_canonical(data)
        except IntegrityError:
            raise IntegrityError(
                "E-BUNDLE-006", f"{path} is not canonical JSON", "Get the bundle again from its source"
            ) from None

    @property
    def approvals(self) -> tuple[str, ...]:
        """Decisions at the gates, and the delegations that lent roles for them."""
        return tuple(sorted(path for path in self.files if _APPROVAL.fullmatch(path)))


def approval_path(gate: str, envelope: bytes) -> str:
    """gate: use or release, or "delegation" for the envelope that lends a role."""
    return f"approvals/{gate}-{digest_bytes(envelope).removeprefix('sha256:')[:16]}.dsse.json"


def view_of(files: Mapping[str, bytes], streamed: Iterable[EvidenceFile] = ()) -> BundleView:
    """A view of files in memory; `streamed` names those whose bytes stay where they are."""
    known = {path: EvidenceFile(path, digest_bytes(data), len(data)) for path, data in files.items()}
    known |= {file.path: file for file in streamed}
    return BundleView(known, {path: data for path, data in files.items() if path.endswith(_KEPT)})


def read_bundle(folder: Path) -> BundleView:
    """Read a folder somebody handed over.

    Raises UsageError E-BUNDLE-001 (no folder), IntegrityError E-BUNDLE-002 (unknown file), E-BUNDLE-004 (link or
    other special file), E-BUNDLE-005 (too large), E-CLAIM-001 (not of the listed size: told before anything large is
    read). Missing files are the verifier's to report.
    """
    require_folder(folder)
    files: dict[str, EvidenceFile] = {}
    texts: dict[str, bytes] = {}
    paths = _walk(folder)
    _refuse_other_sizes(folder, paths)
    for path in paths:
        file, data = _read_file(folder, path)
        files[path] = file
        if data is not None:
            texts[path] = data
    return BundleView(files, texts)


def require_folder(folder: Path) -> None:
    try:
        found = folder.is_dir() and not folder.is_symlink()
    except (OSError, ValueError):  # a name that is too long or holds a NUL, a folder above that can't be searched
        found = False
    if not found:
        raise UsageError("E-BUNDLE-001", f"there is no bundle folder at {folder}", "Give the path of a bundle folder")


def known_name(path: str) -> bool:
    return path in EVIDENCE_FILES or path in (EVIDENCE_LIST, RELEASE_STATEMENT) or _APPROVAL.fullmatch(path) is not None


def _refuse_other_sizes(folder: Path, paths: list[str]) -> None:
    if EVIDENCE_LIST not in paths:
        return  # the verifier says that it is missing
    data = _read_file(folder, EVIDENCE_LIST)[1] or b""
    listed = {file.path: file.size for file in read_evidence(view_of({EVIDENCE_LIST: data}).json(EVIDENCE_LIST))[1]}
    for path in paths:
        if listed.get(path, size := (folder / path).lstat().st_size) != size:
            raise IntegrityError(
                "E-CLAIM-001",
                f"{path} is not the file that the evidence root covers",
                "Get the bundle again from its source; if it stays so, it was altered",
            )


def _walk(folder: Path) -> list[str]:
    found: list[str] = []
    approvals = 0
    pending = [""]
    while pending:
        inside = pending.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_dir(follow_symlinks=False) and path in _FOLDERS:
                    pending.append(path)
                elif not entry.is_file(follow_symlinks=False) and (known_name(path) or path in _FOLDERS):
                    raise IntegrityError(
                        "E-BUNDLE-004", f"{path} is a link or a special file", "Get the bundle again from its source"
                    )
                elif not known_name(path):
                    name = path.encode("ascii", "backslashreplace").decode()[:120]
                    raise IntegrityError(
                        "E-BUNDLE-002", f"{name!r} does not belong to a bundle", "Get the bundle again from its source"
                    )
                else:
                    found.append(path)
                    approvals += path.startswith("approvals/")
                    if approvals > _MAX_APPROVALS:
                        raise IntegrityError(
                            "E-BUNDLE-005", f"there are over {_MAX_APPROVALS} approvals", "Get the bundle again from its source"
                        )
    return sorted(found)


def _read_file(folder: Path, path: str) -> tuple[EvidenceFile, bytes | None]:
    """Digest and size; the bytes too of what is kept."""
    keep = path.endswith(_KEPT)
    limit = next(size for pattern, size in _MAX_BYTES if re.fullmatch(pattern, path))
    hasher = hashlib.sha256()
    kept = bytearray()
    size = 0
    try:
        handle = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise IntegrityError("E-BUNDLE-004", f"{path} is a special file", "Get the bundle again from its source")
            if status.st_size > limit:
                raise _too_large(path)
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
                size += len(chunk)
                if keep:
                    kept += chunk
                if size > limit:  # it grew while it was read
                    raise _too_large(path)
    except OSError as error:
        raise IntegrityError(
            "E-BUNDLE-004", f"{path} can't be read ({error.strerror})", "Get the bundle again from its source"
        ) from None
    return EvidenceFile(path, "sha256:" + hasher.hexdigest(), size), bytes(kept) if keep else None


def write_files(folder: Path, files: Mapping[str, bytes], streams: Mapping[str, Callable[[], BinaryIO]]) -> None:
    """Write a new folder, flushed to disk; `streams` are copied piece by piece.

    Raises EnvironmentFault E-BUNDLE-007 (disk full, no permission), leaving nothing behind.
    """
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        openers: dict[str, Callable[[], BinaryIO]] = {path: partial(io.BytesIO, data) for path, data in files.items()}
        openers |= streams
        for path, opener in openers.items():
            target = folder / path
            target.parent.mkdir(exist_ok=True, mode=0o700)
            with opener() as source, _new_file(target) as file:
                shutil.copyfileobj(source, file, _CHUNK)
                file.flush()
                os.fsync(file.fileno())
        for inside in sorted({(folder / path).parent for path in openers}):
            sync_folder(inside)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise EnvironmentFault(
            "E-BUNDLE-007",
            f"the bundle can't be written ({error.strerror})",
            "Free some space; running again continues, and nothing half-written was left",
        ) from None


def install(temporary: Path, folder: Path, old_root: Digest | None) -> None:
    """Put a written bundle in its place; an older one is kept beside it, named after its root."""
    if folder.exists():
        name = "unknown" if old_root is None else old_root.removeprefix("sha256:")[:12]
        folder.rename(_free_name(folder.parent, f"{folder.name}-{name}"))
    temporary.rename(folder)
    sync_folder(folder.parent)


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _free_name(parent: Path, name: str) -> Path:
    candidate = parent / name
    count = 2
    while candidate.exists():
        candidate = parent / f"{name}-{count}"
        count += 1
    return candidate


def _new_file(path: Path) -> BinaryIO:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    return os.fdopen(handle, "wb")


def _too_large(path: str) -> IntegrityError:
    return IntegrityError("E-BUNDLE-005", f"{path} is too large", "Get the bundle again from its source")


def _missing(path: str) -> IntegrityError:
    return IntegrityError("E-BUNDLE-003", f"{path} is missing", "Get the bundle again from its source")
