"""The container files, read as a builder would: every path, pin, setting, secret and command they name is there."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PINNED_IMAGE = re.compile(r"[a-z0-9./-]+:\d+(\.\d+)+(-[a-z]+)*")
OWN_IMAGE = "privet:0.1.0"


def instructions() -> list[tuple[str, str]]:
    """Dockerfile instructions in order, comments gone and continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text())
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def of(kind: str) -> list[str]:
    return [rest for word, rest in instructions() if word == kind]


def image_environment() -> dict[str, str]:
    return dict(part.split("=", 1) for rest in of("ENV") for part in shlex.split(rest))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return value


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def parse_airflow(arguments: list[str]) -> None:
    from airflow.cli.cli_parser import get_parser

    get_parser().parse_args(arguments)


def parse_privet(arguments: list[str]) -> None:
    from pipeline.cli import build_parser

    build_parser().parse_args(arguments)


def known_settings() -> set[tuple[str, str]]:
    from airflow.configuration import conf

    return {(section, key) for section, part in conf.configuration_description.items() for key in part["options"]}


# ---- Dockerfile


def test_every_base_image_is_pinned() -> None:
    bases = {rest.split()[0] for rest in of("FROM")}
    assert bases
    assert all(PINNED_IMAGE.fullmatch(base) for base in bases), bases
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    version = next(iter(bases)).split(":")[1].split("-")[0]
    from packaging.specifiers import SpecifierSet

    assert version in SpecifierSet(wanted)


def test_every_copied_path_is_in_the_tree_and_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for rest in of("COPY"):
        *sources, _ = [part for part in rest.split() if not part.startswith("--")]
        if "--from=build" in rest:
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source.rstrip("/") in allowed, f".dockerignore keeps {source} out"


def test_every_package_is_pinned_by_version_and_hash() -> None:
    installs = [rest for rest in of("RUN") if "pip install" in rest]
    locked, torch, own = (
        [i for i in installs if "requirements.lock" in i],
        [i for i in installs if "torch==" in i],
        [i for i in installs if i.endswith(" .")],
    )
    assert len(locked) == len(torch) == len(own) == 1
    assert len(installs) == 3
    assert "--require-hashes" in locked[0]
    assert all("--no-deps" in install for install in installs)
    pins = re.findall(r"(?m)^([a-z0-9_.-]+)==(\S+)", (ROOT / "requirements.lock").read_text())
    assert {"apache-airflow-core", "psycopg2-binary", "setuptools"} <= {name for name, _ in pins}
    assert "torch" not in dict(pins)
    declared = next(
        d for d in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"] if d.startswith("torch==")
    )
    assert f" {declared}+cpu" in torch[0]


def test_the_installed_package_lacks_no_module() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    copied = {Path(source).name for rest in of("COPY") for source in rest.split()[:-1]}
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("pipeline", "privacy", "training")
        for path in (ROOT / top).rglob("*.py")
    }
    assert there == set(listed)
    assert {name.split(".")[0] for name in listed} <= copied


def test_the_image_names_the_folder_its_dags_are_copied_to() -> None:
    """The installed package holds no DAG, so `privet demo` and `privet airflow` would find none."""
    target = next(rest.split()[-1] for rest in of("COPY") if rest.split()[0] == "dags")
    settings = dict(pair.split("=", 1) for rest in of("ENV") for pair in rest.split())
    assert settings["PRIVET_DAGS"] == settings["AIRFLOW__CORE__DAGS_FOLDER"] == target


def test_it_does_not_run_as_root() -> None:
    assert of("USER")[-1] == "10001:10001"
    last = [word for word, _ in instructions()]
    assert last.index("USER") > max(i for i, word in enumerate(last) if word == "RUN")


def test_its_default_command_parses() -> None:
    module, *arguments = json.loads(of("CMD")[0])
    assert module == "pipeline.cli"
    with pytest.raises(SystemExit) as stopped:
        parse_privet(arguments)
    assert stopped.value.code == 0
    assert json.loads(of("ENTRYPOINT")[0]) == ["/opt/venv/bin/python", "-m"]


