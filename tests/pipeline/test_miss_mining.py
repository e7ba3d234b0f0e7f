"""Shapes, not values; many people, not one; a line that can be pasted."""

from __future__ import annotations

import json

import pytest
import yaml

from pipeline.cli import main
from pipeline.ingest import ingest
from pipeline.miss_mining import mine
from pipeline.protect import protect
from privacy.errors import UsageError
from tests.worlds.chats import EmailDetector, World, lines, record
from tests.worlds.policies import make_policy


def rows(count: int) -> list[tuple[str, list[str]]]:
    return [
        (f"u{n % 7}", [f"my loyalty card is KX-{40_000 + n}-Q, ok <PERSON_3fa9c1> at 12:30 on 2024-05-03", f"custRef=zz{n}q"])
        for n in range(count)
    ]


def test_a_shape_that_many_people_share_is_shown_without_a_value() -> None:
    found = mine(rows(30))
    shapes = {m.shape: m for m in found}
    assert set(shapes) == {"AA-99999-A", "custRef", "AA9A", "AA99A"}
    assert shapes["AA-99999-A"].subjects == 7
    assert shapes["AA-99999-A"].records == 30
    assert shapes["custRef"].kind == "field"
    told = json.dumps([m.to_json() for m in found])
    assert "KX" not in told
    assert "4000" not in told
    assert "zz" not in told


def test_what_fewer_people_have_is_not_shown() -> None:
    one = [("u1", ["ticket QQ-777-1234 and secretField=abc123"])] * 50 + [(f"u{n}", ["nothing"]) for n in range(9)]
    assert mine(one) == []
    with pytest.raises(UsageError, match="E-MINE-001"):
        mine(one, least=1)


def test_each_line_can_be_pasted_into_the_policy_and_loads() -> None:
    found = mine(rows(30))
    patterns = yaml.safe_load("\n".join(m.policy_line for m in found))
    policy = make_policy(**{"pii.patterns": patterns})
    assert len(policy.pii.patterns) == len(found)


def test_odd_shapes_and_field_names_make_lines_that_load_too() -> None:
    texts = ["a.b-c_1+2@x9:7/8#3", "x_y.z-1=ab'12", "Ünïcode99x", "A" * 39 + "1", "id: 9f8e7d6c", "k9:v8:w7"]
    found = mine([(f"u{n}", texts) for n in range(6)])
    assert found
    for mined in found:
        make_policy(**{"pii.patterns": yaml.safe_load(mined.policy_line)})


def test_our_own_surrogates_are_not_mined() -> None:
    def own(text: str) -> list[tuple[int, int, str]]:
        at = text.find("Z01234567")
        return [(at, at + 9, "ACCOUNT_NUMBER")] if at >= 0 else []

    assert mine([(f"u{n}", ["number Z01234567 here"]) for n in range(6)], own) == []


def test_the_command_masks_values_and_takes_a_digest_or_a_policy(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    values = [record(n, text=f"hello, my badge is WX{70_000 + n} thanks") for n in range(20)]
    world.write("a.jsonl", lines(values))
    ctx = world.context()
    digest = protect(ctx, ingest(ctx, str(world.source)).digest, EmailDetector()).digest
    assert main(["mine", digest, "--home", str(world.home.path), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["shape"] == "AA99999"
    assert json.loads(line)["subjects"] == 5
    assert main(["mine", digest, "--home", str(world.home.path)]) == 0
    shown = capsys.readouterr().out
    assert "AA99999" in shown
    assert "pii.patterns" in shown
    assert "WX7" not in shown
    policy = world.source / "policy.yaml"
    policy.write_text(yaml.safe_dump(ctx.policy.model_dump(mode="json", exclude_none=True), allow_unicode=True))
    assert main(["mine", str(policy), "--home", str(world.home.path), "--subjects", "6"]) == 0
    assert "nothing that 6 or more" in capsys.readouterr().out
    assert main(["mine", "sha256:" + "0" * 64, "--home", str(world.home.path)]) == 2
    assert "E-MINE-002" in capsys.readouterr().err
