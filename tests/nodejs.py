"""Node.js as the tests run it: the one inside Playwright, so that a machine need not have any, and has a WebSocket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import playwright

from live import BOUND_S

CLIENT = Path(__file__).resolve().parents[1] / "clients" / "js" / "hubbub.js"

NODE = str(Path(playwright.__file__).parent / "driver" / "node")

JS_PRELUDE = f"""
import {{ connect }} from {json.dumps(CLIENT.as_uri())};
const [url, ...tokens] = process.argv.slice(1);
const print = (value) => console.log(JSON.stringify(value));
const open = async (token, options = {{}}) => {{
  const chat = connect(url, {{ token: () => token, backoffBaseMs: 20, backoffCapMs: 100, ...options }});
  await chat.sync();
  return chat;
}};
"""
"""What a script begins with: the client, `print` for JSON lines, and `open` for a client that has synced."""


async def run_js(script: str, *arguments: str, bound_s: float = 2 * BOUND_S) -> list[Any]:
    """Run a script on the JavaScript client in Node; returns the JSON lines that it prints."""
    command = (NODE, "--input-type=module", "-e", JS_PRELUDE + script, *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), bound_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, err.decode()[-3000:]
    return [json.loads(line) for line in out.decode().splitlines()]
