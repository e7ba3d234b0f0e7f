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
1 a defect of Privet. A `reason` stands inside a verdict, a reject or a row of the verifier, and has no remedy of its own.

| code | kind | cause | remedy |
|---|---|---|---|
"""

# Codes that several places give with words of their own, or with words known only when it happens.
SUMMARIES = {
    "E-BUNDLE-003": "a file that a bundle must have is missing",
    "E-CAP-011": "the command lacks what a raise of a cap, or a signature under it, needs",
    "E-CLAIM-002": "a file that a bundle must have is missing",
    "E-CLAIM-003": "the list of evidence is not that of a bundle",
    "E-CLAIM-005": "a statement is about another run, policy or file than it must be",
    "E-CLAIM-006": "the stage results do not chain, or a file is not what its stage wrote",
    "E-CLAIM-007": "the claimed epsilon is not what the mechanism trace gives",
    "E-CLAIM-011": "the release statement does not cover this evidence, these approvals and this journal",
    "E-CLAIM-013": "a part of the bundle is malformed in a way that nobody foresaw",
    "E-CLAIM-014": "not looked at, because what it rests on does not hold",
    "E-CLAIM-015": "a verdict that a release needs is missing, was not evaluated, or did not pass",
    "E-CLAIM-018": "an epsilon lower bound refutes the claim, or none was published at the level of the gate",
    "E-CLAIM-019": "the journal has no commitment to the canary coins before the training",
    "E-CLAIM-021": "a witness that the trust root names did not cosign a checkpoint of the journal over this evidence",
    "E-CLAIM-025": "the bill of materials names another model, file or privacy figure than the evidence",
    "E-CLAIM-027": "the evidence was made under another policy than the one in the bundle",
    "E-CLAIM-028": "a statement or a stage result is about another dataset than the one that was trained on",
    "E-CLAIM-029": "the model in the bundle is not the one that the statements are about",
    "E-CLAIM-030": "the mechanism trace in the bundle is not the one that the statements are about",
    "E-CLAIM-031": "the report in the bundle is not the one that the report stage wrote",
    "E-CLAIM-032": "a statement is missing",
    "E-CLAIM-033": "the journal, or the proof of an entry, is missing",
    "E-CLAIM-034": "a verdict says passed, and its document does not, or lacks a figure that the verdict rests on",
    "E-CLAIM-037": "the report shows other figures than the evidence, or a page of it others than its JSON",
    "E-COINS-002": "the coins of the canaries were drawn by somebody who may not: the pipeline, the requester, no auditor",
    "E-COINS-005": "the journal has these coins used by another training",
    "E-COINS-003": "the signed coins are of another commitment, another number of canaries or another pipeline",
    "E-AUDIT-010": "no set of coins by an auditor other than the requester can serve this training; nothing was reserved",
    "E-DAG-003": "a gate asks for more people of a role than the trust root names",
    "E-DAG-005": "a policy in the folder makes no DAG, for the reason given with its name",
    "E-EXPORT-002": "the key file is there already, would lie beside the data, or its folder does not exist",
    "E-GATE-042": "a condition of an approval is about something that the evidence does not say",
    "E-GATE-043": "a condition of an approval does not hold",
    "E-GATE-044": "the matter was referred to a role, and nobody of it has decided since",
    "E-GATE-046": "a role was signed in that was not lent, or not for this, not by its holder, or not at that time",
    "E-REVOKE-003": "this release, or its model, was revoked",
    "E-INGEST-005": "the source is not a local folder that can be read",
    "E-KEY-009": "the keyring can't be read or written (…)",
    "E-KMS-008": "kms.json does not describe a key service: settings missing, unknown or not safe for its token",
    "E-NOTE-001": "a signed note, checkpoint, proof or verifier key is malformed",
    "E-POLICY-002": "… line …: a field of the policy is unknown, missing, of a wrong type or contradicts another",
    "E-REDACT-001": "an output could not be searched, or findings were left in it after redaction",
    "E-RELEASE-003": "the ledger does not bear out the mechanism trace: no charge, another one, or a budget over its cap",
    "E-RELEASE-004": "the evidence names another requester or another run than this release",
    "E-TRAIN-032": "the parameters of layer … can't be clipped, for the reason given: not known, unfrozen or swapped since",
    "E-TRAIN-033": "layer … looks across the units of a batch, or Opacus' validator refuses it",
    "E-TRAIN-038": "the parameters that train, those that are clipped and those that get noise are not one set",
    "E-TRAIN-039": "a norm or the clipped sum differs from brute force, so clipping would not bound what a unit can do",
}


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
    """code → kind, cause, remedy. SUMMARIES win, then what raises the code, then reasons in tables and verdicts."""
    found: dict[str, tuple[str, str, str]] = {}
    for top in ("privacy", "training", "pipeline", "dags"):
        for path in sorted((ROOT / top).rglob("*.py")):
            tree = ast.parse(path.read_text())
            makers = _makers(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    _raised(node, makers, found)
                elif isinstance(node, ast.Dict):
                    _declared(node, found)
                elif isinstance(node, ast.Constant | ast.JoinedStr):
                    _reason(node, found)
            for code in CODE.findall(path.read_text()):
                found.setdefault(code, ("reason", "", ""))
    for code, cause in SUMMARIES.items():
        kind, _, remedy = found[code]
        found[code] = (kind, cause, remedy)
    return found


def _makers(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Functions and classes that stand for an error: name → the kind they make, the remedy that all of theirs share."""
    makers: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name):
            made = [r.value for r in ast.walk(node) if isinstance(r, ast.Return) and isinstance(r.value, ast.Call)]
            shared = text_of(made[0].args[2]) if made and len(made[0].args) > 2 else None
            makers[node.name] = (node.returns.id, shared or "")
        elif isinstance(node, ast.ClassDef) and node.bases and isinstance(node.bases[0], ast.Name):
            for call in ast.walk(node):  # super().__init__(code, ...) inside an error class of a module's own
                if isinstance(call, ast.Call) and call.args and CODE.fullmatch(text_of(call.args[0]) or ""):
                    makers.setdefault(f"__init__ {text_of(call.args[0])}", (node.bases[0].id, ""))
    return makers


