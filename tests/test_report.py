"""The page of a comparison, from run folders to a real browser, and its pictures' files."""

import base64
import html
import http.server
import re
import shlex
import shutil
import threading
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from folders import write_run

from flowerexp import comparison, plots, report, results

SCRIPT = "<script>window.hacked=1</script>"
IMAGE = '"><img src=x onerror="window.hacked=1">'
CLASSES = [f"</script>{SCRIPT}", f"</style>{SCRIPT}", "'\"><svg onload=window.hacked=1>",
           "javascript:window.hacked=1", "{{ 7 * 7 }}{% raw %}",
           "Ünïcödé \N{RIGHT-TO-LEFT OVERRIDE}", *(f"class {number}" for number in range(6))]
LABELS = np.repeat(np.arange(len(CLASSES)), 4).tolist()
SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync")


def predicted(wrong, epochs=3):
    """[epochs][images]: some images are wrong, in the last epoch those of a slice."""
    labels = np.array(LABELS)
    late = labels.copy()
    late[wrong] = (late[wrong] + 1) % len(CLASSES)
    early = [(labels + (np.arange(len(labels)) % 4 != epoch)) % len(CLASSES)
             for epoch in range(epochs - 1)]
    return [ids.tolist() for ids in (*early, late)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two seeds each of a baseline and a better and shorter run, and runs of hostile names."""
    root = tmp_path_factory.mktemp("runs")
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


@pytest.fixture(scope="module")
def page(compared, tmp_path_factory):
    return report.write(compared, tmp_path_factory.mktemp("comparison of all"))


# The text of the page

class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def test_page_refers_to_nothing_outside(page):
    text = page.read_text(encoding="utf-8")
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


def test_page_has_one_script_and_one_style_that_its_policy_names(page):
    text = page.read_text(encoding="utf-8")
    policy = next(attributes["content"] for tag, attributes in Elements(text).found
                  if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        content, = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"{tag}-src '{report.digest(content)}'" in policy
        assert "window.hacked" not in content


def test_pictures_of_the_page_are_the_files_beside_it(compared, page):
    sources = [attributes["src"] for tag, attributes in Elements(page.read_text()).found
               if tag == "img"]
    files = sorted((page.parent / "pictures").iterdir())
    assert len(sources) == len(files) == report.count(compared)
    assert sorted(base64.b64decode(source.partition(",")[2]) for source in sources) == sorted(
        path.read_bytes() for path in files)
    assert all(re.fullmatch(r"(row|pair)-\d\d-[A-Za-z0-9._=+-]*-(history|confusion|classes)\.png",
                            path.name) for path in files)


def test_there_are_pictures_of_every_row_with_an_epoch_and_of_every_pair(compared):
    kinds = {anchor: [picture.file.rpartition("-")[2] for picture in several]
             for anchor, several in report.all_pictures(compared).items()}
    rows = {row.name: kinds[report.anchor("row", number)]
            for number, row in enumerate(compared.rows)}
    everything = ["history.png", "confusion.png", "classes.png"]
    assert {name: of for name, of in rows.items() if of != everything} == {"it's; rm -rf ": []}
    assert len(rows) == 5
    assert kinds["pair-01"] == kinds["pair-02"] == ["history.png", "classes.png"]


def test_failures_say_how_to_go_on(page, compared):
    text = page.read_text(encoding="utf-8")
    commands = [shlex.split(html.unescape(command)) for command in
                re.findall('<code class="command">(.*?)</code>', text)]
    resumable = [run for run in compared.failures if run.seed is not None]
    assert commands == [["python", "-m", "flowerexp", "resume", str(run.folder)]
                        for run in resumable]
    assert {run.state for run in resumable} == {"failed", "interrupted"}
    assert len(compared.failures) == 3
    assert "failed before the first epoch" in text
    assert "interrupted at epoch 2 of 9" in text


def test_same_files_make_the_same_page(tmp_path):
    compared = bare(tmp_path / "run")
    one, two = (report.write(compared, tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_page_of_nothing_readable_says_so(tmp_path):
    bare(tmp_path / "run")
    (tmp_path / "run" / results.CONFIG).write_text("a: [")
    compared = comparison.compare(tmp_path / "run")
    assert not compared.rows
    text = report.write(compared, tmp_path / "out").read_text()
    assert "cannot be read" in text
    assert not (tmp_path / "out" / "pictures").exists()


def test_page_of_a_name_that_is_no_text(tmp_path):
    folder = write_run(tmp_path / b"runs-\xff+seed=0".decode(errors="surrogateescape"),
                       ["seed=0"], [0, 1], [[0, 1]])
    (folder / results.CLASSES).write_text(r'{"names": ["\ud800", "b"], "train counts": [2, 1]}')
    page = report.write(comparison.compare(folder), tmp_path / "out")
    assert "runs-?" in page.read_text(encoding="utf-8")


# Pictures' files

def bare(folder, **changes):
    """One row whose run has two epochs of three classes."""
    arguments = {"labels": [0, 0, 1, 2], "predictions": [[0, 1, 1, 1], [0, 0, 1, 1]]} | changes
    write_run(folder, ["seed=0"], **arguments)
    return comparison.compare(folder)


def test_progress_advances_by_every_picture(tmp_path):
    steps = []
    compared = bare(tmp_path / "run")
    report.write(compared, tmp_path / "out", lambda: steps.append(1))
    assert len(steps) == report.count(compared) == 3


def test_pictures_of_an_earlier_comparison_are_removed_and_other_files_stay(tmp_path):
    pictures = tmp_path / "out" / "pictures"
    compared = bare(tmp_path / "earlier")
    report.write(compared, tmp_path / "out")
    mine = pictures / "row-01-mine-history.png"
    plots.save(plots.history([compared.rows[0].runs[0].history]), mine, {"Title": mine.name})
    copy = shutil.copy(next(pictures.glob("*-confusion.png")), pictures / "kept.png")
    (pictures / "notes.txt").write_text("mine")
    (pictures / "empty.png").touch()
    (pictures / "folder.png").mkdir()
    report.write(bare(tmp_path / "run"), tmp_path / "out")
    assert {path.name for path in pictures.iterdir()} == {
        "row-01-run-history.png", "row-01-run-confusion.png", "row-01-run-classes.png", mine.name,
        copy.name, "notes.txt", "empty.png", "folder.png"}


def test_failure_leaves_the_old_page_and_no_partial_file(tmp_path, monkeypatch):
    page = report.write(bare(tmp_path / "run"), tmp_path / "out")
    before = page.read_bytes()
    monkeypatch.setattr(plots, "confusion", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(bare(tmp_path / "other"), tmp_path / "out")
    assert page.read_bytes() == before
    assert not list(page.parent.rglob(".partial*"))


def test_run_without_classes_has_its_history_and_matrix(tmp_path):
    bare(tmp_path / "run")
    (tmp_path / "run" / results.CLASSES).unlink()
    compared = comparison.compare(tmp_path / "run")
    pictures, = report.all_pictures(compared).values()
    assert [picture.file for picture in pictures] == ["row-01-run-history.png",
                                                      "row-01-run-confusion.png"]
    assert [label.get_text() for label in pictures[1].draw().axes[0].get_yticklabels()] == [
        "0", "1", "2"]


def test_run_of_very_many_classes_has_no_matrix(tmp_path):
    compared = bare(tmp_path / "run", labels=[0, 1100], predictions=[[0, 1]],
                    names=[str(number) for number in range(1200)], counts=list(range(1200)))
    files = [picture.file for picture in report.all_pictures(compared)["row-01"]]
    assert files == ["row-01-run-history.png", "row-01-run-classes.png"]


def test_matrix_and_dots_are_of_all_seeds_at_the_last_epoch(compared):
    row = next(row for row in compared.rows if row.name == "original")
    _, matrix, classes = report.pictures_of_row(row, "row-01")
    by_run = np.stack([run.predictions[-1] for run in row.runs])
    right = int((by_run == LABELS).sum())
    assert matrix.draw().axes[0].get_title() == (
        f"Validation: {right} of {2 * len(LABELS)} images right, 2 runs together")
    import sklearn.metrics
    f1 = [sklearn.metrics.f1_score(LABELS, ids, average=None) for ids in by_run]
    dots = classes.draw().axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(dots[:, 1], np.mean(f1, axis=0))
    assert dots[:, 0].tolist() == row.runs[0].class_counts.tolist()


def test_pair_shows_the_change_of_f1_at_its_epoch(compared):
    import sklearn.metrics
    rows = {row.name: row for row in compared.rows}
    _, changes = report.pictures_of_pair(compared.pairs[0], rows, "pair-01")

    def f1(name):
        return np.mean([sklearn.metrics.f1_score(
            LABELS, run.predictions[results.best_epoch(run.history)], average=None)
            for run in rows[name].runs], axis=0)

    dots = changes.draw().axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(dots[:, 1], f1("perspective") - f1("original"), atol=1e-12)
    assert "best epoch" in changes.caption


def test_f1_of_a_class_that_is_nowhere_is_undefined(tmp_path):
    compared = bare(tmp_path / "run", names=list("abcd"), counts=[4, 3, 2, 1])
    scores = report.class_f1(compared.rows[0].runs, "last", 4)
    np.testing.assert_allclose(scores, [1, 2 / 3, 0, np.nan])


# Small things

@pytest.mark.parametrize("text", ["", "a_b+c", "x" * 99, "<b>&amp;", " a  b ", "\n\n", IMAGE])
def test_wrapping_leaves_the_text(text):
    assert Elements(str(report.wrap(text))).found in ([], [("wbr", {})] * report.wrap(text).count(
        "<wbr>"))
    assert report.wrap(text).replace("<wbr>", "").unescape() == text
    assert max(map(len, html.unescape(report.wrap(text)).split("<wbr>"))) <= 20


def test_scale_of_the_intervals_holds_all_of_them(compared):
    limit = report.limit(compared.pairs)
    bounds = [bound for pair in compared.pairs for interval in pair.differences.values()
              for bound in (interval.low, interval.high)]
    assert max(map(abs, bounds)) <= limit < max(map(abs, bounds)) + 0.01
    assert report.limit([]) == 0.01


# In a browser

@pytest.fixture(scope="module")
def open_browser(tmp_path_factory):
    """Opens headless Chromiums of their own profile, which are gone at the end."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver on the PATH")
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    browsers = []

    def launch():
        options = selenium.ChromeOptions()
        options.binary_location = chromium
        for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browsers.append(selenium.Chrome(options, Service(driver)))
        return browsers[-1]

    yield launch
    for browser in browsers:
        browser.quit()


