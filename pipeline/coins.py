"""Sets of canary coins that an auditor draws ahead of training, sealed in the home; each serves one training, once.

Guarantee: a training gets coins only from a set whose signed commitment opens against the journalled trust root, made by an
auditor who is neither the pipeline nor the requester; the use is journalled, under a lock, before the training reserves
anything, so no two trainings get one set. A set whose training ended is shredded; a training that is killed before its first
leased step gets the same set again, after that its coins lie in its checkpoint.
Assumption: all trainings of a home share its file system. Not covered: the trainer opens the coins, as it has to train with
them; a home with demo identities draws by itself with the demo auditor's key, which proves no auditor's will.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.coin_claims import AUDITOR_ROLE, USED, Drawn, coins_envelope, coins_fault, commitment_of, open_coins, opening
from pipeline.evidence import is_pipeline
from pipeline.home import write_new
from pipeline.provisional import keep
from pipeline.stage import ArtifactRef, StageContext
from privacy.canonical import Digest, Json, canonical_json, parse_canonical
from privacy.errors import EnvironmentFault, GateClosed, IntegrityError, PrivetError, UsageError
from privacy.signing import SigningKey, TrustRoot

if TYPE_CHECKING:
    from pipeline.home import Home
    from training.canaries import CanaryCoins

DRAWN = "canary_coins"  # kind of the journal entry that makes a set known
DATASET, DATA_CLASS = "audit", "coins"
_MOST_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class CoinSet:
    """One set that the journal knows. envelope: digest of the signed commitment."""

    commitment: Digest
    canaries: int
    drawn_by: str
    envelope: Digest
    used: bool


@dataclass(frozen=True, slots=True, repr=False)
class Claimed:
    """Coins that one training may use, and who vouches for them."""

    coins: CanaryCoins
    envelope: bytes


class CoinSource:
    """Where one training gets its coins: from an auditor's sets, or from the pipeline itself where the policy says so."""

    def __init__(self, ctx: StageContext, ledger_key: str, unspent: bool, resumed: bool) -> None:
        """unspent: see `claim`. resumed: the training goes on from a checkpoint, which has its coins."""
        self._ctx, self._key, self._unspent, self._resumed = ctx, ledger_key, unspent, resumed
        self._by_auditor = ctx.policy.audit.coins == "auditor"
        self._claimed: Claimed | None = None

    def secure(self) -> None:
        """Before anything is reserved. Raises what `claim` raises."""
        if self._by_auditor and not self._resumed:
            self._claimed = claim(self._ctx, self._key, self._unspent)

    def toss(self, canaries: int) -> CanaryCoins:
        from training.canaries import CanaryCoins

        if not self._by_auditor:
            return CanaryCoins.toss(canaries)
        if self._claimed is None or len(self._claimed.coins.coins) != canaries:
            raise _none_left(self._ctx)
        return self._claimed.coins

    def announce(self, commitment: Digest) -> None:
        """The use of an auditor's set is in the journal since it was claimed."""
        if not self._by_auditor:
            _announce_own(self._ctx, self._key, commitment)


def draw(home: Home, name: str, key: SigningKey, count: int, canaries: int, now: datetime) -> list[Digest]:
    """Draw `count` sets, each sealed, signed and journalled. Returns their commitments.

    Raises UsageError E-AUDIT-011 (not an auditor with this key), E-AUDIT-012 (numbers that no policy has).
    """
    person = home.journalled_trust().by_name(name)
    if person is None or person.public_hex != key.public_hex or AUDITOR_ROLE not in person.roles or is_pipeline(person):
        raise UsageError(
            "E-AUDIT-011",
            "the trust root does not list an auditor of this name with this key",
            "Enrol one: privet identity enrol NAME --public HEX --role auditor",
        )
    if not (1 <= count <= _MOST_AT_ONCE and 20 <= canaries <= 20_000):
        raise UsageError(
            "E-AUDIT-012",
            f"there is no policy with so few or so many canaries, or more than {_MOST_AT_ONCE} sets were asked for at once",
            "Give the number that audit.canaries of the policy says",
        )
    return [_draw(home, name, key, canaries, now) for _ in range(count)]


