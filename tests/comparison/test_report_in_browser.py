"""The page of a comparison in a real browser."""

import http.server
import shutil
import threading
from itertools import pairwise

import pytest

from flowerexp.comparison import report
from tests.html import CLASSES, IMAGE, SCRIPT

SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync")




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
    assert len(widths) == sum(map(len, report.all_pictures(compared).values())) > 10
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
