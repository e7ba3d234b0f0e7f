"""The forms for many machines, read and run with stand-ins: they start the same entry points, with flags that exist."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.launch import COMMAND, train_elsewhere
from pipeline.train_worker import build_parser
from privacy.errors import EnvironmentFault
from training import follower

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES, SLURM, RAY = DEPLOY / "kubernetes", DEPLOY / "slurm/training.sbatch", DEPLOY / "ray/train.py"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    made = yaml.safe_load_all((KUBERNETES / "training.yaml").read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in made}


def container(objects: dict[tuple[str, str], dict[str, Any]], job: str) -> dict[str, Any]:
    (only,) = objects["Job", job]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def environment(of: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in of["env"]}


def follower_flags(words: list[str]) -> None:
    """As `python -m training.follower` reads them, with nothing of a seat: it must get past the flags and miss the seat."""
    assert words[:1] == ["--environment"]
    for name in ("RANK", "WORLD_SIZE"):
        assert name not in os.environ
    assert follower.main(words) == 2


# ---- Kubernetes


def test_the_pods_start_entry_points_that_exist(
    objects: dict[tuple[str, str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    module, *arguments = container(objects, "privet-leader")["args"]
    assert module == "pipeline.train_worker"
    args = build_parser().parse_args(arguments)
    assert (args.protect, args.validate, args.run_id) == ("$(PROTECT)", "$(VALIDATE)", "$(RUN_ID)")
    script = container(objects, "privet-followers")["command"][2]
    words = shlex.split(script.replace("$((JOB_COMPLETION_INDEX + 1))", "1"))
    assert words[words.index("-m") + 1] == "training.follower"
    follower_flags(words[words.index("-m") + 2 :])
    assert "E-CREW-007" in capsys.readouterr().out


def test_the_pods_agree_on_who_they_are(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    leader, followers = (environment(container(objects, f"privet-{name}")) for name in ("leader", "followers"))
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", follower.TOKEN_FILE):
        assert leader[name] == followers[name]
    spec = objects["Job", "privet-followers"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(leader["WORLD_SIZE"]) - 1  # all at once, or they wait for ever
    service = objects["Service", leader["MASTER_ADDR"]]["spec"]
    assert service["clusterIP"] == "None"
    assert str(service["ports"][0]["port"]) == leader["MASTER_PORT"]
    labels = objects["Job", "privet-leader"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert leader["RANK"] == "0"
    assert "RANK" not in followers


def test_followers_see_neither_home_nor_keys_and_nobody_outside(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    def mounted(job: str) -> set[str]:
        volumes = {v["name"] for v in objects["Job", job]["spec"]["template"]["spec"]["volumes"]}
        used = {m["name"] for m in container(objects, job)["volumeMounts"]}
        assert volumes == used
        return used

    assert mounted("privet-leader") - mounted("privet-followers") == {"home", "keys", "policies"}
    assert "envFrom" not in container(objects, "privet-followers")
    (rule,) = objects["NetworkPolicy", "privet-training"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "privet-training"}}}]
    assert objects["NetworkPolicy", "privet-followers"]["spec"]["policyTypes"] == ["Egress"]


def test_pods_have_no_rights_and_are_not_started_twice(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    for job in ("privet-leader", "privet-followers"):
        spec, pod = objects["Job", job]["spec"], objects["Job", job]["spec"]["template"]["spec"]
        assert spec["backoffLimit"] == 0
        assert pod["restartPolicy"] == "Never"
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        own = container(objects, job)
        assert own["securityContext"]["readOnlyRootFilesystem"] is True
        assert own["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert own["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert not re.search(r"[0-9a-f]{32}", (KUBERNETES / "training.yaml").read_text())  # no token in it


KUBECTL = """#!/bin/bash
printf '%s\\n' "$*" >> "$LOG"
case "$*" in
  *"create secret"*) cat > "$TOKEN" ;;
  *succeeded}{*) printf x ;;
  *succeeded*) printf "$SUCCEEDED" ;;
