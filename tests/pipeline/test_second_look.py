"""Another model reads what was de-identified; what it sees is counted, and blocks when the policy asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline import validate as validate_module
from pipeline.ingest import ingest
from pipeline.protect import protect
from pipeline.second_look import SecondLook, second_look
from pipeline.validate import validate
from privacy.recognizers.rampart import Word
from tests.worlds.chats import EmailDetector, World, code_of, lines, records
from tests.worlds.policies import make_policy


class Reader:
    """Takes each capitalised word for a name."""

    def read(self, texts: Sequence[str]) -> list[list[Word]]:
        found = []
        for text in texts:
            words, at = [], 0
            for part in text.split():
                at = text.index(part, at)
                share = 0.95 if part.strip("<>.,")[:1].isupper() else 0.0
                words.append(Word(at, at + len(part), (1 - share, share, 0.0, 0.0, 0.0, 0.0)))
            found.append(words)
        return found


def flagged(*texts: object, **changes: object) -> SecondLook:
    return second_look(texts, make_policy(**changes), Reader)


def test_names_are_counted_and_placeholders_stop_words_and_other_languages_are_not() -> None:
    look = flagged("ask Zelda about it", "ask <PERSON> about it", "The parcel is late", "我的包裹", None, "nothing")
    assert (look.texts, look.flagged) == (4, 1)


def test_our_own_surrogates_are_no_names() -> None:
    from privacy.deidentify import surrogate_mark
    from privacy.surrogate import Marks, Surrogates

    name = Surrogates(b"k" * 32, Marks(surrogate_mark("test_chat", ""))).of("PERSON", "Alice Smith")
    assert flagged(f"ask {name} about it", **{"pii.entities": {"PERSON": "surrogate"}}).flagged == 0
    assert flagged(f"ask {name} about it").flagged == 1


def test_at_most_two_hundred_texts_are_read() -> None:
    assert flagged(*["ask Zelda"] * 900).texts == 200


def test_off_kept_names_and_a_missing_model_read_nothing() -> None:
    assert flagged("ask Zelda", **{"pii.second_look": "off"}) == SecondLook(0, 0, False)
    assert flagged("ask Zelda", **{"pii.entities": {"PERSON": "keep"}}).texts == 0
    assert second_look(["ask Zelda"], make_policy(), lambda: None) == SecondLook(0, 0, False)


@pytest.mark.parametrize(
    ("changes", "look", "code"),
    [
        ({}, SecondLook(10, 9, True), ""),  # the policy of the tests says 1: reported only
        ({"expectations.max_second_look_rate": None}, SecondLook(10, 9, True), "E-VALIDATE-001"),
        ({"expectations.max_second_look_rate": None}, SecondLook(10, 4, True), ""),
        ({"expectations.max_second_look_rate": 0.5}, SecondLook(10, 5, True), ""),
        ({"expectations.max_second_look_rate": 0.5}, SecondLook(10, 6, True), "E-VALIDATE-001"),
        ({"expectations.max_second_look_rate": 0.5}, SecondLook(0, 0, False), ""),
        ({"pii.second_look": "required"}, SecondLook(0, 0, False), "E-VALIDATE-001"),
        ({"pii.second_look": "required"}, SecondLook(10, 0, True), ""),
    ],
)
def test_it_blocks_only_where_the_policy_asks(
    world: World, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], look: SecondLook, code: str
) -> None:
    world.write("a.jsonl", lines(records(12)))
    ctx = world.context(**changes)
    done = protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector())
    monkeypatch.setattr(validate_module, "second_look", lambda texts, policy: look)
    if code:
        assert code_of(validate, ctx, done.digest) == code
    else:
        facts = validate(ctx, done.digest).manifest.facts
        assert (facts["second_look_texts"], facts["second_look_flagged"]) == (look.texts, look.flagged)