def test_no_secret_is_baked_in() -> None:
    text = (DEPLOY / "Dockerfile").read_text().lower()
    assert not re.search(r"(password|secret|token|fernet)\s*=", text)


# ---- compose


def test_every_image_is_pinned_or_built_here(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert PINNED_IMAGE.fullmatch(service["image"]), name
        if service["image"] == OWN_IMAGE:
            build = service["build"]
            assert (DEPLOY / build["context"]).resolve() == ROOT
            assert (ROOT / build["dockerfile"]).is_file()
        else:
            assert "build" not in service
    assert services["postgres"]["image"].startswith("postgres:15.")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert OWN_IMAGE.endswith(version)


def test_every_airflow_command_and_health_check_parses(services: dict[str, Any]) -> None:
    commands = [s["command"][1:] for s in services.values() if s.get("command", [""])[0:1] == ["airflow"]]
    checks = [s["healthcheck"]["test"] for s in services.values() if "healthcheck" in s]
    commands += [check[2:] for check in checks if check[1] == "/opt/venv/bin/airflow"]
    assert {c[0] for c in commands} == {"db", "api-server", "scheduler", "dag-processor", "jobs"}
    for command in commands:
        parse_airflow(command)


def test_every_setting_is_one_that_this_airflow_knows(services: dict[str, Any]) -> None:
    from airflow.configuration import conf

    known = known_settings()
    for environment in [s.get("environment", {}) for s in services.values()] + [image_environment()]:
        for name in environment:
            if name.startswith("AIRFLOW__"):
                _, section, key = name.lower().split("__")
                plain = key.removesuffix("_cmd") if name.endswith("_CMD") else key
                assert (section, plain) in known, name
                assert not name.endswith("_CMD") or (section, plain) in conf.sensitive_config_values, f"{name} is not read"


def test_every_secret_is_declared_made_and_read(compose: dict[str, Any], services: dict[str, Any]) -> None:
    declared = set(compose["secrets"])
    script = (DEPLOY / "make-secrets.sh").read_text()
    for name, secret in compose["secrets"].items():
        assert secret["file"] == f"secrets/{name}"
        assert name in script
    for service, body in services.items():
        mounted = set(body.get("secrets", []))
        read = set(re.findall(r"/run/secrets/([a-z_]+)", json.dumps(body)))
        assert read == mounted, service
        assert mounted <= declared
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text()


def test_every_volume_and_network_is_declared_and_mounted_where_the_image_expects_it(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    environment = image_environment()
    targets = {"home": environment["PRIVET_HOME"], "airflow": environment["AIRFLOW_HOME"]}
    made = next(rest for rest in of("RUN") if "install --directory" in rest)
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source, target = re.sub(r"\$\{[^}]*\}", "bind", volume).split(":")[:2]
            assert source == "bind" or source in compose["volumes"]
            assert targets.get(source, target) == target, name
        for network in service.get("networks", []):
            assert network in compose["networks"]
        assert not ("networks" in service and "network_mode" in service), "compose refuses both"
        assert "networks" in service or "network_mode" in service, f"{name} would join the default network, which leads out"
    assert all(target in made for target in targets.values())


def test_the_privet_services_have_no_rights_they_do_not_need(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if service["image"] != OWN_IMAGE:
            continue
        assert service["user"] == "10001:10001", name
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
    writers = {n for n, s in services.items() if any(v == "home:/var/lib/privet" for v in s.get("volumes", []))}
    assert writers == {"scheduler", "privet"}
    assert {n for n, s in services.items() if ":/landing" in json.dumps(s)} == {"scheduler"}


def test_only_the_api_is_published_and_only_to_this_machine(compose: dict[str, Any], services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api-server": ["127.0.0.1:8080:8080"]}
    assert compose["networks"]["inside"]["internal"] is True
    assert {n for n, s in services.items() if "outside" in s.get("networks", [])} == {"api-server"}


def test_what_opens_the_keys_goes_to_the_services_that_open_them_and_to_no_other(services: dict[str, Any]) -> None:
    """By the names that the code reads, and as files: a key in the environment would be in every listing."""
    from pipeline import key_home

    read = set(re.findall(r"PRIVET_[A-Z_]+", Path(key_home.__file__).read_text())) - {"PRIVET_PASSPHRASE_FD"}
    for name, service in services.items():
        given = {key for key in service.get("environment", {}) if key in read}
        assert given == (read if name in ("scheduler", "privet") else set()), name
        assert any("/run/privet-keys:ro" in volume for volume in service.get("volumes", [])) == bool(given)
    assert "/keys/" in (DEPLOY / ".gitignore").read_text()


def test_services_wait_for_what_they_need(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, rule in service.get("depends_on", {}).items():
            assert other in services, name
            assert rule["condition"] != "service_healthy" or "healthcheck" in services[other]
    assert services["api-server"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["scheduler"]["environment"]["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].startswith("http://api-server:8080/")


def test_gates_get_the_heartbeat_that_airflows_race_needs(services: dict[str, Any]) -> None:
    assert services["scheduler"]["environment"]["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] == "1"


def test_what_keeps_data_and_secrets_out_of_airflow_is_set_for_every_process(services: dict[str, Any]) -> None:
    from airflow.executors.local_executor import LocalExecutor
    from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
    from airflow.sdk.bases.xcom import BaseXCom

    from pipeline.airflow_local import _GUARDS

    kinds = {"EXECUTOR": LocalExecutor, "XCOM_BACKEND": BaseXCom, "SECRETS_BACKEND": BaseSecretsBackend}
    running = [s for s in services.values() if s.get("command", [""])[0:1] == ["airflow"]]
    assert len(running) >= 4
    for service in running:
        for name, path in _GUARDS.items():
            assert service["environment"][name] == path
            module, _, kind = path.rpartition(".")
            assert issubclass(getattr(importlib.import_module(module), kind), kinds[name.split("__")[-1]])


# ---- the script and the guide


def test_the_secrets_script_makes_what_compose_reads_and_keeps_it(tmp_path: Path, compose: dict[str, Any]) -> None:
    shutil.copy(DEPLOY / "make-secrets.sh", tmp_path)
    run = ["bash", str(tmp_path / "make-secrets.sh"), "alice", "bob"]
    subprocess.run(run, check=True, capture_output=True)
    made = {name: (tmp_path / "secrets" / name).read_text() for name in compose["secrets"]}
    assert all(len(text) >= 40 for text in made.values())
    assert set(json.loads(made["airflow_passwords"])) == {"alice", "bob"}
    assert made["postgres_password"] in made["sql_alchemy_conn"]
    from cryptography.fernet import Fernet
    from sqlalchemy.engine import make_url

    Fernet(made["fernet_key"])
    assert make_url(made["sql_alchemy_conn"]).host == "postgres"
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    assert "PRIVET_AIRFLOW_USERS=alice:user,bob:user" in (tmp_path / ".env").read_text()
    subprocess.run(run, check=True, capture_output=True)
    assert made == {name: (tmp_path / "secrets" / name).read_text() for name in compose["secrets"]}


@pytest.mark.parametrize("name", ["a:admin", "a,b", 'a"', ""])
def test_the_secrets_script_takes_no_name_that_would_give_rights(tmp_path: Path, name: str) -> None:
    shutil.copy(DEPLOY / "make-secrets.sh", tmp_path)
    done = subprocess.run(["bash", str(tmp_path / "make-secrets.sh"), name], capture_output=True, env=dict(os.environ))
    assert done.returncode == 2
    assert not (tmp_path / ".env").exists()


def test_every_command_of_the_guide_parses(services: dict[str, Any]) -> None:
    lines = re.findall(r"(?m)^\$ (.*?)(?:\s+#.*)?$", (DEPLOY / "README.md").read_text())
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        if words[0] == "bash":
            assert (ROOT / words[1]).is_file()
            continue
        assert words[:4] == ["docker", "compose", "--file", "deploy/compose.yaml"]
        if words[4] == "run":
            assert words[6] == "privet"
            assert "privet" in services
            parse_privet(words[7:])
