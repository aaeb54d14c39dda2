"""Proof: the default run is neither trivial nor hopeless, and its rare classes are the hard ones.

Run it from the checkout: python tests/proofs/sample.py. It is `python run.py` in a folder of its
own: validation macro F1 of the last epoch between 0.5 and 0.95, the mean F1 of the four rarest
classes 0.05 or more under that of the four commonest. One to two minutes on two cores.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

RUN = Path(__file__).parents[2] / "run.py"


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        start = time.monotonic()
        subprocess.run([sys.executable, RUN, "dataset=sample"], cwd=place, check=True)
        seconds = time.monotonic() - start
        run = next(Path(place).glob("outputs/*"))
        history = json.loads((run / "history.json").read_text())
        labels = json.loads((run / "valid_labels.json").read_text())
        predictions = json.loads((run / "valid_preds.json").read_text())
    last = str(len(history) - 1)
    by_class = f1_score(labels, predictions[last], average=None)
    common, rare = np.mean(by_class[:4]), np.mean(by_class[-4:])
    assert len(by_class) == 12
    assert 0.5 <= history[last]["valid f1"] <= 0.95, history[last]["valid f1"]
    assert rare <= common - 0.05, (rare, common)
    print(f"macro F1 {history[last]['valid f1']:.3f}; the four commonest classes {common:.3f}, "
          f"the four rarest {rare:.3f}; {seconds:.0f} s in all")


if __name__ == "__main__":
    main()
