"""A comparison of runs with hostile names, for tests of its page."""

import numpy as np

from flowerexp import comparison, results
from tests.folders import write_run

SCRIPT = "<script>window.hacked=1</script>"
IMAGE = '"><img src=x onerror="window.hacked=1">'
CLASSES = [f"</script>{SCRIPT}", f"</style>{SCRIPT}", "'\"><svg onload=window.hacked=1>",
           "javascript:window.hacked=1", "{{ 7 * 7 }}{% raw %}",
           "Ünïcödé \N{RIGHT-TO-LEFT OVERRIDE}", *(f"class {number}" for number in range(6))]
LABELS = np.repeat(np.arange(len(CLASSES)), 4).tolist()


def predicted(wrong, epochs=3):
    """[epochs][images]: some images are wrong, in the last epoch those of a slice."""
    labels = np.array(LABELS)
    late = labels.copy()
    late[wrong] = (late[wrong] + 1) % len(CLASSES)
    early = [(labels + (np.arange(len(labels)) % 4 != epoch)) % len(CLASSES)
             for epoch in range(epochs - 1)]
    return [ids.tolist() for ids in (*early, late)]


def compare_hostile(root):
    """Two seeds each of a baseline and a better and shorter run, and runs of hostile names."""
    for seed in (0, 1):
        write_run(root / f"original+seed={seed}", ["experiment=original", f"seed={seed}"], LABELS,
                  predicted(slice(seed, 20)), names=CLASSES)
        write_run(root / f"better+seed={seed}", ["experiment=perspective", f"seed={seed}"],
                  LABELS, predicted(slice(40, 42 + seed), 2), names=CLASSES)
    hostile = root / f"{IMAGE}{'long' * 30}+seed=0"
    write_run(hostile, [f"model.weights='{CLASSES[1]}'", "seed=0"], LABELS,
              predicted(slice(0, 35)), names=CLASSES)
    write_run(root / "it's; rm -rf +seed=0", ["loss=focal", "seed=0"], LABELS, [], names=CLASSES,
              state="failed", error=f"{SCRIPT}\n{IMAGE}", epochs=3)
    write_run(root / "half+seed=0", ["loop.epochs=9", "seed=0"], LABELS, predicted([], 2),
              names=CLASSES, state="interrupted", epochs=9)
    write_run(root / "broken+seed=0", ["seed=0"], LABELS, predicted([]))
    (root / "broken+seed=0" / results.CONFIG).write_text("a: [")
    return comparison.compare(root, ["perspective:original", f"{hostile.name}:original"], "best")
