"""The files of the page: its own, the runtime's, the detectors and the networks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.browser import runtime
from pipeline.data import SIDE

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
"""Content security policy: the page may load its own files, and connect to nothing else."""
Content = bytes | Path
"""Content of a file, or the file that has it."""


@dataclass(frozen=True)
class Network:
    """A network that the page offers."""

    file: Path
    name: str
    classes: Sequence[str]


def files(
    networks: Sequence[Network], detectors: Mapping[str, Path], about: Mapping[str, Any]
) -> dict[str, Content]:
    """All files by their names below the page's folder.

    `about` is what site.json says beside the networks; of its "detectors", `detectors` has the
    files. Raises InputError if the runtime can't be fetched.
    """
    found: dict[str, Content] = {}
    for file in resources.files("pipeline.browser").joinpath("site").iterdir():
        found[file.name] = file.read_bytes()
    page = found["index.html"]
    assert isinstance(page, bytes)
    found["index.html"] = page.replace(b"POLICY", POLICY.encode())
    for name, path in runtime.files().items():
        found[f"onnxruntime/{name}"] = path
    for which, path in detectors.items():
        found[f"detectors/{which}.onnx"] = path
    offered = []
    for number, network in enumerate(networks):
        name = f"networks/{number}.onnx"
        found[name] = network.file
        offered.append({"file": name, "name": network.name, "classes": list(network.classes)})
    found["site.json"] = json.dumps({**about, "side": SIDE, "networks": offered}).encode()
    return found


def write(found: Mapping[str, Content], folder: Path) -> None:
    """Write the files into a folder; others in it are left as they are."""
    for name, content in found.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
