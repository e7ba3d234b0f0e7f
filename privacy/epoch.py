"""The end of an epoch: survivors get a new wrapping key, and the old one is destroyed with everything still wrapped by it.

Guarantee: the old epoch key is destroyed only when no row is wrapped by it, under a lock that keeps new ones out; killed
at any step, the next call goes on where it stopped; no survivor is ever lost and no erased row comes back. Two
processes may rotate at once.
Assumption: `destroy_epoch` is durable when it returns. Not covered: a keyring restored from before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from privacy.database import Database
from privacy.errors import EnvironmentFault, IntegrityError

_BATCH = 1000


class EpochInfo(Protocol):
    @property
    def epoch(self) -> int: ...
    @property
    def state(self) -> Literal["live", "destroyed"]: ...


class EpochKeys(Protocol):
    """What a rotation needs of a keyring."""

    def wrap(self, domain: str, dek: bytes, context: bytes, /) -> str: ...
    def rewrap(self, wrapped: str, context: bytes, /) -> str: ...
    def new_epoch(self, domain: str, /) -> int: ...
    def destroy_epoch(self, domain: str, epoch: int, /) -> bool: ...
    def epoch_of(self, wrapped: str, /) -> tuple[str, int]: ...
    def epochs(self, domain: str, /) -> Sequence[EpochInfo]: ...


@dataclass(frozen=True, slots=True)
class EpochRotation:
    """`epoch` is the one that lives now; `destroyed` those that this call ended; `rewrapped` keys it took over."""

    dataset: str
    epoch: int
    destroyed: tuple[int, ...]
    rewrapped: int
    resumed: bool


def rotate(database: Database, keys: EpochKeys, dataset: str, bound: Callable[[str], bytes]) -> EpochRotation:
    """bound: the context that a subject's key is wrapped under, by token.

    Raises IntegrityError E-VAULT-004 when wrapped keys can't be taken over; the old epoch then lives on.
    """
    domain = f"{dataset}/vault"
    target, resumed = _begun(database, dataset), True
    if target is None:
        _begin(database, dataset, keys.new_epoch(domain))
        target, resumed = _begun(database, dataset), False
    if target is None:  # another process began a newer epoch after we came, and is through: ours went with the older ones
        return EpochRotation(dataset, max(e.epoch for e in keys.epochs(domain)), (), 0, False)
    rewrapped = _rewrap_all(database, keys, dataset, target, bound)
    destroyed = destroy_older(keys, domain, target)
    _clear(database)
    with database.transaction() as connection:
        connection.execute("UPDATE rotation SET state = 'done' WHERE dataset = ? AND newest = ?", (dataset, target))
    return EpochRotation(dataset, target, destroyed, rewrapped, resumed)


def destroy_older(keys: EpochKeys, domain: str, target: int) -> tuple[int, ...]:
    """Destroy every epoch before `target`; returns those that were alive. Whatever is still needed must be rewrapped before."""
    older = [e for e in keys.epochs(domain) if e.epoch < target]
    # The last one also when it is destroyed already: a destruction cut short is finished by asking for it again.
    asked = [e.epoch for e in older if e.state == "live" or e is older[-1]]
    return tuple(epoch for epoch in asked if keys.destroy_epoch(domain, epoch))


def _begun(database: Database, dataset: str) -> int | None:
    with database.reading() as connection:
        row = connection.execute("SELECT newest FROM rotation WHERE dataset = ? AND state = 'begun'", (dataset,)).fetchone()
    return None if row is None else int(row[0])


def _begin(database: Database, dataset: str, epoch: int) -> None:
    """From this commit on no row of an older epoch can be added (`Vault.put_many` looks)."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO rotation VALUES (?, ?, 'begun') ON CONFLICT (dataset) DO UPDATE "
            "SET newest = excluded.newest, state = 'begun' WHERE excluded.newest > rotation.newest",
            (dataset, epoch),
        )


def _rewrap_all(database: Database, keys: EpochKeys, dataset: str, target: int, bound: Callable[[str], bytes]) -> int:
    """Until no row of an older epoch is left; one pass is enough unless somebody changed rows below our hands."""
    total = 0
    while True:
        rewrapped, damaged = _rewrap(database, keys, dataset, target, bound)
        total += rewrapped
        if damaged:
            raise IntegrityError(
                "E-VAULT-004",
                f"{damaged} keys of the vault are altered and can't be taken into the new epoch; the old one was not destroyed",
                "Restore those rows from a backup of the vault, or erase their subjects, and run again",
            )
        with database.reading() as connection:
            count = "SELECT count(*) FROM subject WHERE dataset = ? AND epoch < ?"
            if not connection.execute(count, (dataset, target)).fetchone()[0]:
                return total


def _rewrap(database: Database, keys: EpochKeys, dataset: str, target: int, bound: Callable[[str], bytes]) -> tuple[int, int]:
    """Batch by batch in the order of tokens; a row that was erased or rewrapped meanwhile is left as it is."""
    rewrapped = damaged = 0
    after = ""
    select = "SELECT token, wrapped FROM subject WHERE dataset = ? AND epoch < ? AND token > ? ORDER BY token LIMIT ?"
    while True:
        with database.reading() as connection:
            rows = connection.execute(select, (dataset, target, after, _BATCH)).fetchall()
        if not rows:
            return rewrapped, damaged
        after = str(rows[-1][0])
        moved: list[tuple[str, int, str, str, str]] = []
        for token, old in rows:
            try:
                new = keys.rewrap(old, bound(token))
            except IntegrityError as error:
                if error.code != "E-KEY-005":
                    raise
                damaged += 1
                continue
            moved.append((new, keys.epoch_of(new)[1], dataset, token, old))
        with database.transaction() as connection:
            for row in moved:
                rewrapped += connection.execute(
                    "UPDATE subject SET wrapped = ?, epoch = ? WHERE dataset = ? AND token = ? AND wrapped = ?", row
                ).rowcount


def _clear(database: Database) -> None:
    """The bytes are worthless already; this takes them out of the live files, and is no part of the guarantee."""
    with suppress(EnvironmentFault), database.outside_transaction() as connection:
        if database.dialect == "sqlite":
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            for table in ("subject", "original", "salt"):
                connection.execute(f"VACUUM FULL {table}")
