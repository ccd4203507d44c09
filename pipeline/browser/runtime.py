"""ONNX Runtime for browsers: three files of npm's package onnxruntime-web, fetched once."""

import base64
import hashlib
import io
import os
import tarfile
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from pipeline import paths
from pipeline.errors import InputError, note, reason

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""The package's integrity, as npm states it."""
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs":
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm":
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}  # fmt: skip
"""The files that are used and their SHA-256."""
REGISTRY = "https://registry.npmjs.org"
LARGEST = 100 << 20
"""Bytes of the largest package that is read; this one has 33 million."""
PATIENCE = 60
"""Seconds without an answer."""


def files() -> dict[str, Path]:
    """The files by name, in the user's cache; fetched at the first use.

    The registry is npm's, or that of the variable npm_config_registry. Raises InputError if it
    can't be reached, or sends anything else than this version.
    """
    folder = paths.cached("page") / f"{PACKAGE}-{VERSION}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _fetch(folder)
    found = {name: folder / name for name in FILES}
    for name, file in found.items():
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != FILES[name]:
            raise InputError(f"{file} is not that of {PACKAGE} {VERSION}; delete {folder}")
    return found


def _fetch(folder: Path) -> None:
    registry = os.environ.get("npm_config_registry", REGISTRY).rstrip("/")  # noqa: SIM112  (npm's spelling)
    address = f"{registry}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    if not registry.startswith(("https://", "http://")):
        raise InputError(f"npm_config_registry is {registry}, expected an address with https://")
    note(f"fetching {PACKAGE} {VERSION} (33 MB) into {folder}, once")
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            content = answer.read(LARGEST + 1)
    except OSError as error:
        raise InputError(
            f"{PACKAGE} can't be fetched ({reason(error)}); the page needs it once: connect, or "
            "name a registry of npm's by npm_config_registry"
        ) from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        raise InputError(f"{PACKAGE} {VERSION} from the registry is not the one that is expected")
    # The rename makes the installation atomic.
    with TemporaryDirectory(dir=folder.parent) as scratch:
        partial = Path(scratch) / folder.name
        partial.mkdir()
        with tarfile.open(fileobj=io.BytesIO(content)) as package:
            for name in FILES:
                member = package.extractfile(f"package/dist/{name}")
                assert member is not None
                (partial / name).write_bytes(member.read())
        partial.rename(folder)