@pytest.fixture(scope="module")
def opened(open_browser, page):
    """The page in a browser, from the disk, after its scripts."""
    browser = open_browser()
    browser.get(page.as_uri())
    return browser


def resize(browser, width):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False})


def first_column(browser):
    return browser.execute_script("return [...document.querySelectorAll('#table tbody tr')]"
                                  ".map(row => row.cells[0].dataset.value)")


def press(browser, header, key=None):
    """Presses a header of the summary; returns its values, None where there is none."""
    from selenium.webdriver.common.by import By

    button, = (button for button in browser.find_elements(By.CSS_SELECTOR, "#table th button")
               if button.get_attribute("textContent") == header)
    if key:
        button.send_keys(key)
    else:
        browser.execute_script("arguments[0].click()", button)
    return browser.execute_script("""
        const head = arguments[0].closest("th");
        return [head.getAttribute("aria-sort"), [...document.querySelectorAll("#table tbody tr")]
            .map(row => row.cells[head.cellIndex].dataset.value)];""", button)


def test_page_opens_without_a_word_in_the_console(opened):
    assert opened.get_log("browser") == []
    assert opened.execute_script("return document.compatMode") == "CSS1Compat"
    assert opened.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
        ".filter(name => !name.startsWith('data:'))") == []


def test_every_picture_is_loaded(opened, compared):
    widths = opened.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) == report.count(compared) > 10
    assert min(widths) > 400


