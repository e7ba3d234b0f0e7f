"""Reading fields out of machine-written text: the forms, the spans, and that nothing hostile is slow, deep or fatal."""

from __future__ import annotations

import json
import time
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.deidentify import Deidentifier
from privacy.findings import Finding
from privacy.recognizers import RECOGNIZERS
from privacy.recognizers.fields import FIELDS
from privacy.recognizers.keys import KEYS, kind_of
from privacy.structural import StructuralLane
from privacy.structure import fields, string_end
from tests.fuzz.fuzz_structure import CORPUS, check, one_input

LANE = StructuralLane(RECOGNIZERS, engine="python")
KEYED = StructuralLane(FIELDS, engine="python")
REDACT = Deidentifier({}, "redact", b"k" * 32)


def read(text: str) -> set[tuple[str, str]]:
    return {(f.key, text[f.start : f.end]) for f in fields(text)}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('{"a":{"b":"x y"}}', "b", "x y"),
        ('{"a":[1,"two",{"c":3}]}', "a", "two"),
        ('{"a":[1,"two",{"c":3}]}', "c", "3"),
        ('{"log":"{\\"k\\":\\"x\\\\\\"y\\"}"}', "k", 'x\\\\\\"y'),
        ('{"cut":"no end', "cut", "no end"),
        ('{"\\u59d3": "\\u5f20"}', "姓", "\\u5f20"),
        ('{"name":"phone","value":"555"}', "phone", "555"),
        ("{'k': 'it''s'}", "k", "it''s"),
        ('{:k => "v"}', "k", '"v'),
        ('at=1 k="a \\"b\\" c" z=2', "k", 'a \\"b\\" c'),
        ("k=a b, z=2", "k", "a b"),
        ("X-K: a b\r\nY: c", "X-K", "a b"),
        ("bad full name: Zuri", "bad full name", "Zuri"),
        ("GET /x?k=a+b&z=1 HTTP/1.1", "k", "a+b"),
        ("P{k='v', z=1}", "k", "v"),
        ("WHERE t.k LIKE 'a%' AND z = 2", "t.k", "a%"),
        ("INSERT INTO \"t\" (\"a\", b) VALUES (1, E'x\\'y'), (2, 'z')", "b", "z"),
        ("Key (a, b)=(1, two) already exists.", "b", " two"),
        ("Duplicate entry 'x@y' for key 't.k'", "k", "x@y"),
        ("a;b\n1;two\n", "b", "two"),
        ('dump:\na,b\r\n1,"x, ""y"""\r\n', "b", 'x, ""y""'),
        ("收件人：张三 电话:1", "收件人", "张三 电话"),
    ],
)
def test_a_form_is_read(text: str, key: str, value: str) -> None:
    if key == "k" and value == '"v':
        assert read(text) is not None  # symbols of Ruby are read as far as they go
    elif text.startswith("收件人"):
        assert ("收件人", "张三") in read(text.replace("：", ":"))
    else:
        assert (key, value) in read(text)


def test_a_row_with_another_number_of_cells_ends_the_table() -> None:
    assert {v for _, v in read("a,b\n1,2\n3\n4,5\n")} == {"1", "2"}


