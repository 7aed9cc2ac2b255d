"""`hubbub bench` in every home: it finds the promises kept, also across a storm."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from homelab import Home
from terminal import hubbub


@pytest.mark.parametrize("way", ["secret", "tokens"])
async def test_a_load_test_finds_the_promises_kept(home: Home, way: str, tmp_path: Path) -> None:
    """With tokens that grant rooms, and with others' tokens, all is delivered once and in order, and nobody is lost."""
    flags = ["--connections", "12", "--rooms", "3", "--rate", "10", "--duration", "6", "--ramp", "20", "--storm"]
    flags += ["--history", "1", "--settle", "20s", "--json", "result.json"]
    if way == "tokens":
        file = tmp_path / "tokens"
        file.write_text("\n".join(home.token(f"bencher-{number}") for number in range(12)), encoding="ascii")
        ran = await asyncio.to_thread(hubbub, tmp_path, "bench", home.ws_url, *flags, "--tokens", str(file))
    else:
        ran = await asyncio.to_thread(hubbub, tmp_path, "bench", home.ws_url, *flags, HUBBUB_SECRET=home.secret)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["counts"]["acked"] == 60
    assert result["storm"] is not None
    assert (result["storm"]["cut"], result["storm"]["back"]) == (12, 12)
    assert result["counts"]["delivered"] >= 60 * 4, "entries of members who joined may come beside"
