"""The Privet home: one folder that holds all state, with one owner and one layout number.

Guarantee: a home is made whole or not at all (VERSION.json is written last), a home of another layout or
with loose permissions is refused, and opening one twice from several processes is safe.
Assumption: the folder lies on a local file system with working rename and flock.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.stage import CODE_VERSION
from privacy.canonical import Digest, Json, canonical_json, parse_canonical, parse_json
from privacy.errors import EnvironmentFault, IntegrityError, UsageError
from privacy.signing import Person, SigningKey, TrustRoot

if TYPE_CHECKING:
    from pipeline.approve import ApprovalBook
    from pipeline.key_home import KmsChoice
    from pipeline.store import Store
    from privacy.database import Place
    from privacy.journal import Journal
    from privacy.keys import Keyring
    from privacy.ledger import Ledger
    from privacy.vault import Vault

LAYOUT = 2
PIPELINE = "privet-pipeline"
# The identities of the demo. Their private keys lie in the home, so their signatures prove no person's will.
DEMO_PEOPLE: Mapping[str, tuple[str, ...]] = {
    "demo_engineer": ("engineer",),
    "demo_steward": ("steward",),
    "demo_officer": ("privacy_officer",),
    "demo_auditor": ("auditor",),  # draws the coins of the canaries; enrol a real one, and withdraw this one
}


@dataclass(frozen=True)
class Home:
    """An open home. Parts are opened on first use, so that a task pays only for what it touches."""

    path: Path
    key: SigningKey
    database: str | None = None  # address of the PostgreSQL that holds vault, journal and ledger; None: SQLite files here

    @classmethod
    def create(
        cls, path: Path, demo_identities: bool = False, database: str | None = None, kms: KmsChoice | None = None
    ) -> Home:
        """Make a new home. Raises UsageError E-HOME-004 when one is there, EnvironmentFault E-HOME-005 on I/O faults.

        An address or a key service that can't be meant is refused before anything is written (E-DB-008, E-DB-009, E-KMS-008).
        """
        if database is not None:
            from privacy.postgres import check_address

            check_address(database)
        try:
            with _only_maker(path):
                if (path / "VERSION.json").exists():
                    raise UsageError(
                        "E-HOME-004", "there is a Privet home here already", "Use it as it is, or name another folder"
                    )
                return cls._create(path, demo_identities, database, kms)
        except OSError as error:
            raise EnvironmentFault(
                "E-HOME-005",
                f"the home can't be written ({error.strerror})",
                "Free some space or name a folder you own; running again continues",
            ) from None

    @classmethod
    def _create(cls, path: Path, demo_identities: bool, database: str | None, kms: KmsChoice | None) -> Home:
        from pipeline.key_home import found_keyring

        keys = found_keyring(path, kms)  # first, as it refuses most
        for folder in ("objects", "results", "approvals", "releases", "landing", "identities"):
            (path / folder).mkdir(exist_ok=True, mode=0o700)
        key = _load_or_make_key(path / "pipeline.key")
        people = [Person(PIPELINE, key.public_hex, ("pipeline",))]
        for name, roles in DEMO_PEOPLE.items() if demo_identities else ():
            own = _load_or_make_key(path / "identities" / f"{name}.key")
            people.append(Person(name, own.public_hex, roles, custody="demo"))
        write_new(path / "trust.json", canonical_json(TrustRoot(tuple(people)).to_json()))
        home = cls(path, key, database)
        if home.journal.head() is None:  # a creation that was cut short may have come this far
            home.journal.append("home_created", {"layout": LAYOUT, "trust_root": home.trust.digest, **keys})
        version: dict[str, Json] = {"layout": LAYOUT, "made_by": CODE_VERSION, "database": database}
        write_new(path / "VERSION.json", canonical_json(version))
        return home

    @classmethod
    def open(cls, path: Path) -> Home:
        """Raises UsageError E-HOME-001 (none here), E-HOME-002 (other layout), IntegrityError E-HOME-003 (damaged)."""
        version = path / "VERSION.json"
        if not version.is_file():
            raise UsageError("E-HOME-001", f"there is no Privet home at {path}", "Make one with privet init, or pass --home")
        layout, database = _layout_of(version)
        if layout != LAYOUT:
            age = "older" if layout < LAYOUT else "newer"
            raise UsageError(
                "E-HOME-002",
                f"the home has layout {layout}, which is {age} than this version's {LAYOUT}; nothing in it was touched",
                f"Use the Privet version that made it, or make a new home with privet init; keep {path} as it is",
            )
        home = cls(path, _own_key(path), database)
        known = home.trust.by_name(PIPELINE)
        if known is None or known.public_hex != home.key.public_hex:
            raise IntegrityError(  # before anything is signed with it: an entry of a foreign key would spoil the journal
                "E-HOME-010",
                "pipeline.key is not the key that the trust root lists for the pipeline",
                "Restore pipeline.key and trust.json of the same home",
            )
        return home

    @classmethod
    def open_or_create(cls, path: Path, demo_identities: bool = False) -> Home:
        """Two processes that do so at once end with the same home."""
        if not (path / "VERSION.json").exists():
            try:
                return cls.create(path, demo_identities)
            except UsageError as error:
                if error.code != "E-HOME-004":  # another process made it while we waited for the lock
                    raise
        return cls.open(path)

    def place(self, name: str) -> Place:
        """Where a database of this home lies. In PostgreSQL its schema carries the home's key, so homes can share a server."""
        if self.database is None:
            return self.path / f"{name}.sqlite"
        from privacy.database import PostgresPlace

        return PostgresPlace(self.database, f"privet_{self.key.public_hex[:16]}_{name}")

    @cached_property
    def keyring(self) -> Keyring:
        from pipeline.key_home import open_keyring

        return open_keyring(self)

    @cached_property
    def store(self) -> Store:
        from pipeline.relocate import moves
        from pipeline.store import Store

        def moved() -> set[Digest]:  # what the end of an epoch wrote anew is named by the journal alone
            return {ref.digest for ref in moves(self.journal.entries()).values() if ref is not None}

        return Store(self.path, self.keyring, named_elsewhere=moved)

    @cached_property
    def vault(self) -> Vault:
        from privacy.vault import Vault

        return Vault(self.place("vault"), self.keyring)

    @cached_property
    def journal(self) -> Journal:
        from privacy.journal import Journal

        return Journal(self.place("journal"), self.key)

    @cached_property
    def ledger(self) -> Ledger:
        from privacy.ledger import Ledger

        return Ledger(self.place("ledger"))

    @cached_property
    def approvals(self) -> ApprovalBook:
        from pipeline.approve import ApprovalBook

        return ApprovalBook(self.path / "approvals")

    @property
    def trust(self) -> TrustRoot:
        """Read anew each time: a key withdrawn while a run waits must not count."""
        try:
            return TrustRoot.from_json(parse_canonical(_read(self.path / "trust.json")))
        except IntegrityError as error:
            raise _malformed("trust.json") if error.code.startswith("E-CANON") else error from None

    def journalled_trust(self) -> TrustRoot:
        """The trust root, if it is the one that the journal saw last; for whoever decides by it.

        Raises IntegrityError E-TRUST-003: whoever can write trust.json, and has no key, may have enrolled themselves.
        """
        trust = self.trust
        if trust.digest in _known_trust(self):
            return trust
        with _only_maker(self.path):  # somebody may be enrolling a person right now
            trust = self.trust
            if trust.digest in _known_trust(self):
                return trust
        raise IntegrityError(
            "E-TRUST-003",
            "trust.json was changed by something other than privet identity",
            "Find out who changed it and restore it; enrol and withdraw people with privet identity",
        )

    @property
    def releases_dir(self) -> Path:
        return self.path / "releases"

    @property
    def landing(self) -> Path:
        return self.path / "landing"

    def identity(self, name: str) -> SigningKey:
        """The key of a demo identity. Raises UsageError E-HOME-006: real people keep their keys elsewhere."""
        person = self.trust.by_name(name)
        path = self.path / "identities" / f"{name}.key"
        if person is None or person.custody != "demo" or not path.is_file():
            raise UsageError(
                "E-HOME-006",
                "this home holds no key for that person",
                "Sign where the key is: privet approvals sign ID --as NAME --key FILE",
            )
        return _read_key(path)