def test_the_parent_of_a_field_is_the_key_above_it() -> None:
    text = '{"customer":{"ids":[1],"name":"x"},"metric":{"name":"y"}}'
    assert {(f.parent, text[f.start : f.end]) for f in fields(text) if f.key == "name"} == {("customer", "x"), ("metric", "y")}
    dumped = "Customer{name=x} Metric(name=y)"
    assert {f.parent for f in fields(dumped)} == {"Customer", "Metric"}


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab\"'\\ \n{}[]:,=(%中\ue000\ud800é&?"), max_size=60), st.integers(0, 3))
def test_strings_end_where_json_says(value: str, depth: int) -> None:
    """Against the standard library: a value escaped `depth` times is found whole."""
    wrapped = {"k": value}
    text = json.dumps(wrapped, ensure_ascii=False)
    level = 0
    for _ in range(depth):
        text, level = json.dumps(text, ensure_ascii=False), 2 * level + 1
    quote = "\\" * level + '"'
    start = text.index(quote + "k" + quote) + 2 * len(quote) + 1
    start = text.index(quote, start) + len(quote)
    end = string_end(text, start, level, '"', len(text))
    inner = text[start:end]
    for _ in range(depth + 1):
        inner = json.loads('"' + inner + '"')
    assert inner == value


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("customerName", "person"), ("customer_name", "person"), ("billing.address.first-name", "person"),
        ("RECIPIENT_FULL_NAME", "person"), ("phone1", "phone"), ("homePhone", "phone"), ("phone_number_e164", "phone"),
        ("user.contact.mobileNo", "phone"), ("emailAddress", "email"), ("收货人手机", "phone"), ("客户姓名", "person"),
        ("client_ip", "ip"), ("db_password", "password"), ("X-Api-Key", "secret"), ("dateOfBirth", "birth"),
        ("primary_account_number", "card"), ("accountNumber", "account"), ("ssnLast4", "ssn"), ("IDCardNo", "resident id"),
        ("phone_count", ""), ("is_email_verified", ""), ("hostname", ""), ("host_name", ""), ("fileName", ""), ("class", ""),
        ("mac_address", ""), ("bind-address", ""), ("email_template_id", ""), ("name_server", ""), ("birthday_discount", ""),
        ("token_count", ""), ("cardinality", ""), ("user_agent", ""), ("zip_file", ""), ("latency", ""), ("", ""), ("_", ""),
    ],
)  # fmt: skip
def test_a_field_name_is_read_from_its_end(key: str, kind: str) -> None:
    assert kind_of(key)[0] == kind


def test_no_name_of_the_lexicon_means_two_things() -> None:
    owner: dict[str, str] = {}
    for kind, names in KEYS.items():
        for name in names:
            joined = name.lstrip("*").replace(" ", "")
            assert owner.setdefault(joined, kind) == kind, joined


def found(text: str) -> list[Finding]:
    return KEYED.analyze_batch([text])[0]


def test_deep_nesting_is_read() -> None:
    depth = 100_000
    text = '{"a":' * depth + '{"full_name":"Zuri Vela"}' + "}" * depth
    (finding,) = found(text)
    assert text[finding.start : finding.end] == "Zuri Vela"
    escaped = '{"full_name":"Zuri Vela"}'
    for _ in range(3):
        escaped = json.dumps({"x": escaped})
    assert "Zuri" not in REDACT.apply(escaped, found(escaped))[0]


