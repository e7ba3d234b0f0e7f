"""Detection side by side: Privet and stock Presidio on the same sets, in the same minutes, scored by the same code.

    python benchmarks/detection.py [--json] [--data DIR] [--quick] [--detail]
    python benchmarks/detection.py --only presidio --half dev --detail --misses 20 [--alarms 20] [--without-stock]

Metrics are defined in benchmarks/detection_score.py, sets and halves in detection_data.py, the two sides in detection_sides.py.
The table is of the scored halves: templates, conversations, systems and carriers that no rule was written with.
`met` of a ratio also asks for higher cover than stock on talk (MultiDoGO) and on generated log lines.
A ratio is not of equal work: on machine-written lines Privet leaves the language model out, stock runs it on everything.
Rates are of CPU seconds; the ratio of the two sides is robust, the rates themselves hold for this machine only.
Not covered: loghub has no gold, so its findings are counted, not judged; generated carriers are the phrasing of one author.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and onnxruntime are loaded: seconds of one core

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.detection_data import HALVES, SETS, Example, load, spread  # noqa: E402
from benchmarks.detection_score import CARD_OR_HEALTH, MACHINE_KINDS, Score, score  # noqa: E402
from benchmarks.detection_show import print_alarms, print_detail, print_misses, print_score  # noqa: E402
from benchmarks.detection_sides import (  # noqa: E402
    Side,
    Stock,
    Timed,
    cold_start,
    run_interleaved,
    structural_lane,
    whole_engine,
    without_organisations,
)
from benchmarks.detection_speed import lane_lines_per_second, pseudonyms_per_second  # noqa: E402
from benchmarks.rows import Row, publish  # noqa: E402

NUMBERS = ("CARD", "SSN", "ACCOUNT", "PHONE")
_QUICK = {"presidio": 400, "multidogo": 1200, "resume": 60, "wnut17": 200, "loghub": 400, "generated": 600}
_FULL = {"presidio": 10**6, "multidogo": 10**6, "resume": 10**6, "wnut17": 10**6, "loghub": 1500, "generated": 10**6}


@dataclass(frozen=True, slots=True)
class SetResult:
    """One set: the scores of each side by name, and the CPU seconds."""

    examples: list[Example]
    scores: dict[str, Score]
    timed: dict[str, Timed]

    @property
    def ratio(self) -> float:
        """How many times less CPU than stock on the same texts."""
        return self.timed["stock"].seconds / self.timed["privet"].seconds


def measure(name: str, half: str, data: Path, sides: Sequence[Side], limit: int) -> SetResult:
    examples = spread(load(name, half, data), limit)
    other = HALVES[1 - HALVES.index(half)]
    warm_up = [example.text for example in spread(load(name, other, data), 64)]
    timed = run_interleaved(examples, sides, warm_up)
    scores = {side: score(examples, run.findings) for side, run in timed.items()}
    if "stock" in timed:
        scores["stock + ORG"] = scores["stock"]
        scores["stock"] = score(examples, without_organisations(timed["stock"].findings))
    return SetResult(examples, scores, timed)


def rows_of(results: dict[str, SetResult], data: Path, sides: Sequence[Side], *, quick: bool) -> Iterator[Row]:
    if "presidio" in results:
        yield from _presidio_rows(results["presidio"].scores)
    if "multidogo" in results:
        yield from _multidogo_rows(results["multidogo"].scores)
    if "generated" in results:
        yield from _generated_rows(results["generated"].scores)
    if "loghub" in results:
        yield from _loghub_rows(results["loghub"], data, sides, quick=quick)
    yield from _ratio_rows(results)
    for name, what in (("resume", "Chinese résumés, names"), ("wnut17", "social posts, persons")):
        if name in results:
            ours, theirs = results[name].scores["privet"], results[name].scores["stock"]
            yield Row(f"{what}: span cover", "share", _r(ours.cover()), _r(theirs.cover()))
            yield Row(f"{what}: character precision", "share", _r(ours.char_precision), _r(theirs.char_precision))
    yield from _pseudonym_rows()
    if not quick:
        yield Row("cold start of the whole engine: build, compile, warm", "s", _r(cold_start()))


def _presidio_rows(scores: dict[str, Score]) -> Iterator[Row]:
    ours, theirs, more = scores["privet"], scores["stock"], scores["stock + ORG"]
    name = "presidio_research"
    yield _at_least(f"{name}: span cover", ours.cover(), theirs.cover(), 0.96)
    yield _at_least(f"{name}: any-type precision", ours.any_precision, theirs.any_precision, 0.80)
    yield Row(f"{name}: span cover, stock asked for organisations too", "share", _r(ours.cover()), _r(more.cover()))
    yield Row(f"{name}: any-type precision, stock with organisations", "share", _r(ours.any_precision), _r(more.any_precision))
    yield Row(f"{name}: typed F1", "share", _r(ours.typed_f1), _r(theirs.typed_f1))
    yield Row(f"{name}: character precision", "share", _r(ours.char_precision), _r(theirs.char_precision))
    yield Row(f"{name}: false alarms a text", "findings", _r(ours.alarms_per_text), _r(theirs.alarms_per_text))


def _multidogo_rows(scores: dict[str, Score]) -> Iterator[Row]:
    ours, theirs = scores["privet"], scores["stock"]
    yield _at_least(
        "MultiDoGO: cover of card, ssn, account and phone numbers", ours.cover(*NUMBERS), theirs.cover(*NUMBERS), 0.95
    )
    yield _at_least("MultiDoGO: cover of names", ours.cover("PERSON"), theirs.cover("PERSON"), 0.85)
    for kind, what in (("PLACE", "addresses"), ("EMAIL", "e-mails"), ("PHONE", "phones"), ("BOOKING", "booking numbers")):
        yield Row(f"MultiDoGO: cover of {what}", "share", _r(ours.cover(kind)), _r(theirs.cover(kind)))
    yield Row("MultiDoGO: character precision", "share", _r(ours.char_precision), _r(theirs.char_precision))
    yield Row("MultiDoGO: false alarms a turn", "findings", _r(ours.alarms_per_text), _r(theirs.alarms_per_text))


def _generated_rows(scores: dict[str, Score]) -> Iterator[Row]:
    from tests.worlds.detection_world import CHECKSUM_KINDS

    ours, theirs = scores["privet"], scores["stock"]
    checked = tuple(sorted(CHECKSUM_KINDS))
    yield _at_least(
        "types with a checksum, carriers withheld: fully covered", ours.fully(*checked), theirs.fully(*checked), 0.995
    )
    yield Row(
        "types with a checksum, carriers withheld: right kind",
        "share",
        _r(ours.right_kind(*checked)),
        _r(theirs.right_kind(*checked)),
    )
    yield Row("all types, carriers withheld: fully covered", "share", _r(ours.fully()), _r(theirs.fully()))
    yield Row("all types, carriers withheld: span cover", "share", _r(ours.cover()), _r(theirs.cover()))
    yield Row("all types, carriers withheld: character precision", "share", _r(ours.char_precision), _r(theirs.char_precision))
    yield Row("generated lines: false alarms a line", "findings", _r(ours.alarms_per_text), _r(theirs.alarms_per_text))


def _loghub_rows(result: SetResult, data: Path, sides: Sequence[Side], *, quick: bool) -> Iterator[Row]:
    """Stock reads a sample; ours reads every line of the scored systems, and of all eight for the rows that count."""
    ours, theirs = result.scores["privet"], result.scores["stock"]
    lines = {half: load("loghub", half, data) for half in HALVES}
    privet = [side for side in sides if side.name == "privet"]
    if not quick:
        full = {half: run_interleaved(lines[half], privet)["privet"].findings for half in HALVES}
        ours = score(lines["scored"], full["scored"])
        everything = score([*lines["dev"], *lines["scored"]], [*full["dev"], *full["scored"]])
        yield Row("loghub, all eight systems: other findings a line", "findings", _r(_other(everything)), _r(_other(theirs)))
    yield _at_most("loghub: findings a line but machine addresses, user names", _other(ours), _other(theirs), 0.02, "findings")
    yield _at_most("loghub: cards and health ids", _cards(ours), _cards(theirs), 0, "in 1,000")
    texts = [example.text for example in lines["scored"]]
    rate = lane_lines_per_second(texts, [example.text for example in lines["dev"][:64]])
    yield _at_least("structural lane on loghub", rate, result.timed["stock"].per_second, 100_000, "lines/s")


def _other(total: Score) -> float:
    return sum(n for kind, n in total.found_kinds.items() if kind not in MACHINE_KINDS) / max(total.texts, 1)


def _cards(total: Score) -> float:
    """Cards and health ids found in a thousand lines; loghub holds none."""
    return 1000 * sum(total.found_kinds[kind] for kind in CARD_OR_HEALTH) / max(total.texts, 1)


def _ratio_rows(results: dict[str, SetResult]) -> Iterator[Row]:
    for name, cover_of, goal, what in (
        ("loghub", "generated", 20.0, "loghub"),
        ("multidogo", "multidogo", 4.0, "talk (MultiDoGO)"),
    ):
        if name in results and cover_of in results:
            scores = results[cover_of].scores
            ahead = scores["privet"].cover() > scores["stock"].cover()
            ratio = results[name].ratio
            yield Row(f"whole engine on {what}, times batched stock", "ratio", _r(ratio), 1.0, goal, ratio >= goal and ahead)
    for name, result in results.items():
        ours, theirs = result.timed["privet"].per_second, result.timed["stock"].per_second
        yield Row(f"whole engine on {name}", "texts/s", _r(ours), _r(theirs))


def _pseudonym_rows() -> Iterator[Row]:
    yield _at_least("pseudonyms in batch", pseudonyms_per_second(), None, 1_000_000, "rows/s")
    rows = 200_000
    yield Row("pseudonyms in batch, no value twice", "rows/s", _r(pseudonyms_per_second(rows, distinct=rows)))


def _at_least(row: str, measured: float, baseline: float | None, goal: float, unit: str = "share") -> Row:
    return Row(row, unit, _r(measured), None if baseline is None else _r(baseline), goal, measured >= goal)


def _at_most(row: str, measured: float, baseline: float, goal: float, unit: str) -> Row:
    return Row(row, unit, _r(measured), _r(baseline), goal, measured <= goal)


def _r(value: float) -> float:
    """Four digits; nan (nothing to measure) is shown as 0."""
    return 0.0 if math.isnan(value) else float(f"{value:.4g}")


def whole_table(args: argparse.Namespace) -> None:
    limits = _QUICK if args.quick else _FULL
    sides: list[Side] = [Stock(), whole_engine()]
    results: dict[str, SetResult] = {}
    for name in SETS:
        began = time.monotonic()
        try:
            results[name] = measure(name, "scored", args.data, sides, limits[name])
        except FileNotFoundError:
            print(f"{name}: skipped, it is not in {args.data.name}", file=sys.stderr)
            continue
        print(f"{name}: {len(results[name].examples)} texts, {time.monotonic() - began:.0f} s", file=sys.stderr)
        if args.detail and not args.json:
            print_detail(name, results[name].scores)
    rows = sorted(rows_of(results, args.data, sides, quick=args.quick), key=lambda row: row.goal is None)
    if args.json and not args.detail:
        rows = [row for row in rows if row.goal is not None]
    publish("detection_quick" if args.quick else "detection", rows, as_json=args.json)


def one_set(args: argparse.Namespace) -> None:
    """For those who write rules: one set, one half; texts are shown of the dev half only."""
    sides: list[Side] = [structural_lane() if args.patterns else whole_engine()]
    if not args.without_stock:
        sides.insert(0, Stock())
    result = measure(args.only, args.half, args.data, sides, args.sample or _FULL[args.only])
    own = sides[-1].name
    for name, total in result.scores.items():
        print_score(name, total, result.timed.get(name))
    if args.detail:
        print_detail(args.only, result.scores)
    print_misses(result.examples, result.timed[own].findings, args.misses)
    print_alarms(result.examples, result.timed[own].findings, args.alarms)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object per row that has a goal; with --detail all rows")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="where the sets lie")
    parser.add_argument("--quick", action="store_true", help="samples of the sets: under 90 seconds")
    parser.add_argument("--detail", action="store_true", help="a table by type for every set")
    parser.add_argument("--only", choices=sorted(SETS), help="one set, printed and not published")
    parser.add_argument("--half", choices=HALVES, default="dev", help="with --only")
    parser.add_argument("--sample", type=int, default=0, help="with --only: so many texts at even distances")
    parser.add_argument("--misses", type=int, default=0, help="with --only, dev half: show so many gold spans that were missed")
    parser.add_argument("--alarms", type=int, default=0, help="with --only, dev half: show so many false alarms")
    parser.add_argument("--patterns", action="store_true", help="with --only: the structural lane instead of the whole engine")
    parser.add_argument("--without-stock", action="store_true", help="with --only: ours alone")
    args = parser.parse_args(arguments)
    if (args.misses or args.alarms) and (not args.only or args.half != "dev"):
        parser.error("texts of the scored half are not shown: whoever has read them can no longer be judged by them")
    if args.only:
        one_set(args)
    else:
        whole_table(args)


if __name__ == "__main__":
    main()
