"""Bundle: the whole of Orkosi as one zip that installs without a network - code, wheels, a hash of every file, and what it is made of.

Surprise: the same code makes the same bundle, byte for byte: files stand in order, and all of them are of one time. What is not in
the manifest is not in the bundle, and what is, is checked before anything of it is used.
"""
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orkosi import HOME, VERSION, Struct, Unavailable, Unprocessable

MANIFEST, SBOM = "bundle.json", "sbom.cdx.json"
CODE = ("orkosi.py", "pyproject.toml", "schema.sql", "README.md", "LICENSE", "plugins", "launchd")
LEFT_OUT = {"__pycache__", ".DS_Store", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {"macOS arm64": ("macosx_11_0_arm64", "macosx_12_0_arm64"),  # for Macs by Intel, cryptography makes no wheels any more
             "Linux x86_64": ("manylinux_2_28_x86_64", "manylinux2014_x86_64")}
MOMENT = (2026, 1, 1, 0, 0, 0)
MOST = 500 << 20  # bytes that a bundle unpacks to at most


class Damaged(Unprocessable):
    """The bundle is not as it was made; get it again."""
    code = "bundle_damaged"


def pins() -> list[str]:
    """The exact packages that the server needs."""
    found: list[str] = tomllib.loads(Path(HOME, "pyproject.toml").read_text())["project"]["dependencies"]
    return found


# ── wheels ──


def missing_wheels(folder: Path) -> list[str]:
    """Which packages have no wheel there that this Python takes on this machine: without a network, `.venv` could not be made anew."""
    python, machine = f"cp{sys.version_info.major}{sys.version_info.minor}", "macosx" if sys.platform == "darwin" else "linux"
    found = [path.name.removesuffix(".whl").rsplit("-", 3) for path in folder.glob("*.whl")]
    fit = {name.lower().replace("_", "-") for name, tag, abi, platform in found
           if (python in tag or abi == "abi3" or "py3" in tag) and (platform == "any" or machine in platform)}
    return [pin for pin in pins() if pin.lower().replace("_", "-").replace("==", "-") not in fit]


def fill_wheels(folder: Path, platforms: list[str]) -> list[str]:
    """Have a wheel of every package for each Python and platform; the names of those that are there. Unavailable in pip's words."""
    folder.mkdir(exist_ok=True)
    for python in PYTHONS:
        for platform in platforms:
            tags = [word for tag in PLATFORMS[platform] for word in ("--platform", tag)]
            done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                                   "--disable-pip-version-check", "--implementation", "cp", "--python-version", python, *tags,
                                   "--find-links", str(folder), "--dest", str(folder), *pins()], capture_output=True, text=True)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:] or ["pip failed"]
                raise Unavailable(f"Wheels for Python {python} on {platform}: {errors[-1].removeprefix('ERROR: ')}")
    return sorted(path.name for path in folder.glob("*.whl"))


# ── making ──


def files(home: Path) -> Iterator[tuple[str, Path]]:
    """Everything that belongs into a bundle: its name there, and where it is."""
    for name in (*CODE, "wheels"):
        for path in sorted([home / name, *(home / name).rglob("*")]):
            inner = path.relative_to(home)
            if path.is_file() and not path.is_symlink() and not LEFT_OUT & set(inner.parts):
                yield inner.as_posix(), path


