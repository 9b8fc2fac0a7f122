"""The processes of a study: what they find out of a configuration, and how they end."""

from __future__ import annotations

from pathlib import Path

from small_disks import fill, small_disk

from gdas_tf.studies import executors


def test_a_process_that_cannot_write_how_it_ended_met_a_full_disk(tmp_path: Path) -> None:
    class Failing:
        def run(self, task: executors.Task) -> int:
            fill(tmp_path / "disk" / "ballast")
            return 1

    with small_disk(tmp_path / "disk", "64k") as folder:
        for name in ("first", "second"):  # for the second there is no room for a log
            task = executors.Task(name, str(folder), "train", ("one-1",), str(tmp_path))
            outcome = executors.perform(task, Failing())
            assert not outcome["ok"]
            assert "no space left on the disk; free some" in outcome["message"]
        (folder / "ballast").unlink()
        assert not list(folder.glob("tasks/*.json"))
