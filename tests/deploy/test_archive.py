"""The archive that functions run from: the same bytes of the same sources, all that functions import, nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deploylab import DEPLOY, ROOT, TEMPLATE, script, translated
from hubbub.emulator.functions.runtimes import LAMBDAS_PACKAGES

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

packaging = script("package_aws")

WHEELS = ROOT / "build" / "wheels"


@pytest.fixture(scope="module")
def target() -> Any:
    """This machine's own Python, on x86_64."""
    return packaging.Target(HERE, "x86_64")


@pytest.fixture(scope="module")
def wheels(target: Any) -> Path:
    """The wheels for it, fetched once for all runs."""
    found: Path = packaging.fetch(target, WHEELS)
    return found


@pytest.fixture(scope="module")
def built(target: Any, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An archive."""
    return packaging.build(target, wheels, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def unpacked(built: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its content in a folder."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built.path) as archive:
        archive.extractall(folder)
    return folder


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code where there is nothing but what the folder has, as in Lambda without its own packages."""
    command = [sys.executable, "-S", "-W", "error", "-c", code]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=60
    )


def test_the_same_sources_give_the_same_bytes(
    target: Any, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two archives of the same sources are the same, wherever and whenever they are built."""
    shutil.copytree(packaging.SOURCE, tmp_path / "hubbub", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(packaging, "SOURCE", tmp_path / "hubbub")  # which nobody changes meanwhile
    one, other = (packaging.build(target, wheels, tmp_path / name) for name in ("here", "elsewhere"))
    assert one.digest == other.digest
    assert one.path.read_bytes() == other.path.read_bytes()
    with zipfile.ZipFile(one.path) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    "handler", ["handler", "connect", "disconnect", "message", "authorize", "broadcast", "sweep", "backend"]
)
def test_every_handler_is_there_with_all_that_it_imports(unpacked: Path, handler: str) -> None:
    """A handler, and what verifies tokens, load from the archive alone."""
    done = run(unpacked, f"import hubbub.lambdas.handlers as handlers, hubbub.auth; print(handlers.{handler})")
    assert done.returncode == 0, done.stderr


def test_all_of_hubbub_that_is_packed_can_be_imported(unpacked: Path) -> None:
    """No module in the archive needs one that was left out of it."""
    modules = [
        ".".join(path.relative_to(unpacked).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((unpacked / "hubbub").rglob("*.py"))
    ]
    done = run(unpacked, f"import importlib\nfor name in {modules!r}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


def test_modules_are_compiled_for_a_folder_that_cannot_be_written_to(built: Any, unpacked: Path) -> None:
    """Each module has its compiled form beside it, which Python takes without looking at the source's time."""
    assert built.is_compiled
    tag = sys.implementation.cache_tag
    for module in (unpacked / "hubbub").rglob("*.py"):
        compiled = module.parent / "__pycache__" / f"{module.stem}.{tag}.pyc"
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01, module  # PEP 552: unchecked, by hash


def test_what_functions_do_not_need_is_left_out(built: Any) -> None:
    """The emulator, servers, the page, the client and the command line are not packed, nor what they import."""
    with zipfile.ZipFile(built.path) as archive:
        names = archive.namelist()
    parts = {name.partition("/")[0] for name in names}
    assert not {"uvicorn", "uvloop", "typer", "rich", "prometheus_client", "websockets", "httpx"} & parts
    assert not [
        name for name in names if re.match(r"hubbub/(emulator|web|gateway|client|cost|loadtest|cli|app)\b", name)
    ]
    assert not [name for name in names if name.endswith((".pyi", ".c", ".h"))]
    assert not set(LAMBDAS_PACKAGES) & parts - {"typing_extensions"}
    assert built.packed < 12_000_000
    assert built.unpacked < packaging.UNPACKED_LIMIT


def test_libraries_are_those_that_the_rest_is_tested_with() -> None:
    """What is packed has the versions that constraints.txt has, each with hashes."""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    lock = (DEPLOY / "requirements.txt").read_text()
    packed = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    roots = re.findall(r"^(\w[\w.-]*)$", (DEPLOY / "requirements.in").read_text(), re.MULTILINE)
    assert {"msgspec", "httptools", "joserfc", "cryptography", "starlette"} <= packed.keys()
    assert set(roots) <= packed.keys()
    assert {name: pinned[name] for name in packed if name != "pycparser"} == {
        name: version for name, version in packed.items() if name != "pycparser"
    }
    assert lock.count("--hash=sha256:") >= 2 * len(packed)


def test_wheels_run_on_lambdas_own_linux(target: Any) -> None:
    """Wheels are asked for that Lambda's C library can load: 2.26 up to Python 3.11, 2.34 after that."""
    assert packaging.Target("3.11", "arm64").platforms()[0] == "manylinux_2_26_aarch64"
    assert packaging.Target("3.13", "x86_64").platforms()[0] == "manylinux_2_34_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64"} <= set(target.platforms())


