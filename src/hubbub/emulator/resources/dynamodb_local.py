"""Amazon's own DynamoDB Local, where the user has it: tables in memory that are closer to DynamoDB than moto's.

Nothing here fetches it: its licence is Amazon's. A folder with `DynamoDBLocal.jar` and `DynamoDBLocal_lib` is named by
`DYNAMODB_LOCAL`, or is `hubbub/dynamodb-local` in the user's cache, where `scripts/dynamodb-local` puts it. It
needs `java`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from hubbub.listening import CannotStart

SETTING = "DYNAMODB_LOCAL"

JAR = "DynamoDBLocal.jar"

MAIN = "com.amazonaws.services.dynamodbv2.local.main.ServerRunner"

ENVIRONMENT = {"DDB_LOCAL_TELEMETRY": "0"}
"""It is not to tell Amazon of its use; older versions do not know the option that says so."""


def find(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of DynamoDB Local, if there is one and `java` to run it; an empty setting is a no.

    Raises:
        CannotStart: the setting names a folder, and it cannot be run from there.

    """
    named = environment.get(SETTING)
    if named is not None:
        return _checked(Path(named).expanduser()) if named else None
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "hubbub" / "dynamodb-local"
    return folder if (folder / JAR).is_file() and shutil.which("java") else None


def _checked(folder: Path) -> Path:
    if not (folder / JAR).is_file():
        raise CannotStart(f"{SETTING}: expected a folder with {JAR}, got {folder}")
    if shutil.which("java") is None:
        raise CannotStart(f"{SETTING}: DynamoDB Local needs Java, and there is no `java` on PATH")
    return folder


def command(folder: Path, port: int) -> list[str]:
    """What runs it on a port, with one set of tables in memory for all regions and keys.

    The class is named, for the jar's own list of its libraries is right in Amazon's archive alone and not for what
    Maven has.
    """
    libraries = folder / "DynamoDBLocal_lib"
    return [
        "java",
        "-Xmx512m",
        f"-Djava.library.path={libraries}",
        "-classpath",
        os.pathsep.join([str(folder / JAR), str(libraries / "*")]),
        MAIN,
        "-inMemory",
        "-sharedDb",
        "-port",
        str(port),
    ]