esac
"""


@pytest.mark.parametrize(("succeeded", "code"), [("1", 0), ("", 1)])
def test_the_launcher_waits_cleans_up_and_shows_no_token(
    tmp_path: Path, succeeded: str, code: int, objects: dict[tuple[str, str], dict[str, Any]]
) -> None:
    log, token = tmp_path / "log", tmp_path / "token"
    program(tmp_path / "kubectl", KUBECTL)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "TOKEN": str(token), "SUCCEEDED": succeeded}
    env |= {"PROTECT": DIGEST, "VALIDATE": DIGEST, "RUN_ID": "run-1"}
    done = subprocess.run(["bash", str(KUBERNETES / "launch.sh")], env=env, capture_output=True, text=True)
    assert done.returncode == code
    calls = log.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", token.read_text())
    assert token.read_text() not in calls
    assert "delete --ignore-not-found secret/privet-crew configmap/privet-run" in calls.splitlines()[-1]
    assert "configmap privet-run" in calls
    assert container(objects, "privet-leader")["envFrom"] == [{"configMapRef": {"name": "privet-run"}}]


# ---- Slurm

SRUN = """#!/bin/bash
shift
for rank in 0 1; do SLURM_PROCID=$rank SLURM_NTASKS=2 "$@"; done
"""
PYTHON = """#!/bin/bash
printf '%s|%s|%s|%s|%s|%s\\n' "$RANK" "$WORLD_SIZE" "$MASTER_ADDR" "${PRIVET_HOME:-none}" \\
  "$(stat -c %a "$PRIVET_CREW_TOKEN_FILE") $(wc -c < "$PRIVET_CREW_TOKEN_FILE")" "$*" >> "$LOG"
"""


def test_the_slurm_job_starts_the_same_line_on_every_task(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program(tmp_path / "srun", SRUN)
    program(tmp_path / "python", PYTHON)
    program(tmp_path / "scontrol", "#!/bin/bash\nprintf 'node1\\nnode2\\n'\n")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "PYTHON": str(tmp_path / "python")}
    env |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "77", "PRIVET_HOME": "/the/home", "PRIVET_POLICY": "/p.yaml"}
    env |= {"PROTECT": DIGEST, "VALIDATE": DIGEST, "RUN_ID": "run-1"}
    subprocess.run(["bash", str(SLURM)], env=env, check=True, cwd=tmp_path)
    seen = [line.split("|") for line in log.read_text().splitlines()]
    assert [row[:5] for row in seen] == [
        ["0", "2", "node1", "/the/home", "600 64"],
        ["1", "2", "node1", "none", "600 64"],
    ]
    words = shlex.split(seen[0][5])
    assert words[:2] == ["-m", "pipeline.train_worker"]
    assert build_parser().parse_args(words[2:]).home == Path("/the/home")
    assert "/the/home" not in seen[1][5]
    assert list(tmp_path.glob(".privet-crew-*")) == []
    directives = dict(re.findall(r"(?m)^#SBATCH --([a-z-]+)(?:=(\S+))?$", SLURM.read_text()))
    assert directives["gpus-per-task"] == "1"
    assert "no-requeue" in directives


# ---- Ray


def test_the_ray_form_calls_the_worker_and_needs_ray_only_to_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("ray_form", RAY)
    assert spec is not None
    assert spec.loader is not None
    form = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(form)  # without ray
    assert "ray" not in sys.modules
    worker = ["--home", "h", "--policy", "p", "--protect", DIGEST, "--validate", DIGEST, "--run-id", "r"]
    args = form.build_parser().parse_args(["--workers", "2", "--gpu", "--token-file", "t", "--", *worker])
    assert build_parser().parse_args(args.arguments).run_id == "r"
    called: list[list[str]] = []
    monkeypatch.setattr("pipeline.train_worker.main", lambda arguments: called.append(arguments) or 0)
    monkeypatch.setenv(follower.TOKEN_FILE, "before")
    form.work({"token_file": "t", "arguments": args.arguments})
    assert called == [worker]
    assert os.environ[follower.TOKEN_FILE] == "t"
    monkeypatch.setattr("pipeline.train_worker.main", lambda arguments: 3)
    with pytest.raises(SystemExit) as ended:
        form.work({"token_file": "t", "arguments": []})
    assert ended.value.code == 3


# ---- from Airflow


def test_the_operators_command_gets_the_run_and_nothing_is_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    program(tmp_path / "command", f'#!/bin/bash\nprintf "%s %s %s %s" "$1" "$PROTECT" "$VALIDATE" "$RUN_ID" >> {log}\n')
    train_elsewhere("p", "v", "r")
    assert not log.exists()  # nobody asked for it
    monkeypatch.setenv(COMMAND, f"{tmp_path / 'command'} 'one word'")
    train_elsewhere("p", "v", "r")
    assert log.read_text() == "one word p v r"
    monkeypatch.setenv("WORLD_SIZE", "2")  # the leader that the command started
    train_elsewhere("p", "v", "r")
    assert log.read_text() == "one word p v r"


@pytest.mark.parametrize("command", ["false", "/no/such/program", "'unclosed"])
def test_a_command_that_fails_ends_the_task(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv(COMMAND, command)
    with pytest.raises(EnvironmentFault, match="E-CREW-014"):
        train_elsewhere("p", "v", "r")


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