def add_person(home: Home, person: Person) -> TrustRoot:
    """Enrol a key holder; the change is journalled with both digests. Cut short and run again, it is completed."""

    def add(people: tuple[Person, ...]) -> tuple[Person, ...]:
        came_so_far = person in people and len(_known_trust(home)) > 1
        return people if came_so_far else (*people, person)

    return _change_trust(home, add, person.name)


def withdraw_person(home: Home, name: str) -> TrustRoot:
    """Take a key holder out: from now on their signatures count nowhere. Raises UsageError E-HOME-011 for nobody's name."""
    if name == PIPELINE or home.trust.by_name(name) is None:
        raise UsageError("E-HOME-011", "there is no such person in the trust root", "See privet identity list")
    return _change_trust(home, lambda people: tuple(p for p in people if p.name != name), name)


def _change_trust(home: Home, change: Callable[[tuple[Person, ...]], tuple[Person, ...]], name: str) -> TrustRoot:
    """Journal first, then the file, then the journal again: a crash between leaves one that `journalled_trust` knows."""
    home.journalled_trust()  # before the lock, which it may need: a doctored trust root must not be made a known one
    with _only_maker(home.path):
        before = home.trust
        if before.digest not in _known_trust(home):
            raise IntegrityError("E-TRUST-003", "trust.json was changed meanwhile", "Run the command again")
        after = TrustRoot(change(before.people))
        facts: dict[str, Json] = {"before": before.digest, "after": after.digest, "person": name}
        home.journal.append("trust_changing", facts)
        _replace(home.path / "trust.json", canonical_json(after.to_json()))
        home.journal.append("trust_changed", facts)
    return after


