"""`privet keys`: make, list, rotate, destroy and hand out keys; nothing here ever prints one."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.errors import UsageError

if TYPE_CHECKING:
    from pipeline.key_home import KmsChoice
    from privacy.keys import Keyring
    from privacy.kms.local import LocalKms


def kms_choice(backend: str | None, settings: Sequence[str]) -> KmsChoice | None:
    """From the options of privet init; files by their whole path, as tasks run elsewhere. Raises UsageError E-KMS-008."""
    from pipeline.key_home import FILES, KmsChoice

    if backend is None and not settings:
        return None
    pairs = [text.partition("=") for text in settings]
    if any(not name or not mark for name, mark, _ in pairs):
        raise UsageError("E-KMS-008", "a setting of the key service is not NAME=VALUE", "Write it as address=https://…")
    chosen = {name: str(Path(value).absolute()) if value and name in FILES else value for name, _, value in pairs}
    prefix = chosen.pop("prefix", None)
    backend = backend or "local"
    return KmsChoice(backend, chosen) if prefix is None else KmsChoice(backend, chosen, prefix)


def keys_init(args: Namespace) -> int:
    """Every domain of a dataset that this role may read; the others need a role that may."""
    from pipeline.home import Home
    from privacy.roles import GROUPS, group_of, groups_unwrapped_by

    keyring = Home.open(args.home).keyring
    mine = groups_unwrapped_by(keyring.role)
    for data_class in (name for classes in GROUPS.values() for name in classes if group_of(name) in mine):
        keyring.ensure(f"{args.dataset}/{data_class}")
        print(f"{args.dataset}/{data_class}: epoch {keyring.epochs(f'{args.dataset}/{data_class}')[-1].epoch}")
    return 0


def keys_list(args: Namespace) -> int:
    from pipeline.home import Home

    home = Home.open(args.home)
    keyring = home.keyring
    rows = _rows(keyring)
    if args.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    state = keyring.state
    print(f"key service {keyring.kms.backend}; keyring generation {state.generation}; opened as {keyring.role}")
    print(f"{'domain':<40}{'epoch':>6}  {'state':<10}{'made':<27}key of the service")
    for row in rows:
        of = f"{row['kms_key']} v{row['kms_version']}" if row["kms_key"] else "-"
        print(f"{row['domain']:<40}{row['epoch']:>6}  {row['state']:<10}{row['created_at']:<27}{of}")
    for key_id, version in state.doomed.items():
        print(f"not finished: {key_id} up to v{version} is to be destroyed; privet keys rotate finishes it")
    for role, keys in _local_grants(keyring).items():
        print(f"role key: {role} opens {len(keys)} keys of the service")
    return 0


def keys_rotate(args: Namespace) -> int:
    from pipeline.home import Home
    from privacy.keyring_book import ALL_GROUPS

    keyring = Home.open(args.home).keyring
    if args.domain is not None:
        _refuse_unknown(keyring, args.domain)
        print(f"{args.domain}: epoch {keyring.new_epoch(args.domain)}; older epochs still open what they wrapped")
        return 0
    if args.group is not None and args.group not in ALL_GROUPS:
        raise UsageError("E-KEY-016", "there is no such group of keys", f"Use one of {', '.join(ALL_GROUPS)}")
    groups = ALL_GROUPS if args.group is None else (args.group,)
    rows = keyring.rotate_root(groups)
    print(f"rotated {len(groups)} keys of the service and rewrapped {rows} rows; no data was written")
    return 0


def keys_destroy(args: Namespace) -> int:
    from pipeline.home import Home

    if args.yes != args.domain:
        raise UsageError(
            "E-KEY-017",
            "what is to be destroyed was not confirmed",
            "Repeat the domain: --yes DOMAIN; there is no way back",
        )
    keyring = Home.open(args.home).keyring
    _refuse_unknown(keyring, args.domain)
    gone = keyring.destroy(args.domain) if args.epoch is None else keyring.destroy_epoch(args.domain, args.epoch)
    what = args.domain if args.epoch is None else f"epoch {args.epoch} of {args.domain}"
    print(f"{what}: destroyed; what it wrapped can't be opened again" if gone else f"{what}: was not live")
    return 0


def keys_grant(args: Namespace) -> int:
    from pipeline.home import Home
    from privacy.roles import RING, groups_unwrapped_by

    home = Home.open(args.home)
    _refuse_unknown_role(args.role)
    keyring, local = home.keyring, _local(home.keyring)
    groups = (RING, *groups_unwrapped_by(args.role))
    home.journal.append("key_grant", {"role": args.role, "groups": list(groups)})
    local.grant(args.role, [keyring.state.key_id(group) for group in groups], args.to)
    print(f"wrote the key of the role {args.role} to {args.to}; it opens: {', '.join(groups)}")
    print(
        f"use it with PRIVET_ROLE_KEY={args.to}, where {home.path / 'root.key'} can't be read: elsewhere it holds nobody back"
    )
    return 0


def keys_revoke(args: Namespace) -> int:
    """Off the list first, then new versions of what the key could open: it is of no use for what comes.

    Killed in between, the same command again finishes it: new versions harm nobody.
    """
    from pipeline.home import Home
    from privacy.roles import RING, groups_unwrapped_by

    home = Home.open(args.home)
    _refuse_unknown_role(args.role)
    keyring, local = home.keyring, _local(home.keyring)
    begun = any(e.kind == "key_grant" and e.facts.get("role") == args.role for e in home.journal.entries())
    home.journal.append("key_revoke", {"role": args.role})
    if begun and args.role not in local.granted():
        opened = tuple(keyring.state.key_id(group) for group in (RING, *groups_unwrapped_by(args.role)))
    else:
        opened = local.revoke(args.role)
    prefix = keyring.state.prefix
    rows = keyring.rotate_root([key_id.removeprefix(f"{prefix}-") for key_id in opened])
    print(f"the key of the role {args.role} opens nothing any more; {len(opened)} keys rotated, {rows} rows rewrapped")
    print("what its holder may have copied before is not affected: start new epochs with privet keys rotate --domain")
    return 0


def keys_policy(args: Namespace) -> int:
    from pipeline.home import Home
    from pipeline.key_home import chosen_kms

    _refuse_unknown_role(args.role)
    choice = chosen_kms(Home.open(args.home))
    if choice.backend != "openbao":
        raise UsageError(
            "E-KEY-018",
            f"policies are for OpenBao and Vault, and this home uses {choice.backend}",
            "For the local key service use privet keys grant; for AWS grant kms:Decrypt on the aliases that keys list shows",
        )
    print(openbao_policy(args.role, choice.prefix, choice.settings.get("mount", "transit")), end="")
    return 0


def openbao_policy(role: str, prefix: str, mount: str) -> str:
    """HCL. Only "update": with "create" a misspelt key would be made by the first wrap."""
    from privacy.roles import GROUPS, OPERATOR, RING, groups_destroyed_by, groups_unwrapped_by

    opened = (RING, *groups_unwrapped_by(role))
    rights: dict[str, tuple[str, ...]] = {}
    for group in opened:
        key = f"{prefix}-{group}"
        verbs = ("decrypt",) if group == RING and role != OPERATOR else ("encrypt", "decrypt", "rewrap")
        rights |= {f"{mount}/{verb}/{key}": ("update",) for verb in verbs} | {f"{mount}/keys/{key}": ("read",)}
    managed = (RING, *GROUPS) if role == OPERATOR else groups_destroyed_by(role)
    for group in managed:
        key = f"{prefix}-{group}"
        rights |= {f"{mount}/keys/{key}/{verb}": ("update",) for verb in ("rotate", "config", "trim")}
        of_key = ("create", "update", "read") if role == OPERATOR else ("read",)
        rights |= {f"{mount}/rewrap/{key}": ("update",), f"{mount}/keys/{key}": of_key}
    paths = "".join(f'path "{path}" {{ capabilities = {json.dumps(list(of))} }}\n' for path, of in sorted(rights.items()))
    return f"# Privet role {role}: opens {', '.join(opened)}\n{paths}"


def _rows(keyring: Keyring) -> list[dict[str, str | int]]:
    found: list[dict[str, str | int]] = []
    for domain, epochs in sorted(keyring.state.domains.items()):
        for epoch, row in sorted(epochs.items()):
            live = row.wrapped
            found.append(
                {
                    "domain": domain,
                    "epoch": epoch,
                    "state": "destroyed" if live is None else "live",
                    "created_at": row.created_at,
                    "kms_key": "" if live is None else live.key_id,
                    "kms_version": 0 if live is None else live.version,
                }
            )
    return found


def _local(keyring: Keyring) -> LocalKms:
    from privacy.kms.local import LocalKms

    if not isinstance(keyring.kms, LocalKms):
        raise UsageError(
            "E-KEY-019",
            "role keys are for the local key service",
            "Give each role a token of the key service instead: privet keys policy ROLE",
        )
    return keyring.kms


def _local_grants(keyring: Keyring) -> Mapping[str, tuple[str, ...]]:
    from privacy.kms.local import LocalKms

    return keyring.kms.granted() if isinstance(keyring.kms, LocalKms) else {}


def _refuse_unknown_role(role: str) -> None:
    from privacy.roles import OPERATOR, ROLES

    if role not in ROLES or role == OPERATOR:
        known = ", ".join(name for name in ROLES if name != OPERATOR)
        raise UsageError("E-KEY-020", "there is no such role to hand out", f"Use one of {known}")


def _refuse_unknown(keyring: Keyring, domain: str) -> None:
    if not keyring.epochs(domain):
        raise UsageError("E-KEY-021", "the keyring has no such domain", "See privet keys list; names are DATASET/CLASS")
