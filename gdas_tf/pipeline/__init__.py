"""The pipeline: from a configuration to a verified ONNX file, in one run directory.

`begin` makes a run directory and gives a `Job`, `go_on` opens one. `run_all` does all stages of a job, in the
order of `STAGES`; each stage is also a function of its own, which takes the job, works in its run directory
and returns its results as plain values.

Example:
    >>> from gdas_tf import pipeline
    >>> from gdas_tf.config.config import Config
    >>> config = Config.preset("quick").override({"data.name": "photos/", "data.image_size": 32})
    >>> with pipeline.begin("runs/photos", config) as job:
    ...     results = pipeline.run_all(job)
    >>> results["export"]["files"]["model.onnx"]
    'runs/photos/export/model.onnx'

Importing it needs no TensorFlow; the stages that compute with it start it.
"""

from gdas_tf.pipeline.artefacts import (
    draw_cells,
    genotype_of_logits,
    genotype_of_network,
    give_genotype,
    load_model,
    parse_genotype,
    read_genotype,
    set_genotype,
    takes_genotype,
)
from gdas_tf.pipeline.budget import TITLES as PARTS_OF_BUDGET
from gdas_tf.pipeline.budget import Budget
from gdas_tf.pipeline.certainty import how_certain
from gdas_tf.pipeline.confusion import draw_evaluation, lowest_class, most_confused
from gdas_tf.pipeline.job import Job, begin, begin_or_go_on, go_on, load_data
from gdas_tf.pipeline.measured_data import common_record, data_of_networks
from gdas_tf.pipeline.stages import (
    STAGES,
    check_before_start,
    evaluate_network,
    export_network,
    measure_files,
    run_all,
    run_benchmark,
    run_derivation,
    run_drawing,
    run_evaluation,
    run_export,
    run_retraining,
    run_search,
)
from gdas_tf.pipeline.truth import look_up, open_table
from gdas_tf.spaces.table import Table

__all__ = [
    "PARTS_OF_BUDGET",
    "STAGES",
    "Budget",
    "Job",
    "Table",
    "begin",
    "begin_or_go_on",
    "check_before_start",
    "common_record",
    "data_of_networks",
    "draw_cells",
    "draw_evaluation",
    "evaluate_network",
    "export_network",
    "genotype_of_logits",
    "genotype_of_network",
    "give_genotype",
    "go_on",
    "how_certain",
    "load_data",
    "load_model",
    "look_up",
    "lowest_class",
    "measure_files",
    "most_confused",
    "open_table",
    "parse_genotype",
    "read_genotype",
    "run_all",
    "run_benchmark",
    "run_derivation",
    "run_drawing",
    "run_evaluation",
    "run_export",
    "run_retraining",
    "run_search",
    "set_genotype",
    "takes_genotype",
]
