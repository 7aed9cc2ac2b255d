"""Where the code of functions and layers is on this machine, whatever form the template has it in.

Local paths are used as they are, so that a change is seen at once; `.aws-sam/build` is used only for what cannot run
unbuilt, or when its own template.yaml is the one that is loaded. Inline code and archives are written below `work`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.intrinsics import as_text
from hubbub.emulator.template.sam import BUCKET
from hubbub.emulator.template.source import Value, line_of

_ARCHIVES = (".zip", ".jar")
_LARGEST: Final = 1 << 30
"""Bytes that an archive may unpack to; Lambda itself allows a quarter of that."""

_FOREIGN = ("dotnet", "go1", "java", "ruby")
"""Runtimes that nothing here runs."""

_BUILDS = ("esbuild", "makefile", "rust-cargolambda", "go1.x", "dotnet")
"""Build methods whose outcome is not what lies in the folder."""

_ASSET = "aws:asset:path"
"""The metadata in which the CDK and SAM's command line keep the local path of what they upload."""


class CodeFinder:
    """Finds code for the functions and layers of a stack.

    Args:
        root: the folder of the outermost template, where `.aws-sam/build` is looked for.
        work: where inline code and archives are written.
        given: folders or archives by logical id; they win over the template.

    """

    def __init__(self, root: Path, work: Path, given: Mapping[str, Path]) -> None:
        self._root = root
        self._work = work
        self._given = given

    def function(self, of: Declared) -> Path | None:
        """The folder of a function's code; None, and it is named, where that is not on this machine.

        Raises:
            TemplateError: the template names a path that is not there.

        """
        code = of.get("Code", ".")  # what `aws cloudformation package` takes for a function without any
        keys = code.keys() if isinstance(code, dict) else set()
        if of.text("PackageType", "Zip") == "Image" or "ImageUri" in keys:
            of.note("container images are not run: what calls this function gets an error")
            return None
        if "ZipFile" in keys:
            return self._inline(of, str(code["ZipFile"]))
        path = self._located(of, "Code", code)
        if path is None:
            of.note("its code is in S3 and not here: what calls it gets an error; make Code the path of a folder")
            return None
        runtime = of.text("Runtime", "")
        if runtime.startswith(_FOREIGN):
            of.note(
                f"{runtime} does not run here, only Python, Node.js and executables do: what calls it gets an error"
            )
            return None
        built = self._build_folder(of.shown_id)
        if not path.exists() and built.is_dir():
            return built
        return self._built(of, self._unpacked(of, "Code", path))

    def layer(self, of: Declared) -> Path | None:
        """The folder that a layer adds to `/opt`; None, and it is named, where that is not on this machine.

        Raises:
            TemplateError: the template names a path that is not there.

        """
        path = self._located(of, "Content", of.get("Content", "."))
        if path is None:
            of.note("its content is in S3 and not here: functions run without it; make Content the path of a folder")
            return None
        built = self._build_folder(of.template.prefix + self._local(of)[0])
        if not path.exists() and built.is_dir():
            return built
        return self._arranged(of, self._unpacked(of, "Content", path))

    def _located(self, of: Declared, key: str, code: Value) -> Path | None:
        """The path that the template means; None where that is in S3 alone."""
        if of.shown_id in self._given:
            return self._given[of.shown_id]
        beside = of.template.path.parent
        if isinstance(code, str):
            return None if "://" in code else beside / code
        if not isinstance(code, dict):
            raise of.error(key, f"expected a path or a mapping as its {key}, got {code!r}")
        in_s3 = as_text(code.get("S3Key")) or ""
        if code.get("S3Bucket") == BUCKET:
            return beside / of.template.paths[in_s3].path
        asset = of.metadata.get(_ASSET)
        if isinstance(asset, str):
            return beside / asset
        candidates = [beside / in_s3, beside / Path(in_s3).name] if in_s3 else []
        return next((path for path in candidates if path.is_file()), None)

    def _unpacked(self, of: Declared, key: str, path: Path) -> Path:
        """The folder at a path, or what the file there is as a folder."""
        if path.is_dir():
            return path
        if not path.is_file():
            local = self._source(of, key)
            raise of.template.error(
                local or line_of(of.raw, key) or of.line,
                f"{of.logical_id}: expected a folder or an archive as its code, and there is no {path}",
            )
        if path.suffix not in _ARCHIVES:
            return self._linked(of, path)
        return self._extracted(of, key, path)

    def _source(self, of: Declared, key: str) -> int | None:
        """The line of the path in the template as SAM had it."""
        code = of.get(key)
        is_ours = isinstance(code, dict) and code.get("S3Bucket") == BUCKET
        return of.template.paths[str(code["S3Key"])].line if is_ours else None

    def _extracted(self, of: Declared, key: str, path: Path) -> Path:
        """The folder of an archive; whoever has the same archive has the same folder."""
        content = path.read_bytes()
        folder = self._work / "code" / f"{path.stem}-{hashlib.sha256(content).hexdigest()[:16]}"
        if folder.is_dir():
            return folder
        partly = folder.with_name(folder.name + ".partly")
        shutil.rmtree(partly, ignore_errors=True)
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(item.file_size for item in archive.infolist()) > _LARGEST:
                    raise of.error(key, f"expected an archive of at most {_LARGEST} bytes unpacked: {path}")
                for item in archive.infolist():
                    written = Path(archive.extract(item, partly))  # which keeps names inside the folder
                    if not item.is_dir() and (mode := item.external_attr >> 16):
                        written.chmod(stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IWUSR)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as failure:  # no archive, a method, a password
            raise of.error(key, f"expected a zip archive, and {path} is none: {failure}") from failure
        partly.mkdir(parents=True, exist_ok=True)  # of an empty archive
        partly.rename(folder)
        return folder

    def _linked(self, of: Declared, path: Path) -> Path:
        """A folder with one file in it."""
        folder = self._work / "code" / of.shown_id
        folder.mkdir(parents=True, exist_ok=True)
        _link(folder / path.name, path)
        return folder

    def _inline(self, of: Declared, text: str) -> Path:
        """A folder with inline code in it, as CloudFormation names it."""
        runtime = of.text("Runtime", "")
        name = "index.js" if runtime.startswith("nodejs") else "index.py"
        folder = self._work / "code" / of.shown_id
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # unchanged, it is not seen as changed
            path.write_text(text, encoding="utf-8")
        return folder

    def _built(self, of: Declared, source: Path) -> Path:
        """The folder that `sam build` made, for a function that does not run unbuilt."""
        runtime, method = of.text("Runtime", ""), str(of.metadata.get("BuildMethod", ""))
        if runtime.startswith("provided"):
            needs_build = not (source / "bootstrap").is_file()
        else:
            needs_build = method.startswith(_BUILDS) and not _has_handler(source, of.text("Handler", ""))
        if not needs_build:
            return source
        built = self._build_folder(of.shown_id)
        if built.is_dir():
            return built
        how = f" (BuildMethod {method})" if method else ""
        of.note(f"{runtime}{how} has to be built first: run `sam build`, whose outcome is used where it is needed")
        return source

    def _build_folder(self, shown_id: str) -> Path:
        return self._root.joinpath(".aws-sam", "build", *shown_id.split("."))

    def _arranged(self, of: Declared, source: Path) -> Path:
        """A layer's folder as it would be in `/opt`: one with a BuildMethod has its runtime's folder added."""
        logical_id, metadata = self._local(of)
        method = str(metadata.get("BuildMethod", ""))
        if not method:
            return source
        built = self._build_folder(of.template.prefix + logical_id)
        if built.is_dir():
            return built
        inner = {"python": "python", "nodejs": "nodejs"}.get(method.rstrip("0123456789.x"))
        if inner is None:
            meaning = f"it has to be built first (BuildMethod {method}): run `sam build`, whose outcome is used"
            of.template.note(logical_id, of.type, meaning)
            return source
        if (source / inner).is_dir():
            return source
        folder = self._work / "layers" / of.shown_id
        folder.mkdir(parents=True, exist_ok=True)
        _link(folder / inner, source)
        return folder

    def _local(self, of: Declared) -> tuple[str, Mapping[str, Value]]:
        """The logical id and metadata that a layer had before SAM renamed it; its own where SAM did not."""
        code = of.get("Content")
        if isinstance(code, dict) and code.get("S3Bucket") == BUCKET:
            path = of.template.paths[str(code["S3Key"])]
            return path.logical_id, path.metadata
        return of.logical_id, of.metadata


def _has_handler(folder: Path, handler: str) -> bool:
    """Whether a Node handler's file is there as Node would load it."""
    module = handler.rpartition(".")[0]
    return any((folder / f"{module}{suffix}").is_file() for suffix in (".js", ".mjs", ".cjs", ".py"))


def _link(link: Path, target: Path) -> None:
    """Make a link lead to a target, whatever it was before."""
    target = target.resolve()
    if link.is_symlink() and link.readlink() == target:
        return
    made = link.with_name(f".{link.name}.{os.getpid()}")
    made.symlink_to(target)
    made.replace(link)
