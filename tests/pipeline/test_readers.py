"""Row by row, bounded, and one bad row never hides the next."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.readers import Line, Row, bounded_lines, read_rows
from pipeline.sources import FileFault, survey
from privacy.policy import Source
from tests.worlds.chats import World, code_of, record, records
from tests.worlds.policies import make_policy

FIELDS = ("id", "customer", "time", "text", "intent", "channel")
HEADER = b"id,customer,time,text,intent,channel\n"


def source(form: str, **changes: object) -> Source:
    return make_policy(**{"source.format": form, "source.files": ["*"], **changes}).source


def rows(folder: Path, form: str, **changes: object) -> list[Row]:
    used = source(form, **changes)
    return [row for file in survey(folder, used).files for row in read_rows(folder, file, used)]


def naive_lines(data: bytes, limit: int) -> list[Line]:
    found = []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        raw = raw[:-1] if raw.endswith(b"\r") else raw
        raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        found.append(Line(number, raw[:limit], len(raw) > limit))
    return found


@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"x" * 70]), max_size=20),
    st.integers(4, 64),
)
def test_lines_are_those_of_a_reader_without_bounds(chunks: list[bytes], limit: int) -> None:
    """Naive twin: split everything at once. Only blank last lines (no bytes) may differ."""
    got = [line for line in bounded_lines(iter(chunks), limit) if line.raw]
    want = [line for line in naive_lines(b"".join(chunks), limit) if line.raw]
    # A cut line may have lost a CR that came after the cut; the cut bytes themselves must agree.
    assert [(g.number, g.raw, g.cut) for g in got] == [(w.number, w.raw, w.cut) for w in want]


def test_a_line_without_an_end_is_held_only_to_its_limit() -> None:
    seen = 0

    def endless() -> object:
        nonlocal seen
        for _ in range(2000):
            seen += 1
            yield b"a" * 65_536
        yield b"\nnext\n"

    got = list(bounded_lines(endless(), 1000))  # type: ignore[arg-type]
    assert [(len(line.raw), line.cut) for line in got] == [(1000, True), (4, False)]
    assert seen == 2000


@given(st.lists(st.lists(st.text(alphabet='a,"\n\té中', max_size=6), min_size=6, max_size=6), min_size=1, max_size=6))
def test_csv_is_read_as_the_standard_reader_reads_it(tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    (folder / "a.csv").write_bytes(HEADER + text.getvalue().encode())
    got = rows(folder, "csv")
    assert [row.code for row in got] == [None] * len(table)
    assert [list((row.values or {}).values()) for row in got] == table


def test_a_quote_that_never_closes_costs_its_own_line_only(world: World) -> None:
    good = b"m%d,c,2026-03-04,hello,refund,web\n"
    body = good % 1 + b'm2,c,2026-03-04,"open,refund,web\n' + b"".join(good % n for n in range(3, 50))
    world.write("a.csv", HEADER + body)
    got = rows(world.source, "csv")
    assert [row.code for row in got].count(None) == 48
    assert [(row.line, row.code) for row in got if row.code] == [(3, "E-INGEST-117")]


def test_an_inch_sign_does_not_swallow_the_next_row(world: World) -> None:
    world.write("a.csv", HEADER + b'm1,c,2026-03-04,5" pipe,refund,web\nm2,c,2026-03-04,6" pipe,refund,web\n')
    assert [(row.values or {}).get("text") for row in rows(world.source, "csv")] == ['5" pipe', '6" pipe']


def test_a_row_of_another_width_is_a_reject(world: World) -> None:
    world.write("a.csv", HEADER + b"m1,c,2026-03-04,hello,refund\nm2,c,2026-03-04,hello,refund,web,more\n")
    assert [row.code for row in rows(world.source, "csv")] == ["E-INGEST-117"] * 2


def test_tsv_has_no_quoting(world: World) -> None:
    world.write("a.tsv", HEADER.replace(b",", b"\t") + b'm1\tc\t2026-03-04\tsays "hi\trefund\tweb\n')
    (row,) = rows(world.source, "tsv")
    assert row.values is not None
    assert row.values["text"] == 'says "hi'


@pytest.mark.parametrize(
    "head", [b"id,customer,time,text,intent\n", b"id,id,customer,time,text,intent,channel\n", b"\xff\xfe\n", b'"id,\n', b"\n"]
)
def test_a_table_without_the_declared_columns_is_refused_whole(world: World, head: bytes) -> None:
    world.write("a.csv", head + b"m1,c,2026-03-04,hello,refund,web\n")
    with pytest.raises(FileFault) as caught:
        rows(world.source, "csv")
    assert caught.value.code == "E-INGEST-154"


PATTERN = r"(?P<time>\S+) (?P<id>\S+) (?P<customer>\S+) \[(?P<intent>\w+)/(?P<channel>\w+)\] (?P<text>.*)"


def test_plain_lines_must_match_whole_and_keep_the_line(world: World) -> None:
    line = "2026-03-04T10:00:00Z m1 c1 [refund/web] Straße 退款"
    world.write("a.log", f"{line}\r\nnot like that\n\n".encode())
    first, second = rows(world.source, "lines", **{"source.pattern": PATTERN})
    assert first.values is not None
    assert (first.values["text"], first.values["_line"]) == ("Straße 退款", line)
    assert second.code == "E-INGEST-118"


def test_parquet_gives_every_type_a_plain_form(world: World) -> None:
    table = pa.Table.from_pylist([record(1, weight=1.5, when=None), record(2, weight=float("nan"), when=None)])
    pq.write_table(table, world.source / "a.parquet")
    got = rows(world.source, "parquet")
    assert [(row.values or {})["id"] for row in got] == ["m1", "m2"]
    assert b'"weight":null' in got[1].raw


def test_damaged_parquet_is_refused_before_its_first_row(world: World) -> None:
    path = world.source / "a.parquet"
    pq.write_table(pa.Table.from_pylist(records(5000)), path, write_page_checksum=True, row_group_size=1000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    used = source("parquet")
    (file,) = survey(world.source, used).files
    with pytest.raises(FileFault):
        next(read_rows(world.source, file, used))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b'{"id": 1}\n'])
def test_what_only_claims_to_be_parquet_is_refused(world: World, data: bytes) -> None:
    world.write("a.parquet", data)
    with pytest.raises(FileFault) as caught:
        rows(world.source, "parquet")
    assert caught.value.code == "E-INGEST-154"


def test_a_parquet_bomb_is_refused_by_its_ratio(world: World) -> None:
    path = world.source / "a.parquet"
    text = pa.array(["x" * 1000]).dictionary_encode()
    big = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), text.dictionary)
    names = [name for name in FIELDS if name != "text"]
    pq.write_table(
        pa.table({**{n: ["a"] * 20_000 for n in names}, "text": big}), path, use_dictionary=False, compression="zstd"
    )
    assert survey(world.source, source("parquet")).files[0].size < 40_000
    with pytest.raises(FileFault) as caught:
        rows(world.source, "parquet")
    assert caught.value.code == "E-INGEST-153"


def test_parquet_swapped_after_the_survey_is_refused(world: World) -> None:
    path = world.source / "a.parquet"
    pq.write_table(pa.Table.from_pylist(records(3)), path)
    used = source("parquet")
    (file,) = survey(world.source, used).files
    data = path.read_bytes()
    path.write_bytes(data)  # same bytes and size, another time of change: what was hashed is no longer known to be this
    assert code_of(lambda: list(read_rows(world.source, file, used))) == "E-INGEST-004"


def test_a_cut_line_keeps_its_end_when_a_byte_order_mark_and_a_cr_stand_around_it() -> None:
    chunks = [b"\xef\xbb\xbfabc", b"d\r\nnext"]
    assert [line.raw for line in bounded_lines(iter(chunks), 4)] == [b"abcd", b"next"]