def make(target: Path, home: Path = Path(HOME)) -> dict[str, Any]:
    """Write a bundle, whole or not at all; its manifest."""
    found = list(files(home))
    low = [name.casefold() for name, _ in found]
    if twice := sorted({name for name in low if low.count(name) > 1}):
        raise Unprocessable(f"Two files are called {twice[0]} where letters' case does not matter; a Mac keeps one of them")
    extra = {SBOM: json.dumps(_made_of(home), indent=1).encode()}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found} | {
        name: hashlib.sha256(raw).hexdigest() for name, raw in extra.items()}
    manifest = _sealed({"format": 1, "version": _version(home), "files": dict(sorted(hashes.items()))})
    fresh = target.with_name(f".{target.name}.new")
    root = f"orkosi-{manifest['version']}"
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as made:
        for name, raw in {**extra, MANIFEST: json.dumps(manifest, indent=1).encode()}.items():
            made.writestr(_entry(f"{root}/{name}", 0o644), raw)
        for name, path in found:
            made.writestr(_entry(f"{root}/{name}", 0o755 if os.access(path, os.X_OK) else 0o644, stored=name.endswith(".whl")), path.read_bytes())
    os.replace(fresh, target)
    return manifest


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the hash of itself, so that it cannot change unseen either. (Who made it, only the way it came by can tell.)"""
    return manifest | {"sha256": hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()}


def _entry(name: str, mode: int, stored: bool = False) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, MOMENT)
    info.external_attr = (stat.S_IFREG | mode) << 16
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix, whoever makes it
    return info


def _version(home: Path) -> str:
    found = re.search(r'^VERSION = "([^"]+)"', (home / "orkosi.py").read_text(), re.M)
    return found[1] if found else VERSION


def _made_of(home: Path) -> dict[str, Any]:
    """What it is made of, in CycloneDX 1.5: the packages, with the hash of each wheel."""
    parts = []
    for pin in tomllib.loads((home / "pyproject.toml").read_text())["project"]["dependencies"]:
        name, version = pin.split("==")
        wheels = sorted((home / "wheels").glob(f"{re.sub('[-_.]+', '_', name)}-{version}-*.whl"))
        parts.append({"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name.lower()}@{version}",
                      "properties": [{"name": f"sha256:{wheel.name}", "value": hashlib.sha256(wheel.read_bytes()).hexdigest()} for wheel in wheels]})
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {"component": {"type": "application", "name": "orkosi", "version": _version(home)}}, "components": parts}


# ── reading ──


class Bundle(Struct):
    """A bundle that was unpacked and is as it was made."""
    version: str
    folder: Path


def unpack(path: Path, place: Path) -> Bundle:
    """Unpack a bundle into an empty folder, each file checked against its manifest. Damaged; nothing is written outside of the folder."""
    try:
        with zipfile.ZipFile(path) as zipped:
            names = zipped.namelist()
            root = names[0].split("/")[0] if names else ""
            manifest = json.loads(zipped.read(f"{root}/{MANIFEST}"))
            wanted: dict[str, str] = manifest["files"]
            if _sealed({name: value for name, value in manifest.items() if name != "sha256"}) != manifest:
                raise Damaged("The bundle's manifest is not as it was written")
            if sorted(names) != sorted(f"{root}/{name}" for name in (*wanted, MANIFEST)) or len(set(names)) < len(names):
                raise Damaged("The bundle has other files than its manifest says")
            if sum(info.file_size for info in zipped.infolist()) > MOST:
                raise Damaged("The bundle is larger than any of ours")
            for name, sha256 in wanted.items():
                _lay(place, name, zipped.read(f"{root}/{name}"), sha256, zipped.getinfo(f"{root}/{name}").external_attr >> 16)
            return Bundle(str(manifest["version"]), place)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, NotImplementedError, EOFError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, EOFError):
            raise Unavailable(f"The bundle cannot be unpacked: {error.strerror}: {error.filename}") from None
        raise Damaged(f"That is no bundle of Orkosi, or it is damaged: {error}") from None


def _lay(place: Path, name: str, raw: bytes, sha256: str, mode: int) -> None:
    if name.startswith("/") or not all(part not in ("", ".", "..") for part in name.split("/")) or "\\" in name:
        raise Damaged(f"The bundle has a file that would lie elsewhere: {name[:100]!r}")
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise Damaged(f"{name} in the bundle is not the file that was put into it")
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    path.chmod(0o755 if mode & 0o100 else 0o644)  # what unpacks by itself drops it
