"""Progress where nobody watches a terminal: a line a change, none of them lost, not too many."""

import pytest

from fleetbatch.local.progress import Progress


def test_without_a_terminal_events_and_stages_are_whole_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.event("an event of more words than a terminal is wide: " + "word " * 20)
    progress.now("stage [1]")
    progress.now("stage [1]")
    progress.close()
    said = capsys.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first.startswith("    0 s  an event")
    assert second == "    0 s  stage [1]"


def test_a_stage_that_came_too_soon_after_another_is_still_said_later(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.now("one")
    progress.now("two")
    assert "two" not in capsys.readouterr().err
    progress._said_at -= 10
    progress.now("two")
    assert "two" in capsys.readouterr().err
