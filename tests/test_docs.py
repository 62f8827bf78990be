"""README and docs show code that runs and name files that are there."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples/demo/README.md",
    ROOT / "tests/README.md",
]
_BLOCK = re.compile(r"^```python(?P<words>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of Python; ``slow`` stands behind the word python where it takes more than some seconds."""

    page: Path
    line: int
    code: str
    slow: bool


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match["code"], "slow" in match["words"].split()))
    return found


BLOCKS = [
    pytest.param(block, id=f"{block.page.name}:{block.line}", marks=pytest.mark.slow if block.slow else ())
    for block in blocks()
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_code_in_the_docs_runs(block, monkeypatch, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile("\n" * block.line + block.code, str(block.page), "exec"), {"__name__": "__main__"})


def test_the_readme_shows_code():
    assert any(block.page.name == "README.md" for block in blocks())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    missing = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


def test_commands_named_in_the_readme_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= targets