def _known_trust(home: Home) -> set[Json]:
    """Digests that trust.json may have; two while a change of it is under way."""
    for entry in reversed(home.journal.entries()):
        if entry.kind == "home_created":
            return {entry.facts.get("trust_root")}
        if entry.kind == "trust_changed":
            return {entry.facts.get("after")}
        if entry.kind == "trust_changing":
            return {entry.facts.get("before"), entry.facts.get("after")}
    return set()


@contextmanager
def _only_maker(path: Path) -> Iterator[None]:
    """Make the folder and hold its lock; the kernel frees it when its holder dies."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        path.chmod(0o700)
        yield
    finally:
        os.close(handle)


def _layout_of(version: Path) -> tuple[int, str | None]:
    with suppress(IntegrityError):
        match parse_json(_read(version)):
            case {"layout": int(layout), **rest}:
                match rest.get("database"):
                    case str() | None as database:
                        return layout, database
    raise _malformed("VERSION.json")


def _malformed(name: str) -> IntegrityError:
    return IntegrityError("E-HOME-003", f"{name} of the home is malformed", "Restore it from a backup of this home")


def _own_key(path: Path) -> SigningKey:
    try:
        return _read_key(path / "pipeline.key")
    except UsageError as error:
        raise IntegrityError(error.code, error.cause, "Restore it, mode 0600, from a backup of this home") from None


def _load_or_make_key(path: Path) -> SigningKey:
    if path.exists():
        return _read_key(path)
    key = SigningKey.generate()
    write_key_file(path, key)
    return key


def write_key_file(path: Path, key: SigningKey) -> None:
    """A new 0600 file with the seed in hex, whole or not at all; never overwrites (FileExistsError)."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.new")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(key.export_seed().hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # a rename would overwrite
    finally:
        temporary.unlink(missing_ok=True)


def read_key_file(path: Path) -> SigningKey:
    """Raises UsageError E-HOME-007 when the file is missing, readable by others, or not a key."""
    return _read_key(path)


def _read_key(path: Path) -> SigningKey:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for its writer
        with os.fdopen(handle) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
                return SigningKey(bytes.fromhex(file.read(128).strip()))
        fault = "is not a plain file that only its owner, this user, can read"
    except OSError:
        fault = "can't be read"
    except ValueError:
        fault = "is not an Ed25519 seed in hex"
    raise UsageError("E-HOME-007", f"the key file {path.name} {fault}", "Give a 0600 file made by privet identity new")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(
            "E-HOME-003", f"{path.name} of the home can't be read ({error.strerror})", "Restore the home from a backup"
        ) from None


def write_new(path: Path, data: bytes) -> None:
    if path.exists():
        return
    _replace(path, data)


def _replace(path: Path, data: bytes) -> None:
    """Old or new, whole, after any crash; no other file stays."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
