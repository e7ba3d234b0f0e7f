"""Finds what has no place in a DAG file, whose source Airflow copies into its database (`dag_code`) for everybody to read."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator

_SHAPES = {
    "a URI with a password": r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@",
    "a private key": r"-----BEGIN",
    "an access key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bxox[abprs]-[\w-]{10,}|\bsk-[\w-]{16,}",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{8,}\.",
    "an e-mail address": r"[\w.+-]+@[\w-]+\.[a-z]{2,}",
    "a long number": r"\d{7,}",
}
_SECRET_NAME = re.compile(r"password|passwd|secret|token|api_?key|private_?key|credential", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_LOOKUPS = {("Variable", "get"), ("Connection", "get"), ("BaseHook", "get_connection")}
_RANDOM_BITS = 3.9  # per character; English and identifiers stay below


def faults(source: str) -> list[str]:
    """`line: what`, for every fault of the file."""
    tree = ast.parse(source)
    found = [*_literals(tree), *_named_secrets(tree), *_early_lookups(tree), *_logged_results(tree)]
    return [f"{line}: {what}" for line, what in sorted(found)]


def _literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str | bytes | int) or isinstance(node.value, bool):
            continue
        text = node.value.decode("latin-1") if isinstance(node.value, bytes) else str(node.value)
        for what, shape in _SHAPES.items():
            if re.search(shape, text):
                yield node.lineno, what
        if any(_looks_random(token) for token in _TOKEN.findall(text)):
            yield node.lineno, "a string that looks random"


def _looks_random(token: str) -> bool:
    counts, size = Counter(token), len(token)
    bits = -sum(n / size * math.log2(n / size) for n in counts.values())
    kinds = sum(bool(re.search(kind, token)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    hexadecimal = re.fullmatch(r"[0-9a-f]{32,}|[0-9A-F]{32,}", token) is not None and bits > 3
    return hexadecimal or (kinds == 3 and bits > _RANDOM_BITS) or bits > 4.7


def _named_secrets(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """password = "…", {"password": "…"}, call(password="…")."""
    for node in ast.walk(tree):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.Assign):
            pairs = [(ast.unparse(target), node.value) for target in node.targets]
        elif isinstance(node, ast.AnnAssign):
            pairs = [(ast.unparse(node.target), node.value)]
        elif isinstance(node, ast.keyword):
            pairs = [(node.arg or "", node.value)]
        elif isinstance(node, ast.Dict):
            pairs = [(k.value, v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
        for name, value in pairs:
            literal = isinstance(value, ast.Constant) and isinstance(value.value, str | bytes) and value.value
            if literal and isinstance(name, str) and _SECRET_NAME.search(name):
                assert value is not None
                yield value.lineno, "a secret by its name"


def _early_lookups(tree: ast.AST, inside_task: bool = False) -> Iterator[tuple[int, str]]:
    """Lookups that run when the file is parsed: each parse would unwrap the secret."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            task = any("task" in ast.unparse(d) for d in node.decorator_list)
            yield from _early_lookups(node, inside_task or task)
            continue
        if not inside_task and isinstance(node, ast.Call) and tuple(ast.unparse(node.func).split(".")[-2:]) in _LOOKUPS:
            yield node.lineno, "a secret looked up while the file is parsed"
        yield from _early_lookups(node, inside_task)


def _logged_results(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every @task says show_return_value_in_logs=False itself; the cluster policy is the second line."""
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", []):
            name = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
            if name != "task" and not name.startswith("task."):
                continue
            given = {k.arg: k.value for k in decorator.keywords} if isinstance(decorator, ast.Call) else {}
            shown = given.get("show_return_value_in_logs")
            if not (isinstance(shown, ast.Constant) and shown.value is False):
                yield decorator.lineno, "a task whose result is logged"