def test_names_from_files_stay_text(opened, page):
    assert opened.execute_script("return window.hacked === undefined")
    assert opened.execute_script("return document.scripts.length") == 1
    assert opened.execute_script("return document.querySelectorAll('style').length") == 1
    shown = opened.execute_script("return document.body.textContent")
    for text in (SCRIPT, IMAGE, *CLASSES[:5]):
        assert text in shown
    links = opened.execute_script("return [...document.links].map(link => link.href)")
    assert all(link.startswith(f"{page.as_uri()}#") for link in links)
    assert opened.execute_script(
        "return [...document.links].every(link => document.querySelector(link.hash))")


def test_header_orders_the_rows_and_again_turns_them_round(opened):
    before = first_column(opened)
    order, falling = press(opened, "last f1")
    assert order == "descending"
    numbers = [float(value) for value in falling if value]
    assert len(numbers) == len(before) - 1 > 3
    assert falling[-1] == ""
    assert all(left >= right for left, right in pairwise(numbers))
    order, rising = press(opened, "last f1")
    assert order == "ascending"
    assert [float(value) for value in rising if value] == numbers[::-1]
    assert rising[-1] == "", "what has no value stays last"
    order, names = press(opened, "experiment")
    assert order == "ascending"
    assert sorted(names) == sorted(before)
    assert opened.execute_script(
        "return document.querySelectorAll('#table th[aria-sort=none]').length"
        " + 1 === document.querySelectorAll('#table th[aria-sort]').length")


