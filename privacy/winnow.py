"""Finds the spans of a text that stand word for word in few people's records: winnowing, then a look at the record itself.

Guarantee: every window of `signs` normalised characters of a text that stands in at least one and in fewer than `subjects`
people's records is found, and no other is: winnowing leaves no shared window out (a window of w = signs - k + 1 fingerprints
of k = signs // 2 characters always shares its smallest one), and what it points at is compared sign by sign and counted by
person. Case, width, accents, spaces and punctuation do not hide a copy. Texts need no spaces between words (Chinese).
Assumption: an index holds the records it was made of, and lives as long as it is asked; it can't be pickled or written. Its
fingerprints are keyed (BLAKE2b, and a secret multiplier chooses among them), so they tell nothing without the key.
Not covered: paraphrase, translation, letters exchanged for look-alikes, and shorter spans.
Source: Schleimer, Wilkerson and Aiken, "Winnowing: local algorithms for document fingerprinting", SIGMOD 2003, section 3.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]
_BOUND = 0x110000  # stands between records: no text has it
_NONE = 0x110001  # stands beyond the ends of a text: no record has it
_AT_ONCE = 1 << 18  # code points hashed at a time
_POSTINGS_AT_ONCE = 16  # of one fingerprint, in the first look
_WORST = 4096  # postings compared at a time, once the first few did not decide


@dataclass(frozen=True, slots=True)
class Span:
    """Of the normalised text, [start, end). subjects: the most people whose records hold one of its windows."""

    start: int
    end: int
    subjects: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """One text: its windows, and the anchors whose fingerprint the index knows.

    padded: the text with `signs` foreign signs on both sides. first, last: the windows of each anchor. low, high: its postings.
    """

    padded: Codes
    windows: int
    anchors: Places
    first: Places
    last: Places
    low: Places
    high: Places
    enough: int

    def around(self, signs: int, gram: int) -> Codes:
        """uint32 [anchors, gram + 2 (signs - gram)]: each anchor's gram and what a window may hold on both sides of it."""
        reach = signs - gram
        found: Codes = np.lib.stride_tricks.sliding_window_view(self.padded, gram + 2 * reach)[self.anchors + signs - reach]
        return found


class _Signs(dict[int, str]):
    """Code point to its letters and digits without case, width and accents; nothing for what is no letter and no digit."""

    def __missing__(self, code: int) -> str:
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", chr(code)).casefold())
        kept = "".join(sign for sign in folded if sign.isalnum())
        found = self[code] = unicodedata.normalize("NFC", kept)
        return found


_SIGNS = _Signs()


def normalise(text: str) -> str:
    """Letters and digits of `text`, without case, width, accents, spaces and punctuation."""
    if text.isascii():
        return text.translate(_SIGNS)
    return unicodedata.normalize("NFC", text).translate(_SIGNS)


