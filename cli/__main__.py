"""`python -m gdas_tf.cli` is `gdas-tf`."""

import sys

from gdas_tf.cli.main import main

sys.exit(main())
