"""What an installation builds: with the accelerator where there is a C compiler, and without it where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT = f"hubbub/gateway/_accelerator{sysconfig.get_config_var('EXT_SUFFIX')}"
WITHOUT = "Hubbub is installed without its accelerator: "

pytestmark = pytest.mark.slow


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """As much of the sources as a build looks at."""
    made = tmp_path / "tree"
    made.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, made)
    gateway = made / "src" / "hubbub" / "gateway"
    gateway.mkdir(parents=True)
    for name in ("_accelerator.c", "_intake.c", "_intake.h", "outlets.py"):
        shutil.copy(ROOT / "src" / "hubbub" / "gateway" / name, gateway)
    return made


def build(tree: Path, target: str = "wheel", **variables: str) -> tuple[int, str, dict[str, zipfile.ZipFile]]:
    """Build it; the status, what was said, and the wheels that are there then, by the tags in their names."""
    output = tree / "dist"
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(output)],
        cwd=tree,
        env={**os.environ, "HUBBUB_ACCELERATOR": "", **variables},
        capture_output=True,
        text=True,
    )
    left = list(output.iterdir()) if output.exists() else []
    assert all(path.suffix == ".whl" for path in left), "only wheels are to be left where wheels are"
    return (
        done.returncode,
        done.stdout + done.stderr,
        {path.stem.split("-", 2)[2]: zipfile.ZipFile(path) for path in left},
    )


def test_with_a_compiler_the_wheel_has_the_accelerator(tree, tmp_path):
    """It is for this Python and this machine alone, and works."""
    status, _, wheels = build(tree, HUBBUB_ACCELERATOR="1")
    ((tags, wheel),) = wheels.items()
    assert status == 0
    assert tags.startswith(f"cp3{sys.version_info.minor}-cp3{sys.version_info.minor}-")
    assert [name for name in wheel.namelist() if name.endswith(".so")] == [BUILT]
    wheel.extract(BUILT, tmp_path)
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("hubbub.gateway._accelerator", {str(tmp_path / BUILT)!r})
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
print(made.flush([b"1"], [([made.Outlet(print)], [0])])[:2])"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "b'1'\n(1, 1)\n"


@pytest.mark.parametrize(
    ("compiler", "words"),
    [("false", "the C compiler has failed: false "), ("/none/here", "the C compiler cannot be run, or its work not")],
    ids=["one that fails", "none"],
)
def test_without_a_compiler_the_wheel_is_for_every_machine(tree, compiler, words):
    """The installation says so and goes on, unless it was told that it must not."""
    status, said, wheels = build(tree, CC=compiler)
    assert (status, list(wheels)) == (0, ["py3-none-any"])
    assert f"{WITHOUT}{words}" in said
    assert not [name for name in wheels["py3-none-any"].namelist() if name.endswith(".so")]
    shutil.rmtree(tree / "dist")
    status, said, wheels = build(tree, CC=compiler, HUBBUB_ACCELERATOR="1")
    assert (status, wheels) == (1, {})
    assert f"expected to build the accelerator, as HUBBUB_ACCELERATOR=1 says; {words}" in said


def test_who_does_not_want_the_accelerator_needs_no_compiler(tree):
    """Nor hears of it; a variable that says nothing is refused."""
    status, said, wheels = build(tree, CC="/none/here", HUBBUB_ACCELERATOR="0")
    assert (status, list(wheels), WITHOUT in said) == (0, ["py3-none-any"], False)
    status, said, _ = build(tree, HUBBUB_ACCELERATOR="yes")
    assert status == 1
    assert "expected HUBBUB_ACCELERATOR to be 0, 1 or empty, got 'yes'" in said


@pytest.mark.parametrize("then", [{"HUBBUB_ACCELERATOR": "0"}, {"CC": "false"}], ids=["not wanted", "not compiled"])
def test_an_editable_installation_keeps_no_accelerator_of_older_sources(tree, then):
    """It is built beside its source, and is gone where the next installation has none."""
    with (tree / "pyproject.toml").open("a") as settings:  # or a further package is needed for what pip does with it
        settings.write('\n[tool.hatch.build]\ndev-mode-dirs = ["src"]\n')
    beside = tree / "src" / BUILT
    assert build(tree, "wheel:editable")[0] == 0
    assert list(beside.parent.glob("*.so*")) == [beside]
    shutil.rmtree(tree / "dist")
    assert build(tree, "wheel:editable", **then)[0] == 0
    assert not list(beside.parent.glob("*.so*"))