def test_numbers_are_not_ordered_as_text(opened):
    opened.execute_script("""
        const values = ["9", "10", "-1", "", "0.5"];
        const head = [...document.querySelectorAll("#table th button")]
            .find(button => button.textContent === "later epochs, s").closest("th");
        [...document.querySelectorAll("#table tbody tr")].forEach((row, index) => {
            row.cells[head.cellIndex].dataset.value = values[index]; });""")
    assert press(opened, "later epochs, s")[1] == ["10", "9", "0.5", "-1", ""]


def test_keyboard_sorts(opened):
    from selenium.webdriver.common.keys import Keys

    assert press(opened, "n", Keys.ENTER)[0] == "descending"
    assert press(opened, "n", Keys.SPACE)[0] == "ascending"


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_page_is_as_wide_as_the_window(opened, width):
    resize(opened, width)
    assert opened.execute_script("return innerWidth") == width
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    outside = opened.execute_script("""
        return [...document.querySelectorAll("body *")].filter(element =>
            !element.closest(".scroll, figure label") &&
            element.getBoundingClientRect().right > innerWidth + 1)
            .map(element => element.outerHTML)""")
    assert outside == []
    assert opened.execute_script("return [...document.images].every(image => "
                                 "image.getBoundingClientRect().right <= innerWidth)")


def test_click_shows_a_picture_in_its_actual_size_and_the_page_stays_narrow(opened):
    resize(opened, 360)
    sizes = opened.execute_script("""
        const image = document.images[0], narrow = image.width;
        image.closest("label").click();
        const wide = [image.width, image.naturalWidth, document.documentElement.scrollWidth];
        image.closest("label").click();
        return [narrow, ...wide, image.width];""")
    narrow, wide, natural, page_width, again = sizes
    assert narrow == again < 360
    assert wide == natural > 1000
    assert page_width <= 360


def test_policy_forbids_the_network(opened):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answer = opened.execute_async_script("""
        const [address, done] = arguments;
        const image = new Image(), script = document.createElement("script");
        script.src = `${address}/script`;
        document.head.append(script);
        image.onerror = () => fetch(`${address}/fetch`, {mode: "no-cors"})
            .then(() => done("answered"), () => done("refused"));
        image.onload = () => done("loaded");
        image.src = `${address}/image`;""", f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    assert answer == "refused"
    assert asked == []
    opened.get_log("browser")


def test_page_reads_without_scripts(open_browser, page):
    browser = open_browser()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(page.as_uri())
    from selenium.webdriver.common.by import By

    assert not browser.find_elements(By.CSS_SELECTOR, "th button")
    table = browser.find_element(By.ID, "table").text
    assert "original" in table
    assert "last f1" in table
