"""``python -m tests.chart.golden`` (``make golden``) renders every preset in every environment into golden/.

``--check`` compares instead.
"""

import sys

from tests.chart.presets import COMBINATIONS, GOLDEN, golden_files, objects
from tools.chart.generated import write_or_check

if __name__ == "__main__":
    files = {
        GOLDEN / combination / name: text
        for combination in COMBINATIONS
        for name, text in golden_files(objects(combination)).items()
    }
    sys.exit(write_or_check(files, "make golden", GOLDEN))
