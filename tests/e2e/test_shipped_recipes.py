"""The shipped policies of pictures, recommendation and synthetic text, each from made-up data to a verified bundle, small."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.example_data import make_example
from pipeline.home import Home
from pipeline.images import NOT_SEARCHED
from pipeline.verify import verify_bundle
from privacy.policy_file import load_policy
from tests.training.lm_folder import make_lm_folder
from tests.worlds.leaks import LeakScanner

pytestmark = pytest.mark.slow
POLICIES = Path(__file__).resolve().parents[2] / "dags" / "policies"
# Fewer people and steps than the shipped policy; an honest run is refused once in 1 / probe_level.
SMALL: dict[str, dict[str, dict[str, object]]] = {
    "images": {"recipe": {"steps": 30}, "audit": {"min_accuracy": 0.2}},
    "recommendation": {"recipe": {"steps": 40}, "audit": {"min_accuracy": 0.2}},
    "private_text": {
        "recipe": {"steps": 30, "embedding_width": 16, "heads": 2, "hidden_layers": 1, "max_tokens": 40},
        "audit": {"min_accuracy": 0.0},
    },
    "private_text of public weights": {
        "recipe": {"steps": 30, "max_tokens": 40, "trains": "lora", "rank": 4, "pretrained": "llama", "learning_rate": 0.005},
        "audit": {"min_accuracy": 0.0},
    },
}
UNITS = 160


@dataclass(frozen=True)
class Done:
    home: Path
    bundle: Path
    planted: list[str]
    printed: str


@pytest.fixture(scope="module", params=sorted(SMALL))
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Done]:
    name, root = request.param.split()[0], tmp_path_factory.mktemp("run")
    value = yaml.safe_load((POLICIES / f"{name}.yaml").read_text())
    value["budget"] |= {"population": 150, "expected_batch_size": 40, "delta": 0.001}
    value["expectations"] |= {"min_records": 100, "min_units": 50}
    value["audit"] |= {"canaries": 120, "probe_level": 1e-6}
    for part, changes in SMALL[request.param].items():
        value[part] |= changes
    if "pretrained" in value["recipe"]:
        value["recipe"]["pretrained"] = f"folder:{make_lm_folder(root / 'llama')}"
    policy, folder, home = root / f"{name}.yaml", root / "landing", root / "home"
    policy.write_text(yaml.safe_dump(value, allow_unicode=True))
    made = make_example(load_policy(policy), folder, UNITS, 3)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(["run", str(policy), "--source", str(folder), "--home", str(home), "--demo-approvals"])
    printed = said.getvalue()
    assert code == 0, printed[-3000:]
    assert LeakScanner(made.planted).scan(folder) or name == "images"  # in pictures they stand as base64
    return name, Done(home, home / "releases" / name / "bundle", made.planted, printed)


def test_the_released_bundle_verifies_and_leaks_nothing(done: tuple[str, Done]) -> None:
    _, run = done
    assert verify_bundle(run.bundle, Home.open(run.home).trust, datetime.now(UTC)).exit_code == 0
    scanner = LeakScanner(run.planted)
    assert len(scanner.values) > 100
    assert scanner.scan(run.home) == []
    assert scanner.search(run.printed.encode()) == set()


def test_the_description_rebuilds_the_model(done: tuple[str, Done]) -> None:
    """What a consumer needs lies in the bundle: its own description, and tensors that fit it."""
    from safetensors.torch import load_file

    from privacy.policy import Policy
    from training.config import TrainingConfig
    from training.evaluate import load_released
    from training.recipes import recipe_of

    _, run = done
    config = TrainingConfig.from_policy(Policy.model_validate(json.loads((run.bundle / "policy.json").read_text())), 0.0)
    model = load_released(recipe_of(config).build(config), load_file(run.bundle / "model.safetensors"))
    assert sum(p.numel() for p in model.parameters()) > 0
    described = json.loads((run.bundle / "model" / "config.json").read_text())
    assert described == json.loads(json.dumps(recipe_of(config).describe(config)))
    assert str(run.home.parent) not in json.dumps(described)  # of public weights it names folder and digest, no path


def test_the_report_and_the_card_say_what_was_not_searched(done: tuple[str, Done]) -> None:
    name, run = done
    report = json.dumps(json.loads((run.bundle / "report.json").read_text()), ensure_ascii=False)
    card = (run.bundle / "CARD.md").read_text()
    said = NOT_SEARCHED.split(":")[0]
    assert (said in report) == (said in card) == (name == "images")


def test_only_the_language_model_writes_and_only_into_a_new_file(
    done: tuple[str, Done], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, run = done
    out = tmp_path / "chats.jsonl"
    trust = ["--trust", str(run.home / "trust.json")]
    command = ["synthesize", str(run.bundle), "--to", str(out), "--per-label", "3", "--seed", "5", *trust]
    code = main(command)
    if name != "private_text":
        assert code == 2
        assert "E-SYNTH-002" in capfd.readouterr().err
        assert not out.exists()
        return
    assert code == 0, capfd.readouterr().err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    withheld = 30 - len(rows)
    assert f"wrote {len(rows)} synthetic texts" in (said := capfd.readouterr().out)
    assert f"{withheld} were empty or not shown to be clean" in said
    assert len(rows) > 10
    assert all(row["synthetic"] is True and row["text"].strip() for row in rows)
    assert LeakScanner(run.planted).scan(tmp_path) == []
    assert out.stat().st_mode & 0o777 == 0o600
    assert main(command) == 2
    assert "E-SYNTH-003" in capfd.readouterr().err


def test_a_bundle_that_does_not_verify_writes_nothing(
    done: tuple[str, Done], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import shutil

    _, run = done
    shutil.copytree(run.bundle, tmp_path / "bundle")
    model = tmp_path / "bundle" / "model.safetensors"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(bytes(data))
    assert main(["synthesize", str(tmp_path / "bundle"), "--to", str(tmp_path / "out")]) == 3
    assert "E-SYNTH-001" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
