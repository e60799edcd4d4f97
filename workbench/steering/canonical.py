"""JSON as a spec needs it: read strictly, written in one form only, so that equal content has equal bytes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from workbench.errors import SpecError

MAX_BYTES = 1 << 20
"""Largest file that is read. A spec with full evidence is some ten kilobytes; what is larger is not a spec."""


def canonical(data: Any) -> str:
    """Return `data` as JSON with sorted keys, no spaces, ASCII only: the form that the content hash is taken of."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256(data: Any) -> str:
    """Return ``sha256:`` and the hexadecimal digest of `canonical(data)`."""
    return "sha256:" + hashlib.sha256(canonical(data).encode("ascii")).hexdigest()


def depth(data: Any, limit: int) -> int:
    """Return how deeply lists and objects nest in `data` (a number is 0); stops counting above `limit`."""
    if limit < 0 or not isinstance(data, (dict, list, tuple)):
        return 0
    children = data.values() if isinstance(data, dict) else data
    return 1 + max((depth(child, limit - 1) for child in children), default=0)


def read_object(path: str | Path) -> dict[str, Any]:
    """Read one JSON object, strictly.

    Parameters
    ----------
    path : str or Path
        The file. Its size is looked at before anything is parsed.

    Returns
    -------
    dict
        The object. No key was given twice and every number is finite.

    Raises
    ------
    SpecError
        If the file is missing, too large, not UTF-8, not JSON, not an object, or has a key twice or a number that is
        not finite. The message names the file and the fix.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(
            f"cannot read the spec {path}: {error.strerror}. "
            "Give the JSON file that `workbench derive` or `save_spec` wrote."
        ) from error
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{path} is larger than {MAX_BYTES} bytes, so it is not a spec; nothing of it was parsed.")
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        # JSONDecodeError, UnicodeDecodeError and Python's own limit on digits are all ValueErrors.
        raise SpecError(
            f"{path} is not JSON: {str(error)[:200]}. A spec is a JSON file; derive or download it again."
        ) from error
    if not isinstance(data, dict):
        raise SpecError(f"{path} holds a JSON {type(data).__name__}, but a spec is a JSON object.")
    return data


def _refuse(constant: str) -> NoReturn:
    raise SpecError(f"the number {constant} is not finite, and a spec holds finite numbers only.")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text[:40])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise SpecError(f"the key {key[:80]!r} is there twice; keep the one that is meant.")
            seen.add(key)
    return data


def write_atomic(text: str, path: str | Path, *, overwrite: bool) -> Path:
    """Write `text` to `path` so that a reader sees the old file or the whole new one, never a part.

    Parameters
    ----------
    text : str
        What is written, as UTF-8.
    path : str or Path
        The file. Its folder must exist.
    overwrite : bool
        Whether a file that is already there may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SpecError
        If the file is there and `overwrite` is False, or the folder cannot be written to.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise SpecError(f"{path} is already there. Choose another name, or pass overwrite=True to replace it.")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes it readable for its owner only
            if overwrite:
                os.replace(temporary, path)
            else:
                # link() fails where the name has appeared since the check above; replace() would destroy that file.
                os.link(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except FileExistsError as error:
        raise SpecError(f"{path} has appeared meanwhile. Choose another name, or pass overwrite=True.") from error
    except OSError as error:
        raise SpecError(
            f"cannot write {path}: {error.strerror}. Choose a folder that exists, may be written to, and has room."
        ) from error
    return path
