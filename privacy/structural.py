"""The structural lane: every pattern over many texts in one pass, then the exact pattern, its checksum and its vetoes.

Guarantee: findings are the same with and without hyperscan, for any split of the input into batches, and for texts that hold
line breaks: the pass only says in which text which rule is worth running, by an expression that matches wherever the rule
does (`recognizers.prefilter`); what is found is decided by the rule's own pattern and check, over the text alone. A text is
looked at again with its findings masked until nothing more is found, so that de-identifying twice changes nothing.
Time grows with the length of the text and never with its content: all patterns are bounded, and a text of over WINDOW
characters is read in windows with MARGIN characters of context on both sides, more than any pattern spans.
Not covered: in such a text a value said in one window with a cue is not looked for in the others, and that a second pass
changes nothing is tested there, not shown by construction.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from privacy.findings import Finding, complete, settled
from privacy.recognizers.prefilter import SEPARATOR, loosen, reach, shortest
from privacy.recognizers.spec import Recognizer
from privacy.recognizers.view import MASK, PLACEHOLDER, View, has_han, looks_like_log, view_of

if TYPE_CHECKING:
    import hyperscan

WINDOW = 65_536
MARGIN = 8_704
ROUNDS = 6  # each round finds only what the round before laid bare; more than three were never seen
_CHUNK = 1 << 18  # characters of one pass: bounds memory, and keeps the bytes in the cache
_COMPILE_AFTER = 300_000  # characters read before the engine is worth the seconds that its compilation takes
_RULE_BITS = 16
_RULE_MASK = (1 << _RULE_BITS) - 1

# Rule, lowest and highest offset of a character where the pass saw it end (None: not known), in rising order of rules.
Seen = Sequence[tuple[int, int, int | None]]
Hits = Iterator[tuple[int, Seen]]  # of the texts of a list in which anything was seen


class StructuralLane:
    """Runs `recognizers` over texts.

    engine: `hyperscan`, `python`, or None for whichever is there and pays off. accepts: whether a finding of a text counts.
    """

    def __init__(
        self,
        recognizers: Sequence[Recognizer],
        score_threshold: float = 0.0,
        engine: str | None = None,
        accepts: Callable[[str, Finding], bool] | None = None,
    ) -> None:
        self._accepts = accepts
        self._recognizers = tuple(recognizers)
        self._threshold = score_threshold
        self._facts = [_facts(recognizer) for recognizer in self._recognizers]
        self._sharing = {machine: _sharing(self._recognizers, machine) for machine in (False, True)}
        self._leaders = frozenset(leader for sharing in self._sharing.values() for leader in sharing)
        self._engine = engine
        self._read = 0
        self._databases: dict[tuple[bool, bool], _Database] = {}

    def analyze_batch(self, texts: Sequence[str], known: Sequence[Sequence[Finding]] | None = None) -> list[list[Finding]]:
        """Findings of each text on top of `known` ones (resolved already), which are kept and not searched again."""
        found: list[list[Finding]] = [list(k) for k in known] if known is not None else [[] for _ in texts]
        short: Sequence[int] = range(len(texts))
        if max(map(len, texts), default=0) > WINDOW:
            short = [index for index in short if len(texts[index]) <= WINDOW]
            for index, text in enumerate(texts):
                if len(text) > WINDOW:
                    self._long(text, found[index])
        if short:
            self._rounds(texts, short, found, None)
        return found

    def _rounds(self, texts: Sequence[str], indexes: Sequence[int], found: list[list[Finding]], log: bool | None) -> None:
        """Fill `found` for the texts of `indexes`, round after round."""
        for _ in range(ROUNDS):
            again: list[int] = []
            for part in _parts(texts, indexes):
                self._round(texts, part, found, log, again)
            if not again:
                return
            indexes = again

    def _round(
        self, texts: Sequence[str], indexes: Sequence[int], found: list[list[Finding]], log: bool | None, again: list[int]
    ) -> None:
        """One look at the texts of `indexes`; those with new findings go to `again`."""
        views: dict[int, View] = {}
        bodies: tuple[list[str], list[str]] = ([], [])
        owners: tuple[list[int], list[int]] = ([], [])
        for index in indexes:
            body = texts[index]
            known = found[index]
            if not body.isascii() or ("<" in body and PLACEHOLDER.search(body)):
                view = views[index] = view_of(body, [(f.start, f.end) for f in known], log)
                body = view.text
            elif known:
                body = _masked(body, known)
            machine = looks_like_log(body) if log is None else log
            bodies[machine].append(body)
            owners[machine].append(index)
        for machine, held in zip((False, True), bodies, strict=True):
            for position, rules in self._hits(held, machine):
                index = owners[machine][position]
                known = found[index]
                view = views.get(index) or View(held[position], None, machine, [f[:2] for f in known] if known else ())
                fresh = self._confirm(texts[index], view, rules, known)
                if fresh:
                    found[index] = sorted(known + fresh, key=_start) if known else fresh
                    again.append(index)

    def _confirm(self, text: str, view: View, rules: Seen, found: list[Finding]) -> list[Finding]:
        scanned: list[Finding] = []
        facts, leaders = self._facts, self._leaders
        for asked in rules:
            if asked[0] in leaders:
                rules = self._asked(view, rules)
                break
        for rule, first, last in rules:
            confirm, span, least, said = facts[rule]
            if last is None:
                spans = confirm(view)
            else:  # every match ends where the pass saw it or later, and spans no more than its reach
                spans = confirm(view, first - span if first > span else 0, last - least, last + span)
            if spans:
                self._keep(view, spans, said, scanned)
        if not scanned:
            return scanned
        if self._accepts is not None:
            scanned = [finding for finding in scanned if self._accepts(text, finding)]
        if not found and (plain := settled(text, scanned)) is not None:
            return plain
        return complete(text, scanned, found)

    def _keep(self, view: View, spans: list[tuple[int, int, float]], said: _Said, scanned: list[Finding]) -> None:
        entity, name, version, reason = said
        for start, end, score in spans:
            if score >= self._threshold:
                if view.shifts:
                    start, end = view.original(start, end)
                scanned.append(Finding(start, end, entity, score, name, version, reason))

    def _asked(self, view: View, rules: Seen) -> Seen:
        """`rules`, and those that the pass looked for by the same patterns; without any such group that is idle here."""
        sharing = self._sharing[view.log]
        asked: list[tuple[int, int, int | None]] = []
        for rule, first, last in rules:
            if last is None or rule not in sharing:
                asked.append((rule, first, last))
            elif not self._recognizers[rule].idle(view):
                asked += [(rule, first, last), *((other, first, last) for other in sharing[rule])]
        return sorted(asked)

    def _hits(self, bodies: Sequence[str], machine: bool) -> Hits:
        if not bodies:
            return iter(())
        self._read += sum(map(len, bodies))
        engine = self._engine
        if engine is None:
            engine = "hyperscan" if self._read > _COMPILE_AFTER and has_hyperscan() else "python"
        if engine == "python":
            return _python_hits(self._recognizers, bodies, machine)
        plain = "".join(bodies).isascii()
        hits = self._database(machine, False).hits(bodies, plain)
        chinese = [] if plain else [position for position, body in enumerate(bodies) if has_han(body)]
        if not chinese:
            return hits
        more = self._database(machine, True).hits([bodies[position] for position in chinese], False)
        return _together(hits, ((chinese[position], seen) for position, seen in more))

    def _database(self, machine: bool, han: bool) -> _Database:
        """Kept by the lane: hashing all rules to find it takes longer than reading a thousand lines."""
        if (machine, han) not in self._databases:
            self._databases[machine, han] = _database(self._recognizers, machine, han)
        return self._databases[machine, han]

    def _long(self, text: str, found: list[Finding]) -> None:
        """Windows, each read like a text; a finding belongs to the window in whose core it starts."""
        for shift in range(ROUNDS):
            fresh = 0
            log = looks_like_log(view_of(text[:WINDOW], [(f.start, f.end) for f in found if f.end <= WINDOW]).text)
            begin = -(WINDOW // 2) * (shift % 2)
            for core in range(begin, len(text), WINDOW):
                low, high = max(0, core - MARGIN), min(len(text), core + WINDOW + MARGIN)
                inside = _between(found, low, high)
                result = [[_moved(f, -low) for f in inside]]
                self._rounds([text[low:high]], [0], result, log)
                fresh += _merge(found, [_moved(f, low) for f in result[0]], core, core + WINDOW)
            if not fresh:
                return


def has_hyperscan() -> bool:
    return importlib.util.find_spec("hyperscan") is not None


def _parts(texts: Sequence[str], indexes: Sequence[int]) -> Iterator[Sequence[int]]:
    """`indexes` in runs of about _CHUNK characters of text."""
    sizes = list(accumulate([len(texts[index]) + 1 for index in indexes]))
    begin = 0
    while begin < len(sizes):
        end = bisect_right(sizes, (sizes[begin - 1] if begin else 0) + _CHUNK) + 1
        yield indexes[begin:end]
        begin = end


def _python_hits(recognizers: Sequence[Recognizer], bodies: Sequence[str], machine: bool) -> Hits:
    """Every rule whose cheap gates a text passes."""
    rules = list(enumerate(recognizers))
    for position, body in enumerate(bodies):
        view = View(body, None, machine)
        lower, digits = view.lower, view.digits
        chosen: Seen = [
            (number, 0, None)
            for number, rule in rules
            if digits >= rule.digits and (not rule.words or any(word in lower for word in rule.words))
        ]
        if chosen:
            yield position, chosen


class _Database:
    """The loosened patterns, compiled: of the rules for texts with Chinese signs or of all others, and without those for
    conversation only where `machine` wrote the texts."""

    def __init__(self, recognizers: Sequence[Recognizer], machine: bool, han: bool) -> None:
        import hyperscan

        shared = {number for others in _sharing(recognizers, machine).values() for number in others}
        chosen = []
        for number, rule in enumerate(recognizers):
            if rule.han == han and not (machine and rule.conversation_only) and number not in shared:
                chosen += [(number, loosen(pattern).encode()) for pattern in rule.sought(machine)]
        self._database: hyperscan.Database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=[expression for _, expression in chosen],
            ids=[number for number, _ in chosen],
            flags=[hyperscan.HS_FLAG_PREFILTER] * len(chosen),
        )
        self._lock = threading.Lock()  # one scratch space a database, and the scan lets other threads run

    def hits(self, bodies: Sequence[str], plain: bool) -> Hits:
        """Offsets are counted in bytes; the surplus of bytes over characters widens the range to one that holds for both.

        plain: whether all characters are ASCII.
        """
        chunk, ends, surplus = _joined(bodies, plain)
        pairs: list[int] = []
        add = pairs.append

        def on_match(rule: int, start: int, end: int, flags: int, context: object) -> None:
            add(end << _RULE_BITS | rule)

        with self._lock:
            self._database.scan(chunk, match_event_handler=on_match)
        at = current = 0
        pairs.append(1 << 62)
        size = len(pairs) - 1
        while at < size:
            current = bisect_left(ends, pairs[at] >> _RULE_BITS, current)
            begin, stop = ends[current - 1] if current else 1, (ends[current] + 1) << _RULE_BITS
            spare = begin + (surplus[current] if surplus else 0)
            pair = pairs[at]
            at += 1
            rule, last = pair & _RULE_MASK, pair >> _RULE_BITS
            if pairs[at] >= stop:  # the usual case
                yield current, [(rule, last - spare, last - begin)]
                continue
            seen = {rule: (rule, last - spare, last - begin)}
            while (pair := pairs[at]) < stop:
                rule, last = pair & _RULE_MASK, pair >> _RULE_BITS
                held = seen.get(rule)
                seen[rule] = (rule, held[1] if held else last - spare, last - begin)
                at += 1
            yield current, sorted(seen.values())


@lru_cache(maxsize=8)
def _database(recognizers: tuple[Recognizer, ...], machine: bool, han: bool) -> _Database:
    return _Database(recognizers, machine, han)


def _together(hits: Hits, more: Hits) -> Hits:
    """Both, by text and by rule."""
    seen = dict(hits)
    for position, rules in more:
        seen[position] = sorted([*seen.get(position, ()), *rules])
    yield from sorted(seen.items())


def _sharing(recognizers: Sequence[Recognizer], machine: bool) -> dict[int, list[int]]:
    """Rule -> the later ones that are looked for by the same patterns: the pass tells of the first alone."""
    leader: dict[tuple[bool, tuple[re.Pattern[str], ...]], int] = {}
    sharing: dict[int, list[int]] = {}
    for number, rule in enumerate(recognizers):
        if not (machine and rule.conversation_only):
            first = leader.setdefault((rule.han, rule.sought(machine)), number)
            if first != number:
                sharing.setdefault(first, []).append(number)
    return sharing


_Said = tuple[str, str, str, str]  # type, name, version and reason, as a finding says them
_Facts = tuple[Callable[..., list[tuple[int, int, float]]], int, int, _Said]


def _facts(rule: Recognizer) -> _Facts:
    """What a closer look asks of a rule: how far it may read, how long a match is at least, and what a finding says."""
    span = max(_reach(pattern) for pattern in (rule.pattern, *rule.near, *rule.near_log)) + 2
    least = 0 if rule.near or rule.near_log else _shortest(rule.pattern)
    return rule.confirm, span, least, (rule.entity, rule.name, rule.version, rule.checksum)


_reach = lru_cache(maxsize=4096)(reach)
_shortest = lru_cache(maxsize=4096)(shortest)


def _joined(bodies: Sequence[str], plain: bool) -> tuple[bytes, list[int], list[int]]:
    """The bodies between separators, for each the offset after its closing separator, and how many more bytes than characters
    it has; the last is empty when no body has any."""
    if plain:
        return "\xff".join(["", *bodies, ""]).encode("latin-1"), _ends(bodies), []
    encoded = [body.encode("utf-8", "surrogatepass") for body in bodies]
    surplus = [len(data) - len(body) for data, body in zip(encoded, bodies, strict=True)]
    return SEPARATOR + SEPARATOR.join(encoded) + SEPARATOR, _ends(encoded), surplus


def _ends(bodies: Sequence[str] | Sequence[bytes]) -> list[int]:
    return list(accumulate([len(body) + 1 for body in bodies], initial=1))[1:]


def _masked(text: str, found: Sequence[Finding]) -> str:
    """What `view_of` makes of an ASCII text without placeholders."""
    first = found[0]
    if len(found) == 1:
        return text[: first.start] + MASK + text[first.end :]
    parts = [text[: first.start]]
    parts += [text[left.end : right.start] for left, right in pairwise(found)]
    return MASK.join([*parts, text[found[-1].end :]])


def _start(finding: Finding) -> int:
    return finding.start


def _moved(finding: Finding, by: int) -> Finding:
    return Finding(
        finding.start + by,
        finding.end + by,
        finding.entity,
        finding.score,
        finding.recognizer,
        finding.version,
        finding.reason,
    )


def _between(found: Sequence[Finding], low: int, high: int) -> list[Finding]:
    """The findings that lie wholly in [low, high); `found` is sorted."""
    begin = bisect_left(found, low, key=_start)
    end = bisect_left(found, high, key=_start)
    return [f for f in found[begin:end] if f.end <= high]


def _merge(found: list[Finding], window: Sequence[Finding], core: int, stop: int) -> int:
    """Add what starts in [core, stop) and touches nothing of `found`, which stays sorted; returns how many were added."""
    begin = bisect_left(found, core, key=_start)
    end = bisect_left(found, stop, key=_start)
    held = found[begin:end]
    known = {(f.start, f.end) for f in held}
    fresh = [f for f in window if core <= f.start < stop and (f.start, f.end) not in known]
    reach = found[begin - 1].end if begin else 0
    after = found[end].start if end < len(found) else 1 << 62
    merged: list[Finding] = []
    for finding in sorted([*held, *fresh], key=_start):
        if finding.start >= reach and finding.end <= after:
            merged.append(finding)
            reach = finding.end
    found[begin:end] = merged
    return len(merged) - len(held)
