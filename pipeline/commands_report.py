"""`privet report`: a report as PDF, its crosswalks, and an entry for the public registry of deployments."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.canonical import Json, is_digest, parse_json
from privacy.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from pipeline.report_words import Language

Leaf = Callable[..., ArgumentParser]
_PAGES = {"en": ("report.html", "report_html"), "zh": ("report.zh.html", "report_zh")}
_MOST_BYTES = 64 * 1024 * 1024


def register(group: Any, leaf: Leaf) -> None:
    """group: of the subcommands of `privet report`; leaf: makes one of them."""
    from pipeline.registry import CURATORS

    home = Path(os.environ.get("PRIVET_HOME", ".privet"))
    where = "a bundle's folder, or the manifest digest of a report stage in the home"
    pdf = leaf(group, "pdf", report_pdf, "write a report as PDF; loads nothing from any network")
    pdf.add_argument("what", metavar="BUNDLE|DIGEST", help=where)
    pdf.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PDF to write")
    pdf.add_argument("--language", choices=("en", "zh"), default="en", help="of the page (default en)")
    crosswalk = leaf(group, "crosswalk", report_crosswalk, "what in a report is evidence for which law or standard")
    crosswalk.add_argument("name", metavar="NAME", help="of the crosswalk, or list for their names")
    crosswalk.add_argument("what", metavar="BUNDLE|DIGEST", nargs="?", help=where + "; without it, what each row refers to")
    crosswalk.add_argument("--language", choices=("en", "zh"), default="en", help="of the table (default en)")
    crosswalk.add_argument("--json", action="store_true", help="one JSON object")
    registry = leaf(group, "registry", report_registry, "write an entry for the public registry of DP deployments")
    registry.add_argument("bundle", type=Path, metavar="BUNDLE")
    registry.add_argument("--json", action="store_true", help="JSON instead of YAML, which the registry takes")
    registry.add_argument("--region", metavar="TEXT", help="what region the data describes")
    registry.add_argument("--curator", choices=CURATORS, default="Industry", help="kind of the controller (default Industry)")
    registry.add_argument("--sector", metavar="NAME", help="sector, one of the registry's")
    registry.add_argument(
        "--author", action="append", default=[], metavar="NAME", help="who fills in the record; repeat it for more"
    )
    for command in (pdf, crosswalk):
        command.add_argument(
            "--home", type=Path, default=home, metavar="DIR", help="the Privet home ($PRIVET_HOME, else ./.privet)"
        )


def report_pdf(args: Namespace) -> int:
    from pipeline.report_pdf import write_pdf

    language: Language = args.language
    size = write_pdf(_read(args.what, *_PAGES[language], args.home), args.out)
    print(f"{args.out}: {size:,} bytes")
    return 0


def report_crosswalk(args: Namespace) -> int:
    from pipeline import crosswalk

    if args.name == "list":
        for source in crosswalk.sources():
            print(f"{source.name:<20} {source.title.of(args.language)}")
        return 0
    if args.what is None:
        source = crosswalk.source_of(args.name)
        found: Json = {
            "name": source.name,
            "title": source.title.to_json(),
            "rows": [
                {
                    "article": r.article,
                    "asks": r.asks.to_json(),
                    "evidence": list(r.evidence),
                    "status": "",
                    "note": r.note.to_json(),
                }
                for r in source.rows
            ],
        }
    else:
        crosswalks = _crosswalks(parse_json(_read(args.what, "report.json", "report_json", args.home)))
        found = crosswalks[crosswalk.source_of(args.name).name]
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        _print_table(found, args.language)
    return 0


def report_registry(args: Namespace) -> int:
    from pipeline.registry import UNKNOWN, Told, entry

    def file(name: str) -> Json:
        return parse_json(_bundle_file(args.bundle, name))

    report = file("report.json")
    made_at = report.get("made_at") if isinstance(report, dict) else None
    told = Told(args.region or UNKNOWN, args.curator, args.sector, tuple(args.author) or (UNKNOWN,))
    made = entry(file("policy.json"), file("trace.json"), report, str(made_at)[:10], told)
    if args.json:
        print(json.dumps(made, ensure_ascii=False, indent=2))
    else:
        import yaml

        print(yaml.safe_dump(made, allow_unicode=True, sort_keys=False, width=100), end="")
    return 0


def _crosswalks(report: Json) -> dict[str, Json]:
    listed = report.get("crosswalks") if isinstance(report, dict) else None
    if not isinstance(listed, list):
        raise IntegrityError(
            "E-REPORT-006", "the report holds no crosswalks", "It is of an older version: run the report stage again"
        )
    return {str(c.get("name")): c for c in listed if isinstance(c, dict)}


def _print_table(found: Any, language: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from pipeline.screen import table_console

    table = Table(title=escape(found["title"][language]), header_style="bold", expand=False)
    for column in ("requirement", "asks", "evidence", "state"):
        table.add_column(column, overflow="fold")
    for row in found["rows"]:
        note = row["note"][language]
        state = f"{row['status']}\n{note}" if note else row["status"]
        table.add_row(escape(row["article"]), escape(row["asks"][language]), escape("\n".join(row["evidence"])), escape(state))
    table_console().print(table)
    print("Evidence for, not a judgement whether a requirement is met.")


def _read(what: str, path: str, output: str, home: Path) -> bytes:
    if not is_digest(what):
        return _bundle_file(Path(what), path)
    from pipeline.home import Home
    from pipeline.stage import load_manifest

    opened = Home.open(home)
    manifest = load_manifest(opened, what)
    ref = manifest.outputs.get(output)
    if manifest.stage != "report" or ref is None:
        raise UsageError(
            "E-REPORT-007", "that digest is not the result of a report stage with this page", "Take the report's own digest"
        )
    return opened.store.read_plain(ref)


def _bundle_file(folder: Path, name: str) -> bytes:
    """Raises UsageError E-REPORT-008; a link in a bundle that somebody sent is not followed."""
    path = folder / name
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_BYTES:
            raise OSError
        return path.read_bytes()
    except OSError:
        raise UsageError(
            "E-REPORT-008", f"the bundle holds no readable {name}", "Give the folder of a released bundle"
        ) from None
