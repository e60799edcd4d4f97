"""The package's shape: imports point one way, importing it is quick and light, files stay small."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import workbench

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workbench"

#: room → rooms it may import from. `errors`, `progress` and the package itself are open to all.
ARROWS = {
    "select": set(),
    "roles": set(),
    "store": {"select", "roles"},
    "models": {"select", "roles"},
    "record": {"models", "store", "select", "roles"},
    "analysis": {"store", "select", "roles"},
    "steering": {"models", "select", "roles", "analysis"},
    "sampling": {"steering", "analysis", "models", "store", "select", "roles"},
    "figures": {"analysis", "store", "select", "roles"},
    "report": {"figures", "analysis", "store", "select", "roles"},
    "cli": {"report", "figures", "analysis", "store", "select", "roles", "models", "record", "steering", "sampling"},
}
OPEN = {"errors", "progress", "callable", "__init__"}
#: `record` and `sampling` draw nothing; analysts need no torch.
LIGHT = {
    "roles": {"torch", "diffusers", "nnsight", "transformers", "matplotlib", "seaborn"},
    "analysis": {"torch", "diffusers", "nnsight", "transformers", "matplotlib", "seaborn"},
    "store": {"torch", "diffusers", "nnsight", "transformers", "matplotlib", "seaborn"},
    "figures": {"torch", "diffusers", "nnsight", "transformers"},
    "report": {"torch", "diffusers", "nnsight", "transformers"},
}


def modules() -> Iterator[tuple[str, Path, set[str]]]:
    """(room, file, everything it imports, wherever in the file)."""
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = ".".join(file.relative_to(ROOT).parts[: -node.level]) + "." if node.level else ""
                base = (package + (node.module or "")).rstrip(".")
                names.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
                if base == "workbench":  # a public verb stands for the room it is in
                    names.update(workbench._VERBS.get(alias.name, "") for alias in node.names)
        yield room, file, names


def test_imports_point_one_way() -> None:
    wrong = []
    for room, file, names in modules():
        if room in OPEN:
            continue
        for name in names:
            parts = [*name.split("."), ""]
            if parts[0] == "workbench" and parts[1] in set(ARROWS) - {room, *ARROWS[room]}:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_every_room_has_its_arrows() -> None:
    assert {room for room, _, _ in modules()} - OPEN <= set(ARROWS)


def test_analysts_rooms_never_import_torch() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for room, file, names in modules()
        for name in names
        if name.split(".")[0] in LIGHT.get(room, set())
    ]
    assert wrong == []


def test_only_the_trace_knows_nnsight() -> None:
    users = {str(file.relative_to(PACKAGE)) for _, file, names in modules() if any("nnsight" in n for n in names)}
    assert users == {"record/trace.py"}


def test_importing_the_package_is_quick_and_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.process_time(); import workbench; took = time.process_time() - start;"
        "heavy = {'torch', 'matplotlib', 'diffusers', 'nnsight', 'xarray', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy; print(took)"
    )
    best = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    )
    assert best < 0.3


def test_every_public_verb_can_be_imported_and_is_documented() -> None:
    for name in workbench.__all__:
        value = getattr(workbench, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'fly'; it has"):
        _ = workbench.fly


def test_files_stay_small() -> None:
    sizes = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in PACKAGE.rglob("*.py")}
    assert {name: size for name, size in sizes.items() if size > 600} == {}
    assert statistics.median(sizes.values()) < 200


def test_nothing_is_unpickled_and_no_remote_code_is_trusted() -> None:
    for _, file, names in modules():
        assert not {"pickle", "dill", "joblib", "marshal"} & {n.split(".")[0] for n in names}, file
        assert "trust_remote_code" not in file.read_text(), file
