"""What a rule author sees of one set: figures, a table by type, and (of the dev half) what was missed or found for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.detection_data import Example, spread
from benchmarks.detection_score import MACHINE_KINDS, Found, Score, covered_characters, is_covered, resolved
from benchmarks.detection_sides import Timed

_AROUND = 70


def print_score(name: str, total: Score, timed: Timed | None) -> None:
    rate = f"  {timed.per_second:,.0f} texts/s" if timed else ""
    other = sum(n for kind, n in total.found_kinds.items() if kind not in MACHINE_KINDS) / max(total.texts, 1)
    print(
        f"{name:<12} cover {total.cover():.3f} fully {total.fully():.3f} kind {total.right_kind():.3f}"
        f" | any P/R {total.any_precision:.3f}/{total.any_recall:.3f} typed F1 {total.typed_f1:.3f}"
        f" | chars P/R {total.char_precision:.3f}/{total.char_recall:.3f}"
        f" | false alarms {total.alarms_per_text:.3f} a text, all but machine/user {other:.4f}{rate}"
    )


def print_detail(name: str, scores: Mapping[str, Score]) -> None:
    """By kind of gold: count, then cover / fully covered / right kind of each side; then what each side found by kind."""
    kinds = sorted({kind for total in scores.values() for kind in total.kinds})
    print(f"\n{name:<18}{'gold':>6}" + "".join(f"{side + ' cover/fully/kind':>26}" for side in scores))
    for kind in kinds:
        gold = max(total.kinds[kind].gold for total in scores.values())
        cells = [f"{t.cover(kind):.3f}/{t.fully(kind):.3f}/{t.right_kind(kind):.3f}" for t in scores.values()]
        print(f"{kind:<18}{gold:>6}" + "".join(f"{cell:>26}" for cell in cells))
    for side, total in scores.items():
        print(f"  {side} found: " + ", ".join(f"{kind} {count}" for kind, count in total.found_kinds.most_common()))
    print()


def print_misses(examples: Sequence[Example], findings: Sequence[Sequence[Found]], most: int) -> None:
    """Gold spans of the dev half whose cover is below one half, at even distances through the set."""
    for line in spread(list(_misses(examples, findings)), most) if most else []:
        print(line)


def print_alarms(examples: Sequence[Example], findings: Sequence[Sequence[Found]], most: int) -> None:
    """Resolved findings of the dev half that touch no gold and no neutral span; without gold, MACHINE_KINDS are fine."""
    for line in spread(list(_alarms(examples, findings)), most) if most else []:
        print(line)


def _misses(examples: Sequence[Example], findings: Sequence[Sequence[Found]]) -> Iterator[str]:
    for example, found in zip(examples, findings, strict=True):
        union = covered_characters(found)
        for span in example.spans:
            if not is_covered(span, union):
                yield f"missed {span.kind:<16} {_shown(example.text, span.start, span.end)}"


def _alarms(examples: Sequence[Example], findings: Sequence[Sequence[Found]]) -> Iterator[str]:
    allowed = frozenset() if any(example.spans for example in examples) else MACHINE_KINDS
    for example, found in zip(examples, findings, strict=True):
        known = {i for span in (*example.spans, *example.neutral) for i in range(span.start, span.end)}
        for f in resolved(found):
            if f.kind not in allowed and not known & set(range(f.start, f.end)):
                yield f"alarm {f.entity:<17} {f.score:.2f} {_shown(example.text, f.start, f.end)}"


def _shown(text: str, start: int, end: int) -> str:
    shown = text[max(0, start - _AROUND) : start] + "[[" + text[start:end] + "]]" + text[end : end + _AROUND]
    return shown.replace("\n", "\\n")