def _draw(home: Home, name: str, key: SigningKey, canaries: int, now: datetime) -> Digest:
    """The journal comes last: a set that it does not know is none."""
    from training.canaries import CanaryCoins

    coins = CanaryCoins.toss(canaries)
    commitment = coins.commitment
    pointer = _pointer(home, commitment)
    path = f"coins/{pointer.stem}"
    ref = home.store.put_sealed(
        canonical_json(opening_of(coins)), dataset=DATASET, path=path, data_class=DATA_CLASS, version=commitment
    )
    with _disk_faults():
        write_new(pointer, canonical_json(ref.to_json()))
    keep([ref])
    envelope = coins_envelope(key, home.key.public_hex, commitment, canaries, now)
    home.journal.append(
        DRAWN, {"commitment": commitment, "canaries": canaries, "drawn_by": name, "envelope": keep_envelope(home, envelope)}
    )
    return commitment


def opening_of(coins: CanaryCoins) -> dict[str, Json]:
    return opening(coins.salt, np.packbits(coins.coins).tobytes(), len(coins.coins))


def keep_envelope(home: Home, envelope: bytes) -> Digest:
    """It says nothing about the coins, so it lies in the clear."""
    return home.store.put_plain(envelope, dataset=DATASET, path="coins", data_class="evidence").digest


def sets(home: Home) -> list[CoinSet]:
    """Every set, in the order in which it was drawn."""
    entries = home.journal.entries()
    used = {e.facts.get("commitment") for e in entries if e.kind == USED}
    found = []
    for entry in entries:
        match entry.facts:
            case {"commitment": str(commitment), "canaries": int(canaries), "drawn_by": str(by), "envelope": str(envelope)}:
                if entry.kind == DRAWN:
                    found.append(CoinSet(commitment, canaries, by, envelope, commitment in used))
    return found


def claim(ctx: StageContext, ledger_key: str, unspent: bool) -> Claimed:
    """The first unused set that may serve this training; its use is in the journal when this returns.

    unspent: no step was ever leased under `ledger_key`, so a set that an attempt of it claimed and never used counts still.
    Raises GateClosed E-AUDIT-010 when there is none, IntegrityError E-AUDIT-013 (a sealed set is not the one committed to).
    """
    home = ctx.home
    trust = home.journalled_trust()
    with _only_claimer(home):
        standing = _standing(ctx, trust, ledger_key) if unspent else None
        if standing is not None:
            return standing
        found = _first(ctx, trust) or (_first(ctx, trust) if _draw_as_demo(ctx, trust) else None)
        if found is None:
            raise _none_left(ctx)
        one, claimed = found
        facts: dict[str, Json] = {"run": ctx.run_id, "ledger_key": ledger_key, "commitment": one.commitment}
        home.journal.append(USED, facts | {"drawn_by": one.drawn_by, "envelope": one.envelope})
        return claimed


def _announce_own(ctx: StageContext, ledger_key: str, commitment: Digest) -> None:
    """For a policy that has the pipeline draw the coins: it signs and journals them itself."""
    envelope = coins_envelope(ctx.home.key, ctx.home.key.public_hex, commitment, ctx.policy.audit.canaries, ctx.clock())
    facts: dict[str, Json] = {"run": ctx.run_id, "ledger_key": ledger_key, "commitment": commitment}
    ctx.home.journal.append(USED, facts | {"drawn_by": "pipeline", "envelope": keep_envelope(ctx.home, envelope)})


def envelope_of(home: Home, commitment: Digest) -> bytes:
    """The signed commitment that the journal names for the use of these coins. Raises IntegrityError E-AUDIT-014."""
    for entry in home.journal.entries():
        named = entry.facts.get("envelope")
        if entry.kind == USED and entry.facts.get("commitment") == commitment and isinstance(named, str):
            return home.store.get_plain(named)
    raise IntegrityError(
        "E-AUDIT-014",
        "the journal names no signed commitment to the coins of this training",
        "Change the policy and ask for a new use approval; what was leased stays charged",
    )


def retire(home: Home, commitment: object) -> None:
    """After its training: nobody needs the sealed set any more."""
    if isinstance(commitment, str):
        pointer = _pointer(home, commitment)
        ref = _ref(pointer)
        if ref is not None:
            home.store.shred(ref)
            pointer.unlink(missing_ok=True)


def _standing(ctx: StageContext, trust: TrustRoot, ledger_key: str) -> Claimed | None:
    """What an attempt that was killed before its first leased step had claimed."""
    for entry in reversed(ctx.home.journal.entries()):
        if entry.kind == USED and entry.facts.get("ledger_key") == ledger_key:
            commitment = entry.facts.get("commitment")
            one = next((s for s in sets(ctx.home) if s.commitment == commitment), None)
            return None if one is None else _opened(ctx, trust, one)
    return None