class SpanIndex:
    """The records of many people, to ask which spans of a text stand in few people's.

    Memory: about 20 bytes a normalised character. Building takes about half a second a million characters.
    """

    __slots__ = (
        "_codes",
        "_gram",
        "_key",
        "_later",
        "_macs",
        "_multipliers",
        "_places",
        "_signs",
        "_starts",
        "_subjects",
        "_width",
    )

    def __init__(self, records: Iterable[tuple[str, str]], signs: int, key: bytes) -> None:
        """records: (subject, text). signs: shortest span, at least 2. key: at least 16 secret bytes, drawn for this index."""
        if signs < 2 or len(key) < 16:
            raise ValueError("a span has at least 2 signs, and a key at least 16 bytes")
        self._signs, self._gram = signs, signs // 2
        self._width = signs - self._gram + 1
        self._key = hashlib.blake2b(key, digest_size=32, person=b"privet/winnow/m").digest()
        drawn = hashlib.shake_256(b"privet/winnow/c" + key).digest(8 * self._gram)
        self._multipliers = np.frombuffer(drawn, dtype=np.uint64) | np.uint64(1)
        numbers: dict[str, int] = {}
        parts, starts, owners, length = [_bounds(signs)], [], [], signs
        for subject, text in records:
            codes = _codes(normalise(text))
            if len(codes) < signs:
                continue  # holds no span that is long enough
            parts += [codes, _bounds(1)]
            starts.append(length)
            owners.append(numbers.setdefault(subject, len(numbers)))
            length += len(codes) + 1
        self._codes = np.concatenate([*parts, _bounds(signs)])
        self._starts, self._subjects = np.array(starts, dtype=np.int64), np.array(owners, dtype=np.int64)
        self._keep_postings(self._anchors_of_all())

    def _keep_postings(self, places: Places) -> None:
        """Sorted by fingerprint; of each, one place a person first, then (`later`) the other places of the same people."""
        macs, owners = self._fingerprints(self._codes, places), self._owners(places)
        order = np.lexsort((owners, macs))
        macs, owners, places = macs[order], owners[order], places[order]
        later = np.zeros(len(macs), dtype=np.bool_)
        later[1:] = (macs[1:] == macs[:-1]) & (owners[1:] == owners[:-1])
        order = np.lexsort((later, macs))
        self._macs, self._places, self._later = macs[order], places[order], later[order]

    def _owners(self, places: Places) -> Places:
        found: Places = self._subjects[np.searchsorted(self._starts, places, "right") - 1]
        return found

    def __repr__(self) -> str:
        return f"SpanIndex(records={len(self._starts)}, fingerprints={len(self._macs)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an index of spans is not picklable: it holds people's records")

    def rare_spans(self, text: str, subjects: int) -> tuple[Span, ...]:
        """The spans of `text` that stand in the records of at least one person and of fewer than `subjects`, longest runs."""
        signs, codes = self._signs, _codes(normalise(text))
        windows = len(codes) - signs + 1
        if windows < 1 or not len(self._macs):
            return ()
        anchors = self._anchors(codes)
        chosen, first = np.unique(anchors, return_index=True)
        macs = self._fingerprints(codes, chosen)
        low, high = np.searchsorted(self._macs, macs, "left"), np.searchsorted(self._macs, macs, "right")
        known = np.flatnonzero(high > low)
        if not len(known):
            return ()
        last = np.append(first[1:], windows)
        padded = np.concatenate([np.full(signs, _NONE, np.uint32), codes, np.full(signs, _NONE, np.uint32)])
        asked = _Asked(padded, windows, chosen[known], first[known], last[known], low[known], high[known], subjects)
        counts, open_ones = self._first_look(asked)
        for n in open_ones.tolist():
            run = slice(int(asked.first[n]), int(asked.last[n]))
            counts[run] = self._count(asked, n, run)
        return _runs(counts, signs, subjects)

    def _first_look(self, asked: _Asked) -> tuple[Places, Places]:
        """How many of the first few people hold each window; and the anchors where that decides nothing yet."""
        taken = np.minimum(asked.high - asked.low, _POSTINGS_AT_ONCE)
        row = np.repeat(np.arange(len(taken)), taken)
        posting = np.arange(len(row)) - np.repeat(np.cumsum(taken) - taken, taken) + asked.low[row]
        left, right, whole = self._reach(asked.around(self._signs, self._gram)[row], self._places[posting])
        anchor = asked.anchors[row]
        begin = np.maximum(asked.first[row], anchor - left)
        end = np.minimum(asked.last[row], anchor + self._gram + right - self._signs + 1)
        held = whole & (end > begin) & ~self._later[posting]
        steps = np.bincount(begin[held], minlength=asked.windows + 1) - np.bincount(end[held], minlength=asked.windows + 1)
        counts: Places = np.cumsum(steps)[:-1]
        least = np.minimum.reduceat(np.append(counts, 0), np.stack([asked.first, asked.last], 1).ravel())[::2]
        decided = (taken == asked.high - asked.low) & (np.bincount(row, self._later[posting], len(taken)) == 0)
        return counts, np.flatnonzero(~decided & (least < asked.enough))

    def _count(self, asked: _Asked, n: int, run: slice) -> Places:
        """How many people's records hold each window of `run`; `enough` or more is `enough`. Looks everywhere."""
        offsets = asked.anchors[n] - np.arange(run.start, run.stop)  # of the gram in each window
        around = asked.around(self._signs, self._gram)[n]
        places = self._places[asked.low[n] : asked.high[n]]
        owners = self._owners(places)
        held: list[tuple[Places, npt.NDArray[np.bool_]]] = []
        counts = np.zeros(len(offsets), dtype=np.int64)
        for start in range(0, len(places), _WORST):
            part = slice(start, start + _WORST)
            left, right, whole = self._reach(around, places[part])
            wanted = self._signs - self._gram - offsets
            held.append((owners[part], whole[:, None] & (left[:, None] >= offsets) & (right[:, None] >= wanted)))
            counts = _people(held)
            if int(counts.min()) >= asked.enough:
                break
        return counts

    def _reach(self, around: Codes, places: Places) -> tuple[Places, Places, npt.NDArray[np.bool_]]:
        """How far the records at `places` go on like the text, left and right of the gram, and whether they hold it at all."""
        reach = self._width - 1
        there = np.lib.stride_tricks.sliding_window_view(self._codes, self._gram + 2 * reach)[places - reach]
        same = there == around
        left: Places = np.logical_and.accumulate(same[:, :reach][:, ::-1], axis=1).sum(1)
        right: Places = np.logical_and.accumulate(same[:, reach + self._gram :], axis=1).sum(1)
        return left, right, same[:, reach : reach + self._gram].all(1)

    def _anchors(self, codes: Codes) -> Places:
        """int64 [windows]: where the smallest gram of each window of `signs` signs begins, the first of equal ones."""
        grams = len(codes) - self._gram + 1
        with np.errstate(over="ignore"):
            hashes = np.zeros(grams, dtype=np.uint64)
            for place, multiplier in enumerate(self._multipliers):
                hashes += codes[place : place + grams] * multiplier
        least = np.lib.stride_tricks.sliding_window_view(hashes, self._width).argmin(1)
        found: Places = least + np.arange(len(least))
        return found

    def _anchors_of_all(self) -> Places:
        """Of all records; grams that reach into a bound are left out, since no text has them."""
        found, size = [], len(self._codes)
        for start in range(0, size - self._signs + 1, _AT_ONCE):
            part = self._codes[start : start + _AT_ONCE + self._signs - 1]
            found.append(np.unique(self._anchors(part)) + start)
        places = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
        crossed = np.concatenate([[0], np.cumsum(self._codes >= _BOUND)])
        inside: Places = places[crossed[places + self._gram] == crossed[places]]
        return inside

    def _fingerprints(self, codes: Codes, places: Places) -> npt.NDArray[np.uint64]:
        data, size = codes.tobytes(), 4 * self._gram
        keyed = hashlib.blake2b(key=self._key, digest_size=8)
        made = bytearray()
        for place in (4 * places).tolist():
            one = keyed.copy()
            one.update(data[place : place + size])
            made += one.digest()
        return np.frombuffer(bytes(made), dtype=np.uint64)


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32, copy=False)


def _bounds(count: int) -> Codes:
    return np.full(count, _BOUND, dtype=np.uint32)


def _people(held: list[tuple[Places, npt.NDArray[np.bool_]]]) -> Places:
    """int64 [windows]: different owners among the rows that hold each window."""
    owners, holds = np.concatenate([o for o, _ in held]), np.concatenate([h for _, h in held])
    order = np.argsort(owners, kind="stable")
    owners, holds = owners[order], holds[order]
    firsts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    counts: Places = np.logical_or.reduceat(holds, firsts, axis=0).sum(0)
    return counts


def _runs(counts: Places, signs: int, subjects: int) -> tuple[Span, ...]:
    """Neighbouring windows that are rare, as one span."""
    rare = (counts > 0) & (counts < subjects)
    edges: Any = np.flatnonzero(np.diff(np.concatenate([[0], rare.view(np.int8), [0]])))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return tuple(Span(start, stop + signs - 1, int(counts[start:stop].max())) for start, stop in pairs)
