"""The report as PDF: by WeasyPrint, by Chromium where that fails to load, and a clear error where neither is there."""

from __future__ import annotations

import base64
import re
import shutil
import sys
import zlib
from pathlib import Path

import pytest

from pipeline import report_pdf
from pipeline.cli import main
from pipeline.report_html import page
from pipeline.report_page import Figure, Report, Section
from pipeline.report_words import Words, datum
from privacy.errors import EnvironmentFault
from tests.worlds.release_world import World

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
needs_pango = pytest.mark.skipif(sys.platform == "darwin", reason="looks for Pango where Linux has it")


def small(pages: int = 3) -> bytes:
    figures = tuple(Figure(f"f{n}", datum(f"row {n}"), datum("value"), "measured") for n in range(40 * pages))
    return page(Report(Words("A title", "标题"), "now", None, (), (Section("a", datum("A"), (), figures),)), "en")


def pages_of(data: bytes) -> int:
    """Pages named in the file itself; object streams are opened, for that is where WeasyPrint may put them."""
    parts = [data]
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", data, re.DOTALL):
        try:
            parts.append(zlib.decompress(found.group(1)))
        except zlib.error:
            continue
    return sum(len(re.findall(rb"/Type\s*/Page(?![a-zA-Z])", part)) for part in parts)


@needs_pango
def test_a_page_becomes_a_pdf_of_several_pages_with_its_text(tmp_path: Path) -> None:
    weasyprint = pytest.importorskip("weasyprint", exc_type=OSError)
    html = small()
    data = report_pdf.pdf_of(html)
    assert data.startswith(b"%PDF-")
    assert pages_of(data) > 1
    document = weasyprint.HTML(string=html.decode()).render()
    assert len(document.pages) == pages_of(data)
    assert "row 7" in laid_out(document)


def laid_out(document: object) -> str:
    """Text of the boxes that are drawn."""
    parts: list[str] = []

    def walk(box: object) -> None:
        parts.append(str(getattr(box, "text", "")))
        for child in getattr(box, "children", ()):
            walk(child)

    for each in document.pages:  # type: ignore[attr-defined]
        walk(each._page_box)
    return " ".join(parts)


@needs_pango
@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_command_writes_the_report_of_a_bundle_and_of_a_digest(tmp_path: Path, language: str) -> None:
    world = World(tmp_path / "w", custody="demo").run().sign_quorum()
    bundle = world.release().path
    out = tmp_path / "report.pdf"
    assert main(["report", "pdf", str(bundle), "--out", str(out), "--language", language]) == 0
    data = out.read_bytes()
    assert data.startswith(b"%PDF-")
    assert pages_of(data) > 5
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".pdf" or p.name.startswith(".privet")] == ["report.pdf"]
    other = tmp_path / "again.pdf"
    digest = str(world.digests.report)
    assert main(["report", "pdf", digest, "--home", str(world.home.path), "--out", str(other), "--language", language]) == 0
    assert pages_of(other.read_bytes()) == pages_of(data)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, report_pdf._BROWSERS)), reason="no Chromium on this machine")
def test_chromium_takes_over_where_weasyprint_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    data = report_pdf.pdf_of(small())
    assert data.startswith(b"%PDF-")
    assert pages_of(data) > 1


def test_without_either_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    monkeypatch.setattr(report_pdf.shutil, "which", lambda name: None)
    with pytest.raises(EnvironmentFault, match="E-REPORT-001"):
        report_pdf.write_pdf(small(1), tmp_path / "x.pdf")
    assert list(tmp_path.iterdir()) == []


@needs_pango
def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("weasyprint", exc_type=OSError)
    from weasyprint import urls

    picture = tmp_path / "picture.png"
    picture.write_bytes(PNG)
    html = small(1).replace(b"<main>", f'<main><img src="{picture.as_uri()}">'.encode())
    assert b"/Image" not in report_pdf.pdf_of(html)
    real = urls.URLFetcher
    monkeypatch.setattr(urls, "URLFetcher", lambda **_: real())  # the guard itself: without it, the picture is in the file
    assert b"/Image" in report_pdf.pdf_of(html)


def test_files_that_are_no_bundle_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "pdf", str(tmp_path), "--out", str(tmp_path / "x.pdf")]) == 2
    assert "E-REPORT-008" in capsys.readouterr().err
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / "report.html").symlink_to(tmp_path / "elsewhere")
    assert main(["report", "pdf", str(tmp_path), "--out", str(tmp_path / "x.pdf")]) == 2
    assert "E-REPORT-008" in capsys.readouterr().err
