"""The table of compositions: sizes that are known come out, and impossible pairs have no figures."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from compositions import COLUMNS, configured, parse, row


def test_the_paper_s_first_run_has_the_sizes_of_its_dry_run(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["compositions.py"])
    cells = row(configured("omniid", ("mtd",), tmp_path, parse())).split(" | ")
    assert cells[:3] == ["| `omniid`", "mtd", "1,420.4"]
    assert cells[-2] == "28.41"
    assert cells[-1].startswith("287 ")


def test_tokens_that_do_not_suit_a_decoder_have_no_figures(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["compositions.py"])
    line = row(configured("arcface", ("mtd",), tmp_path, parse()))
    assert line == "| `arcface` | mtd |" + " - |" * (len(COLUMNS) + 4)
