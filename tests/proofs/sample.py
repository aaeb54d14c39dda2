"""Proof: the default run is neither trivial nor hopeless, and its rare classes are the hard ones.

Run it from the checkout: python tests/proofs/sample.py [FOLDER]. It is `python run.py` in a folder
of its own, or the FOLDER that `python run.py` has left: validation macro F1 of the last epoch
between 0.5 and 0.95, the mean F1 of the four rarest classes 0.05 or more under that of the four
commonest. One to two minutes on two cores, a second with a folder.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

RUN = Path(__file__).parents[2] / "run.py"


def main(folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as place:
        if folder is None:
            subprocess.run([sys.executable, RUN, "dataset=sample"], cwd=place, check=True)
        run = Path(folder) if folder else next(Path(place).glob("outputs/*"))
        history = json.loads((run / "history.json").read_text())
        labels = json.loads((run / "valid_labels.json").read_text())
        predictions = json.loads((run / "valid_preds.json").read_text())
        overrides = (run / ".hydra/overrides.yaml").read_text()
    assert overrides.strip() in ("[]", "- dataset=sample"), overrides
    last = str(len(history) - 1)
    by_class = f1_score(labels, predictions[last], average=None)
    common, rare = np.mean(by_class[:4]), np.mean(by_class[-4:])
    assert len(by_class) == 12
    assert 0.5 <= history[last]["valid f1"] <= 0.95, history[last]["valid f1"]
    assert rare <= common - 0.05, (rare, common)
    print(f"macro F1 {history[last]['valid f1']:.3f}; the four commonest classes {common:.3f}, "
          f"the four rarest {rare:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