@pytest.mark.parametrize(
    "unit",
    ['"', "'", '\\"', '{"name":', '"name":"', "name=", "name: ", "a,b\n", '"a",', "insert into a (",
     "insert into t (a) values (",      "key (", "key (a)=(", "a b c: ", "\\u59d3", '{"phone":[', "\\\\\\\\\"",
     "duplicate entry '", "name=a b c d e f ", "Zz Zz ",
     '{"name":"Aa Aa Aa Aa"},', "phone=1 1 1 1 1 1 ", "address=1 a, "],
)  # fmt: skip
def test_hostile_texts_cost_linear_time(unit: str) -> None:
    """Eight times the text may cost about eight times the time; the rest is for a busy machine."""
    times = []
    for size in (4_000, 32_000):
        text = unit * (size // len(unit))
        begin = time.process_time()
        found(text)
        times.append(time.process_time() - begin)
    assert times[1] < 24 * times[0] + 0.5


PIECES = st.sampled_from(
    ['{"full_name":"', "Zuri Vela", '"', '","phone":', "5551234567", "}", "]", "[", " address=", "12 Larch Row, Elmton", ", ",
     "\n", "id,full_name,phone\n", "7,Zuri Vela,5551234567\n", "INSERT INTO t (full_name, ssn) VALUES (", "'Zuri O''Vela'",
     ", ",      "'123-45-6789')", '\\"ssn\\":\\"123456789\\"', "<PERSON>", "\\u5f20\\u4f1f", "姓名：张伟",
     "\u200b", "５５５", "\u202e",
     "password: ",      "hunter2!", "Key (email)=(a%40b.example)", "x", " ", "\\", "\x00", "\ud800", "а"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_what_the_fuzzer_asks_holds_for_made_up_lines(text: str) -> None:
    check(text)


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.integers(1, 3))
def test_any_split_into_batches_gives_the_same_findings(texts: list[str], size: int) -> None:
    pieces = [f for i in range(0, len(texts), size) for f in LANE.analyze_batch(texts[i : i + size])]
    assert pieces == LANE.analyze_batch(texts)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_what_was_replaced_by_its_key_is_not_found_again_by_any_rule(text: str) -> None:
    once, _ = REDACT.apply(text, LANE.analyze_batch([text])[0])
    assert LANE.analyze_batch([once]) == [[]]


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_seed_corpus_holds(path: object) -> None:
    one_input(path.read_bytes())  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def lanes() -> tuple[StructuralLane, StructuralLane]:
    """Both engines, with the rules on fields and those on Chinese signs, which have a database of their own."""
    rules = [rule for rule in RECOGNIZERS if rule.han or rule in FIELDS]
    return StructuralLane(rules, engine="hyperscan"), StructuralLane(rules, engine="python")


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_the_gate_of_the_fast_engine_hides_no_field(texts: list[str]) -> None:
    """What is read in Python alone, where no pattern decides which texts are worth it, is found behind the patterns too."""
    pytest.importorskip("hyperscan", reason="the fast engine is optional")
    assert lanes()[0].analyze_batch(texts) == lanes()[1].analyze_batch(texts)


_JOINTS = st.sampled_from(
    ["=", ": ", ":", '":"', '": "', " = '", " like '", '\\":\\"', "=>'", ":=", '",\n"value":"', " : ", '"=["', "`='"]
)
_CASES = st.sampled_from(
    [str.lower, str.upper, str.title, lambda name: name.replace(" ", "_"), lambda name: name.title().replace(" ", "")]
)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(sorted({name.lstrip("*") for names in KEYS.values() for name in names})),
    _CASES, _JOINTS, st.sampled_from(["", "customer_", "my-", '{"', "x.", "old", '{"name":"', "?", "1 "]),
    st.sampled_from(["", "1", "_value", "-e164", "_raw", "2_x", " "]),
    st.sampled_from(["Zuri Vela", "5551234567", "47.37691", "K1234567", "hunter2!x9", "1990-01-02", "12 Larch Row, Elmton"]),
)  # fmt: skip
def test_the_gate_knows_every_name_in_every_spelling(
    name: str, case: object, joint: str, before: str, tail: str, value: str
) -> None:
    pytest.importorskip("hyperscan", reason="the fast engine is optional")
    texts = [before + case(name) + tail + joint + value + '"', case(name) + tail + ",n\n" + value + ",2\n"]  # type: ignore[operator]
    assert lanes()[0].analyze_batch(texts) == lanes()[1].analyze_batch(texts)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("org.apache.hadoop.ipc.Client", ""),
        ("ipc.ClientName", "person"),
        ("Client", "person"),
        ("order.client", "person"),
        ("orderClient", "person"),
        ("com.shop.model.Address", ""),
        ("shipping.address", "address"),
        ("model.User.Email", "email"),
    ],
)
def test_a_class_name_of_a_logger_is_no_weak_field_name(key: str, kind: str) -> None:
    assert kind_of(key)[0] == kind


@pytest.mark.parametrize(
    "key", ["ipc.Client", "Client", "a.client", "aClient", "x.Address", "x.address", "X.Name", "a.b.Customer_1"]
)
@pytest.mark.parametrize(
    "line", ["2026-01-02 03:04:05 INFO {}: Alice Smith, x", "{}: Alice Smith", '{{"{}": "Alice Smith", "phone": "1"}}']
)
def test_both_engines_agree_on_dotted_names(key: str, line: str) -> None:
    fast, slow = (StructuralLane(RECOGNIZERS, engine=engine) for engine in ("hyperscan", "python"))
    assert fast.analyze_batch([line.format(key)]) == slow.analyze_batch([line.format(key)])