def _first(ctx: StageContext, trust: TrustRoot) -> tuple[CoinSet, Claimed] | None:
    for one in sets(ctx.home):
        if not one.used and one.canaries == ctx.policy.audit.canaries:
            claimed = _opened(ctx, trust, one)
            if claimed is not None:
                return one, claimed
    return None


def _opened(ctx: StageContext, trust: TrustRoot, one: CoinSet) -> Claimed | None:
    """None for a set that may not serve this training, or whose drawing was never finished."""
    envelope = ctx.home.store.get_plain(one.envelope)
    try:
        drawn = open_coins(envelope, trust)
    except PrivetError:  # of somebody withdrawn since
        return None
    if drawn.commitment != one.commitment or refusal(ctx, drawn) is not None:
        return None
    ref = _ref(_pointer(ctx.home, one.commitment))
    return None if ref is None else Claimed(_read(ctx.home, ref, one.commitment), envelope)


def refusal(ctx: StageContext, drawn: Drawn) -> str | None:
    """By the verifier's own rule."""
    audit = ctx.policy.audit
    return coins_fault(drawn, audit.coins, ctx.requested_by, ctx.home.key.public_hex, audit.canaries)


def _read(home: Home, ref: ArtifactRef, commitment: Digest) -> CanaryCoins:
    from training.canaries import CanaryCoins

    revealed = parse_canonical(home.store.read_sealed(ref))
    if commitment_of(revealed) == commitment:
        match revealed:
            case {"canaries": int(canaries), "drawn": str(drawn), "salt": str(salt)}:
                bits = np.unpackbits(np.frombuffer(bytes.fromhex(drawn), dtype=np.uint8))[:canaries]
                return CanaryCoins(bits.astype(np.bool_), bytes.fromhex(salt))
    raise IntegrityError(
        "E-AUDIT-013", "a sealed set of coins is not the one that was committed to", "Draw new ones with privet audit coins"
    )


def _draw_as_demo(ctx: StageContext, trust: TrustRoot) -> bool:
    """Like the demo's signatures at the gates: it shows how it works, and proves nobody's will. A real auditor's place is
    the role `auditor` in the trust root; withdraw the demo identity then."""
    for person in trust.people:
        if person.custody == "demo" and AUDITOR_ROLE in person.roles and person.name != ctx.requested_by:
            key = ctx.home.identity(person.name)
            draw(ctx.home, person.name, key, 1, ctx.policy.audit.canaries, ctx.clock())
            return True
    return False


def _none_left(ctx: StageContext) -> GateClosed:
    canaries = ctx.policy.audit.canaries
    unfit = [s for s in sets(ctx.home) if not s.used and s.canaries == canaries]
    what = f"{len(unfit)} sets of {canaries} coins are left, and none" if unfit else f"no set of {canaries} coins"
    return GateClosed(
        "E-AUDIT-010",
        f"{what} that an auditor other than the requester drew can serve this training; nothing was reserved",
        f"An auditor draws some: privet audit coins --as NAME --count 10 --canaries {canaries}",
    )


def _pointer(home: Home, commitment: Digest) -> Path:
    folder = home.path / "coins"
    with _disk_faults():
        folder.mkdir(exist_ok=True, mode=0o700)
    return folder / f"{commitment.removeprefix('sha256:')}.json"


def _ref(pointer: Path) -> ArtifactRef | None:
    try:
        return ArtifactRef.from_json(parse_canonical(pointer.read_bytes()))
    except FileNotFoundError:
        return None


@contextmanager
def _only_claimer(home: Home) -> Iterator[None]:
    """The kernel frees it when its holder dies."""
    folder = _pointer(home, "sha256:").parent
    with _disk_faults():
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(
            "E-AUDIT-015", f"the folder of the coins can't be used ({error.strerror})", "Free some space and run again"
        ) from None


def left(found: Sequence[CoinSet]) -> dict[int, int]:
    """Unused sets by their number of canaries."""
    counts: dict[int, int] = {}
    for one in found:
        if not one.used:
            counts[one.canaries] = counts.get(one.canaries, 0) + 1
    return dict(sorted(counts.items()))
