"""A comparison of runs with hostile names, and what every page must be, for tests of pages."""

import re
from html.parser import HTMLParser

import numpy as np

from flowerexp import comparison, results
from flowerexp.page import digest
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


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def refuse_outside(text):
    """Asserts that a page refers to nothing but itself."""
    elements = Elements(text).found
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    for tag, attributes in elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            link = attributes.get(name, "#summary")
            assert link.startswith("data:image/png;base64,") or link.removeprefix("#") in ids
    assert {tag for tag, _ in elements} & {"link", "iframe", "object", "embed", "base",
                                           "form"} == set()
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text


def refuse_foreign_scripts(text):
    """Asserts that a page has one script and one style, and a policy of these alone."""
    policy = next(attributes["content"] for tag, attributes in Elements(text).found
                  if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        content, = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"{tag}-src '{digest(content)}'" in policy
        assert "window.hacked" not in content
