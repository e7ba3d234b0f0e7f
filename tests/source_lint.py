"""What no source file of Privet may do, found in its syntax tree: each rule is a trap that a review overlooks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

LOADS_CODE = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
RUNS_CODE = {"eval", "exec", "torch.load", "os.system", "os.popen"}
_SECRET = re.compile(r"(^|_)(key|dek|kek|secret|passphrase|pin|token|seed|plaintext)$")
_MAC = re.compile(r"(^|_)(mac|hmac|tag)$")
_SAYS = {"print", "log.debug", "log.info", "log.warning", "log.error", "log.exception"}


def faults(source: str, *, made_up_data: bool = False) -> list[str]:
    """`made_up_data`: the module invents people or canaries, where a seeded generator is the point."""
    return sorted({fault for node in ast.walk(ast.parse(source)) for fault in _faults(node, made_up_data)})


def _faults(node: ast.AST, made_up_data: bool) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        roots = {name.split(".")[0] for name in names}
        yield from (f"{name} loads code" for name in roots & LOADS_CODE)
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in RUNS_CODE:
            yield f"{name} runs what it reads"
        if not made_up_data and (
            name == "Random" or (name.startswith("random.") and not name.startswith("random.SystemRandom"))
        ):
            yield "a seeded generator is no source of secrets"
        if _is_on(node, "shell"):
            yield "a shell reads the command"
        if _is_on(node, "allow_pickle"):
            yield f"{name} runs what it reads"
        if name in _SAYS and any(_is(part, _SECRET) for argument in node.args for part in _shown(argument)):
            yield "a secret is said"
    elif isinstance(node, ast.Compare):
        by_value = any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
        if by_value and any(_is(side, _MAC) for side in (node.left, *node.comparators)):
            yield "a MAC is compared in variable time"


def _is_on(call: ast.Call, option: str) -> bool:
    """Given, and not plainly False."""
    return any(k.arg == option and not (isinstance(k.value, ast.Constant) and k.value.value is False) for k in call.keywords)


def _shown(argument: ast.expr) -> Iterator[ast.expr]:
    """The argument itself, and what an f-string puts in as it is."""
    yield argument
    if isinstance(argument, ast.JoinedStr):
        yield from (part.value for part in argument.values if isinstance(part, ast.FormattedValue))


def _is(node: ast.expr, pattern: re.Pattern[str]) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return pattern.search(name) is not None
