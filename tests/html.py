"""A comparison of runs with hostile names, and what every page must be, for tests of pages."""

import re
from html.parser import HTMLParser

import numpy as np

from flowerexp.comparison import comparison
from flowerexp.plots.page import digest
from flowerexp.runs import store
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
    (root / "broken+seed=0" / store.CONFIG).write_text("a: [")
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


LINKS = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
FETCHING = ("link", "iframe", "object", "embed", "base", "form")


def outside(text):
    """What of a page refers to something else than itself, or listens: nothing, of a good one."""
    elements = Elements(text).found
    inside = {f"#{attributes['id']}" for _, attributes in elements if "id" in attributes}
    return [
        *(tag for tag, _ in elements if tag in FETCHING),
        *(f"{tag} {name}" for tag, attributes in elements for name, link in attributes.items()
          if name.startswith("on") or (name in LINKS and link not in inside
                                       and not link.startswith("data:image/png;base64,"))),
        *(word for word in ("http://", "https://", "@import", "url(") if word in text)]


def policy_and_needed(text):
    """The policy of a page, and the one that its only script and its only style need."""
    policy = next(attributes["content"] for tag, attributes in Elements(text).found
                  if attributes.get("http-equiv") == "Content-Security-Policy")
    contents = {tag: re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", text, re.DOTALL)
                for tag in ("script", "style")}
    (script,), (style,) = contents.values()
    assert "window.hacked" not in script + style
    return policy, (f"default-src 'none'; img-src data:; style-src '{digest(style)}'; "
                    f"script-src '{digest(script)}'; base-uri 'none'; form-action 'none'")