def _raised(call: ast.Call, makers: dict[str, tuple[str, str]], found: dict[str, tuple[str, str, str]]) -> None:
    arguments = [text_of(a) for a in call.args]
    if len(arguments) < 2 or arguments[0] is None or not CODE.fullmatch(arguments[0]):
        return
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "error")
    kind, shared = makers.get(f"{name} {arguments[0]}", makers.get(name, (name, "")))
    remedy = (arguments[2] or "Do what the message says, which depends on the case") if len(arguments) > 2 else shared
    known = found.get(arguments[0])
    if known is None or not known[2]:
        found[arguments[0]] = (kind, arguments[1] or "…", remedy)


def _declared(table: ast.Dict, found: dict[str, tuple[str, str, str]]) -> None:
    """A table in the source whose keys are codes, such as REASONS of pipeline/records.py."""
    for key, value in zip(table.keys, table.values, strict=True):
        code, cause = text_of(key) if key else None, text_of(value)
        if code and cause and CODE.fullmatch(code) and not found.get(code, ("", "", ""))[2]:
            found[code] = ("reason", cause, "")


def _reason(node: ast.expr, found: dict[str, tuple[str, str, str]]) -> None:
    """The words after `E-XXX-NNN: ` in the reason of a verdict."""
    code, _, cause = (text_of(node) or "").partition(": ")
    if cause and CODE.fullmatch(code) and not found.get(code, ("", "", ""))[1]:
        found[code] = ("reason", cause, "")


def table() -> str:
    lines = [HEAD]
    for code, (kind, cause, remedy) in sorted(rows().items()):
        cells = [cell.replace("|", "\\|").strip() for cell in (code, kind, cause, remedy)]
        lines.append("| " + " | ".join(cells) + " |\n")
    return "".join(lines)


if __name__ == "__main__":
    (ROOT / "docs" / "errors.md").write_text(table())
