"""Makes bounds_jax_privacy.json and bounds_opake.json: what two public implementations say about fixed scores and counts.

Run once, in an environment of its own (dp-accounting, numpy, scipy; neither jax nor torch is needed, as only the modules
below are run, out of the wheels themselves):

    pip download --no-deps jax-privacy==2.0.0 opake-auditing==0.16.1
    python tests/vectors/make_bounds.py jax_privacy-2.0.0-py3-none-any.whl opake_auditing-0.16.1-py3-none-any.whl
"""

from __future__ import annotations

import hashlib
import json
import sys
import types
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
# canaries, guesses, right guesses, alpha, delta
COUNTS = [
    (m, r, v, alpha, delta)
    for m, r, v in ((100, 100, 100), (100, 20, 19), (500, 500, 420), (1000, 1000, 1000), (1000, 200, 196), (1000, 700, 480))
    for alpha in (0.05, 0.001)
    for delta in (1e-5, 1e-3)
]
P_VALUES = [(200, 100, v, epsilon, delta) for v in (50, 80, 100) for epsilon in (0.5, 2.0, 5.0) for delta in (0.0, 1e-4)]
MUS = [0.1, 0.5, 1.0, 2.0, 3.5, 6.0, 10.0]
DELTAS = [1e-6, 1e-5, 1e-3]


def scores(mu: float, canaries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of an exactly mu-GDP mechanism, rounded so that the JSON holds them exactly, and the coins."""
    generator = np.random.default_rng(seed)
    coins = generator.random(canaries) < 0.5
    return np.round(generator.standard_normal(canaries) + mu * coins, 6), coins


def module_of(wheel: Path, path: str, name: str, **needs: types.ModuleType) -> types.ModuleType:
    sys.modules.update(needs)
    made = types.ModuleType(name)
    sys.modules[name] = made
    with zipfile.ZipFile(wheel) as archive:
        exec(compile(archive.read(path), path, "exec"), made.__dict__)
    return made


def source(wheel: Path, modules: list[str]) -> dict[str, object]:
    package, version = wheel.name.split("-")[:2]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return {"package": package, "version": version, "wheel_sha256": digest, "modules": modules, "made_by": "make_bounds.py"}


def jax_privacy(wheel: Path) -> dict[str, object]:
    audit = module_of(wheel, "jax_privacy/auditing.py", "jax_privacy_auditing")
    counted = [
        {
            **dict(zip(("canaries", "guesses", "correct", "alpha", "delta"), row, strict=True)),
            "steinke": audit._epsilon_one_run(0, *row[:4], row[4]),
            "fdp": audit._epsilon_one_run_fdp(0, *row[:4], row[4]),
        }
        for row in COUNTS
    ]
    tails = [
        {
            **dict(zip(("canaries", "guesses", "correct", "epsilon", "delta"), row, strict=True)),
            "p_value": float(audit._one_run_p_value(*row)),
        }
        for row in P_VALUES
    ]
    vectors = []
    for mu, canaries, seed in ((1.0, 200, 1), (2.5, 400, 2), (0.0, 200, 3)):
        found, coins = scores(mu, canaries, seed)
        auditor = audit.CanaryScoreAuditor(found[coins], found[~coins])
        threshold = round(mu / 2, 6)
        explicit = audit.Explicit(threshold)
        vectors.append(
            {
                "scores": found.tolist(),
                "coins": coins.astype(int).tolist(),
                "threshold": threshold,
                "alpha": 0.05,
                "delta": 1e-5,
                "steinke_in_only": auditor.epsilon_one_run(0.05, 1e-5, threshold_strategy=explicit),
                "fdp_in_only": auditor.epsilon_one_run_fdp(0.05, 1e-5, threshold_strategy=explicit),
                "auroc": float(auditor.attack_auroc()),
            }
        )
    return {**source(wheel, ["jax_privacy/auditing.py"]), "counts": counted, "p_values": tails, "vectors": vectors}


def opake(wheel: Path) -> dict[str, object]:
    folder = "opake/api/auditing/one_run"
    errors = types.ModuleType("opake.exceptions")
    errors.ConfigurationError = errors.OperationError = ValueError  # type: ignore[attr-defined]
    stats = module_of(wheel, f"{folder}/_stats.py", "opake.api.auditing.one_run._stats", **{"opake.exceptions": errors})
    gdp = module_of(wheel, f"{folder}/_gdp.py", "opake_gdp")
    assert stats.search_ceiling
    converted = [{"mu": mu, "delta": delta, "epsilon": gdp._gdp_to_eps_delta(mu, delta)} for mu in MUS for delta in DELTAS]
    ordered = []
    for mu, canaries, seed in ((1.0, 200, 1), (2.5, 200, 2)):
        found, coins = scores(mu, canaries, seed)
        wrong = int(((found > mu / 2) != coins).sum())
        judged = types.SimpleNamespace(n_in=int(coins.sum()), n_out=int((~coins).sum()))
        judged._best_r_u = lambda threshold, wrong=wrong, all_of=canaries: (all_of, wrong)
        epsilon = gdp.GdpMethod(judged, grid_size=4000).epsilon_at(delta=1e-5, significance=0.05)
        row = {"mu": mu, "canaries": canaries, "seed": seed, "wrong": wrong, "delta": 1e-5, "level": 0.95}
        ordered.append({**row, "order_statistics_epsilon": epsilon})
    modules = [f"{folder}/_gdp.py", f"{folder}/_stats.py"]
    return {**source(wheel, modules), "gaussian_epsilon": converted, "order_statistics": ordered}


def write(name: str, value: dict[str, object]) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write("bounds_jax_privacy.json", jax_privacy(Path(sys.argv[1])))
    write("bounds_opake.json", opake(Path(sys.argv[2])))
