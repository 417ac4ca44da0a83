"""The house: who imports whom, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import headstart

PACKAGE = Path(headstart.__file__).parent

# an arrow points down only: a module may import from its own row's folder and from lower rows
ROWS = (
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"api"},
    {"transferability"},
    {"sweep", "compare", "inspection", "reproduce", "audit", "finding"},
    {"experiment", "trained", "wandb_sync"},
    {"together"},
    {"lifecycle", "assembly"},
    {"measuring"},
    {"recording", "planning"},
    {"shortcuts"},
    {"preparation"},
    {"rehearsal"},
    {"resolve", "environment"},
    {"installed", "source_code"},
    {"features"},
    {"training"},
    {"strategies"},
    {"models", "data"},
    {"records"},
    {"config"},
    {"plugins", "trouble"},
    {"facts", "errors", "seeds", "network", "progress", "machine", "redaction", "printable", "caches"},
)
RANK = {name: i for i, row in enumerate(ROWS) for name in row}


def imports_of(path: Path) -> set[str]:
    """First-level names inside headstart that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("headstart.")}
    return found


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for other in imports_of(path):
        assert other in RANK, f"{other} has no place in the layout"
        assert other == home or RANK[other] > RANK[home], f"{home} imports {other}, which is not below it"


def test_compare_uses_records_config_and_errors_alone() -> None:
    used = set().union(*(imports_of(path) for path in (PACKAGE / "compare").rglob("*.py")))
    assert used <= {"compare", "records", "config", "errors"}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_hold_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 320
    assert path.name != "utils.py"


@pytest.mark.parametrize(
    "code",
    [
        "import headstart",
        "from headstart.cli import main; main(['--help'])",
        "import headstart.compare.comparison, headstart.compare.formats, headstart.compare.listing",
        "import headstart.compare.report, headstart.compare.sources, headstart.compare.filters",
        "import headstart.inspection.mistakes, headstart.inspection.pictures, headstart.cli.inspection",
        "import headstart.records.store, headstart.records.tables",
        "import headstart.transferability.ranking, headstart.transferability.scores",
        "import headstart.transferability.against_picture, headstart.transferability.against_words, headstart.cli.rank_against",
        "import headstart.config.compose",
        "import headstart.cli.completion as c; c.candidates('headstart train back')",
    ],
)
def test_is_light(code: str) -> None:
    program = f"{code}\nimport sys\nprint([m for m in ('torch', 'timm', 'pytorch_lightning') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
