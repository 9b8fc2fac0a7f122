"""What subcommands that run for hours check before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gdas_tf.cli.options import name_flags
from gdas_tf.errors import RunError, UsageError

if TYPE_CHECKING:
    from gdas_tf.cli.job import Job
    from gdas_tf.spaces.genotype import Genotype


def check_before_start(job: Job, stages: Sequence[str], genotype: Genotype | None = None) -> None:
    """Finds out what would fail later; a configuration that fails is not kept in the run directory.

    Args:
        job: its run directory and data.
        stages: those that will be run, as far as they have something to check.
        genotype: what will be trained, if it is known.

    Raises:
        UsageError: a stage cannot be done; the message names options.
        RunError: a folder cannot be written.
    """
    from gdas_tf.preflight import check_before_start as check

    try:
        check(job.config, job.data, stages, genotype, job.run.path)
    except (UsageError, RunError) as error:
        if job.config_before not in (None, job.config):
            job.run.set_config(job.config_before)
        if isinstance(error, UsageError):
            raise UsageError(name_flags(str(error))) from error
        raise
