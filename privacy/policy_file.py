"""Reads a policy file; every fault names its field and the line of the YAML that caused it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from privacy.canonical import Digest, digest_of
from privacy.errors import PolicyError
from privacy.policy import Policy

Loc = tuple[str | int, ...]
_MAX_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """One thing that is wrong: where (dotted field and line), and what."""

    field: str
    line: int
    message: str


class PolicyFaults(PolicyError):
    """All faults of one file; the message carries the first, `faults` carries them all."""

    def __init__(self, path: str, faults: tuple[PolicyFault, ...]) -> None:
        first = faults[0]
        more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(
            "E-POLICY-002",
            f"{path} line {first.line}: {first.field}: {first.message}{more}",
            "Mend the field; `privet policy schema` describes each",
        )
        self.path = path
        self.faults = faults

    def __reduce__(self) -> tuple[type, tuple[str, tuple[PolicyFault, ...]]]:  # type: ignore[override]
        return (PolicyFaults, (self.path, self.faults))


def load_policy(path: Path) -> Policy:
    """Raises PolicyError E-POLICY-001 (unreadable, not YAML) or PolicyFaults E-POLICY-002 (fields)."""
    text = _read(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader, stricter)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "malformed"
        raise PolicyError("E-POLICY-001", f"{path.name}{where} is not valid YAML: {problem}", "Mend the syntax") from None
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        raise PolicyFaults(path.name, _faults(root, error)) from None


def policy_digest(policy: Policy) -> Digest:
    return digest_of(policy.canonical())  # type: ignore[arg-type]


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error, not the last one wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolicyError(
            "E-POLICY-001", f"{path} can't be read ({error.strerror})", "Give the path of a policy file"
        ) from None
    if len(data) > _MAX_BYTES:
        raise PolicyError("E-POLICY-001", f"{path.name} is larger than 1 MiB", "Give the path of a policy file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyError("E-POLICY-001", f"{path.name} is not UTF-8", "Save the policy as UTF-8") from None


def _faults(root: yaml.Node | None, error: ValidationError) -> tuple[PolicyFault, ...]:
    """By line. A list that is too short only because its entries are wrong is no fault of its own."""
    found = error.errors(include_url=False)
    locs = [tuple(e["loc"]) for e in found]
    faults = []
    for loc, fault in zip(locs, found, strict=True):
        within = any(len(other) > len(loc) and other[: len(loc)] == loc for other in locs)
        if not (fault["type"] == "too_short" and within):
            blamed = fault.get("ctx", {}).get("field")  # see privacy.policy.fault_in
            faults.append(_fault(root, (*loc, blamed) if isinstance(blamed, str) else loc, fault["msg"], fault["type"]))
    return tuple(sorted(faults, key=lambda f: f.line))


_WORDS = {
    "extra_forbidden": "unknown field",
    "missing": "missing; it has no default",
    "model_type": "should hold fields, each as `name: value`",
    "dict_type": "should hold entries, each as `name: value`",
    "tuple_type": "should be a list",
}


def _fault(root: yaml.Node | None, loc: Loc, message: str, kind: str) -> PolicyFault:
    loc = tuple(part for part in loc if part != "[key]")  # what pydantic puts after a key that is wrong itself
    text = _WORDS.get(kind, message.removeprefix("Value error, "))
    if not loc and kind == "model_type":
        text = "the file holds no mapping of fields"
    return PolicyFault(".".join(str(p) for p in loc) or "policy", _line(root, loc), text)


def _line(node: yaml.Node | None, loc: Loc) -> int:
    """Line of the deepest node on the way to `loc` that the file has."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in loc:
        found = _child(node, part)
        if found is None:
            return line
        key_line, node = found
        line = key_line
    return line


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None
