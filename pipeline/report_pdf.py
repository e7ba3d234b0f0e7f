"""A report's page as PDF, by WeasyPrint, or by Chromium where that can't be loaded.

Guarantee: nothing is fetched: WeasyPrint gets a fetcher that refuses every address, Chromium a page whose policy forbids them;
the file appears whole or not at all. Assumption: fonts with the page's letters are installed; for Chinese, Noto Sans CJK does.
Not covered: the same bytes on other machines: fonts differ.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from privacy.errors import EnvironmentFault

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 120


def pdf_of(html: bytes) -> bytes:
    """Raises EnvironmentFault E-REPORT-001 where neither is there, E-REPORT-002 where drawing fails."""
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError):  # without Pango the library is not found
        return _by_browser(html)
    try:
        made: bytes | None = HTML(string=html.decode("utf-8"), url_fetcher=URLFetcher(allowed_protocols=())).write_pdf()
    except Exception as error:  # of a library with many; none of them may carry the page's text on
        raise _failed(type(error).__name__) from None
    if not made:
        raise _failed("an empty file")
    return made


def write_pdf(html: bytes, path: Path) -> int:
    """Bytes written. An existing file is replaced."""
    data = pdf_of(html)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".privet-", suffix=".pdf")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return len(data)


def _by_browser(html: bytes) -> bytes:
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise EnvironmentFault(
            "E-REPORT-001",
            "nothing on this machine can write PDF: WeasyPrint's Pango libraries are missing, and no Chromium is there",
            "Install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0, or Chromium, and run it again",
        )
    with tempfile.TemporaryDirectory(prefix="privet-pdf-") as folder:
        page, out = Path(folder) / "report.html", Path(folder) / "report.pdf"
        page.write_bytes(html)
        command = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder}/profile"]
        if os.geteuid() == 0:  # Chromium's own sandbox does not start as root
            command.append("--no-sandbox")
        try:
            subprocess.run(
                [*command, f"--print-to-pdf={out}", page.as_uri()], check=True, capture_output=True, timeout=_SECONDS
            )
            return out.read_bytes()
        except (subprocess.SubprocessError, OSError) as error:
            raise _failed(type(error).__name__) from None


def _failed(kind: str) -> EnvironmentFault:
    return EnvironmentFault(
        "E-REPORT-002", f"the report could not be written as PDF ({kind})", "Open the HTML page and print it from the browser"
    )