def test_nothing_is_fetched_twice(target: Any, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With wheels there for the lock file as it is, nothing is asked of anybody."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(packaging.subprocess, "run", refuse)
    assert packaging.fetch(target, WHEELS) == packaging.fetch(target, WHEELS, offline=True) == wheels


def test_without_wheels_offline_says_what_to_do(target: Any, tmp_path: Path) -> None:
    """Offline and without wheels, the error says where they are looked for, and how they get there."""
    with pytest.raises(packaging.PackagingError, match=r"expected wheels .* run once without --offline"):
        packaging.fetch(target, tmp_path, offline=True)


def test_a_changed_lock_is_noticed(target: Any, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels of another lock file are not taken for those of this."""
    shutil.copytree(wheels, tmp_path / wheels.name)
    changed = tmp_path / "requirements.txt"
    changed.write_text(packaging.LOCK.read_text() + "\n# changed\n")
    monkeypatch.setattr(packaging, "LOCK", changed)
    with pytest.raises(packaging.PackagingError, match="expected wheels"):
        packaging.fetch(target, tmp_path, offline=True)


def test_a_package_of_ones_own_goes_along(target: Any, wheels: Path, tmp_path: Path) -> None:
    """A folder that is included is in the archive under its name, compiled like the rest; a missing one is named."""
    own = tmp_path / "shop"
    (own / ".git").mkdir(parents=True)
    (own / ".git" / "config").write_text("secret")
    (own / "__init__.py").write_text("import hubbub\n\nchat = hubbub.Chat()\n")
    built = packaging.build(target, wheels, tmp_path / "out", include=[own])
    with zipfile.ZipFile(built.path) as archive:
        mine = [name for name in archive.namelist() if name.startswith("shop/")]
        archive.extractall(tmp_path / "unpacked")
    assert mine == ["shop/__init__.py", f"shop/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"]
    done = run(tmp_path / "unpacked", "import shop; print(type(shop.chat).__name__)")
    assert done.stdout == "Chat\n", done.stderr
    with pytest.raises(packaging.PackagingError, match=r"there is no .*nowhere"):
        packaging.build(target, wheels, tmp_path / "out", include=[tmp_path / "nowhere"])


def test_a_module_that_cannot_be_compiled_is_named(target: Any, wheels: Path, tmp_path: Path) -> None:
    """A syntax error in one's own package ends the build, with the file's name."""
    own = tmp_path / "shop"
    own.mkdir()
    (own / "broken.py").write_text("def (:\n")
    with pytest.raises(packaging.PackagingError, match=r"shop/broken\.py"):
        packaging.build(target, wheels, tmp_path / "out", include=[own])


def test_the_command_puts_the_archive_where_the_templates_look(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make package-aws` leaves hubbub.zip in build/aws, and says its size and the parameters that go with it."""
    arguments = ["--python-version", HERE, "--architecture", "x86_64", "--only", "--offline", "--wheels", str(WHEELS)]
    packaging.main([*arguments, "--output", str(tmp_path / "aws")])
    said = capsys.readouterr().out
    assert (tmp_path / "aws" / "hubbub.zip").is_file()
    assert re.search(r"hubbub-x86_64-python3\.\d+\.zip: \d+\.\d MB, unpacked \d+\.\d MB", said)
    assert f"PythonVersion={HERE} Architecture=x86_64" in said
    makefile = (ROOT / "Makefile").read_text()
    assert "scripts/package_aws.py" in makefile
    uri = re.search(r"CodeUri: (\S+)", TEMPLATE.read_text())
    assert uri is not None
    assert (TEMPLATE.parent / uri[1]).resolve() == ROOT / "build" / "aws" / "hubbub.zip"
    defaults = {name: body["Default"] for name, body in translated(TEMPLATE)["Parameters"].items()}
    assert re.search(rf"^PYTHON_VERSION \?= {defaults['PythonVersion']}$", makefile, re.MULTILINE)
    assert re.search(rf"^ARCHITECTURE \?= {defaults['Architecture']}$", makefile, re.MULTILINE)
    with pytest.raises(SystemExit, match="package-aws: expected wheels"):
        packaging.main([*arguments[:-1], str(tmp_path / "none"), "--output", str(tmp_path / "aws")])
