"""Writes docs/errors.md from the source, so that the table of error codes can't drift: python docs/make_errors.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"E-[A-Z]+-[0-9]{3}")
HEAD = """# Error codes

Every error is one sentence: code, cause, remedy; never a raw value. Made from the source by `python docs/make_errors.py`;
a test holds that it is complete. `…` stands for a count, a name of a field or file, a type or a digest.

The exit code follows from the kind: 2 usage, policy, data or machine; 3 a gate or a budget is closed; 4 integrity broken;
1 a defect of Privet. Codes without a remedy of their own are reasons inside a verdict or a reject.

| code | kind | cause | remedy |
|---|---|---|---|
"""


def text_of(node: ast.expr) -> str | None:
    """The constant parts of a string expression, `…` for the rest."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) and isinstance(p.value, str) else "…" for p in node.values)
    if isinstance(node, ast.BinOp):
        left, right = text_of(node.left), text_of(node.right)
        return f"{left or '…'}{right or '…'}"
    return None


def rows() -> dict[str, tuple[str, str, str]]:
    """code → kind, cause, remedy. The first place that raises it with all three wins."""
    found: dict[str, tuple[str, str, str]] = {}
    for top in ("privacy", "training", "pipeline", "dags"):
        for path in sorted((ROOT / top).rglob("*.py")):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    _raised(node, found)
            for code in CODE.findall(path.read_text()):
                found.setdefault(code, ("reason", _inline(path, code), ""))
    return found


def _raised(call: ast.Call, found: dict[str, tuple[str, str, str]]) -> None:
    arguments = [text_of(a) for a in call.args]
    if len(arguments) < 2 or arguments[0] is None or not CODE.fullmatch(arguments[0]):
        return
    kind = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "error")
    known = found.get(arguments[0])
    if known is None or not known[2]:
        cause = arguments[1] or "…"
        remedy = (arguments[2] if len(arguments) > 2 else "") or ""
        found[arguments[0]] = (kind, cause, remedy)


def _inline(path: Path, code: str) -> str:
    """The words after a code inside a string or a table, as far as they are on its line."""
    for line in path.read_text().splitlines():
        if code in line:
            words = re.sub(r"[{}\"'(),\[\]]", " ", line.split(code, 1)[1]).strip(" :=-|")
            return re.sub(r"\s+", " ", words)[:140]
    return ""


def table() -> str:
    lines = [HEAD]
    for code, (kind, cause, remedy) in sorted(rows().items()):
        cells = [cell.replace("|", "\\|").strip() for cell in (code, kind, cause, remedy)]
        lines.append("| " + " | ".join(cells) + " |\n")
    return "".join(lines)


if __name__ == "__main__":
    (ROOT / "docs" / "errors.md").write_text(table())
