"""A PKCS#11 token in software (SoftHSM 2), where one is installed."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from privacy.kms.pkcs11 import Pkcs11Kms, Pkcs11Place

_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


@dataclass
class SoftHsm:
    library: Path
    folder: Path
    label: str
    pin: str

    def place(self, pin: str | None = None, label: str | None = None) -> Pkcs11Place:
        file = self.folder / f"pin-{secrets.token_hex(4)}"
        file.write_text(pin or self.pin)
        file.chmod(0o600)
        return Pkcs11Place(self.library, label or self.label, file)

    def kms(self, pin: str | None = None, label: str | None = None) -> Pkcs11Kms:
        return Pkcs11Kms(self.place(pin, label))


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """For the whole session: the library reads its configuration once in a process."""
    library = next((Path(name) for name in _LIBRARIES if Path(name).exists()), None)
    if library is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM 2 is not installed (Debian: softhsm2)")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(config)
    label, pin = "privet-test", secrets.token_hex(8)
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", secrets.token_hex(8)],
        check=True,
        capture_output=True,
    )
    return SoftHsm(library, folder, label, pin)
