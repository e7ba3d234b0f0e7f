"""No source of Privet loads code from data, takes secrets from a seeded generator, or says one."""

from __future__ import annotations

import pytest

from tests.source_lint import faults
from tests.test_architecture import RANK, ROOT, modules

# They make up people for the demo, the same from one seed.
MADE_UP = {
    "pipeline/logs.py",
    "pipeline/log_people.py",
    "pipeline/example_choices.py",
    "pipeline/example_images.py",
    "pipeline/example_texts.py",
}


@pytest.mark.parametrize("top", RANK)
def test_no_source_does_what_no_review_should_have_to_find(top: str) -> None:
    found = {
        str(path.relative_to(ROOT)): faults(path.read_text(), made_up_data=str(path.relative_to(ROOT)) in MADE_UP)
        for path in modules(top)
    }
    assert {name: of for name, of in found.items() if of} == {}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import pickle", "loads code"),
        ("from joblib import load", "loads code"),
        ("Random(7).random()", "no source of secrets"),
        ("random.randbytes(32)", "no source of secrets"),
        ("torch.load(path, weights_only=True)", "runs what it reads"),
        ("np.load(file, allow_pickle=True)", "runs what it reads"),
        ("eval(text)", "runs what it reads"),
        ("subprocess.run(text, shell=True)", "a shell reads"),
        ("subprocess.run(text, shell=flag)", "a shell reads"),
        ("print(key)", "a secret is said"),
        ("log.info('%s', home.dek)", "a secret is said"),
        ("print(f'opened with {self.passphrase}')", "a secret is said"),
        ("if mac == expected: pass", "variable time"),
        ("ok = row.mac != other", "variable time"),
    ],
)
def test_the_lint_finds_what_was_planted(source: str, said: str) -> None:
    assert any(said in fault for fault in faults(source))


def test_the_lint_lets_ordinary_lines_pass() -> None:
    fine = (
        "from secrets import token_bytes\nmodel.eval()\nprint(key_count)\nhmac.compare_digest(mac, other)\nrun(a, shell=False)"
    )
    assert faults(fine) == []
