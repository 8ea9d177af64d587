"""The page of `implicitref explore`: its numbers are those of the package, and it answers to real clicks and keys.

A headless Chromium is driven through a pair of pipes in its own protocol; without one those tests are skipped.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import numpy as np
import pytest

import implicitref as ir
from implicitref.__main__ import main
from implicitref.commands import explore
from implicitref.splitting import certificates, rates

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
METHODS = ("peaceman-rachford", "forward-backward", "douglas-rachford")
SETTINGS = [
    {"m": 1.0, "L": 5**0.5, "rotation": 1.0, "alpha": 0.5, "place": "edge"},
    {"m": 0.3, "L": 2.5, "rotation": 0.4, "alpha": 0.35, "place": "inside", "u1": 3.0, "u2": -2.0},
    {"m": 0.7, "L": 0.7, "rotation": 0.9, "alpha": 1.3, "place": "edge"},  # L = m: a multiple of the identity
    {"m": 0.5, "L": 4.0, "rotation": 0.0, "alpha": 0.04, "place": "inside"},  # no rotation: symmetric
]

# the descriptors that Chromium reads and writes have fixed numbers
LAUNCH = (
    "import fcntl, os, sys\n"
    "r, w = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])\n"
    "os.dup2(r, 3), os.dup2(w, 4)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """One tab of a headless Chromium."""

    def __init__(self, profile, width=1300):
        (theirs_in, self.out), (self.into, theirs_out) = os.pipe(), os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out), CHROMIUM, *flags],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in), os.close(theirs_out)
        self.ids, self.buffer, self.session = itertools.count(1), b"", {}
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self.resize(width)

    def __call__(self, method, **params):
        number = next(self.ids)
        os.write(
            self.out, json.dumps({"id": number, "method": method, "params": params, **self.session}).encode() + b"\0"
        )
        while (answer := self._read()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.into, 1 << 20)
            assert piece, "Chromium has ended"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def resize(self, width):
        self("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)

    def evaluate(self, expression):
        found = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url):
        self("Page.navigate", url=url)
        loaded = f"document.readyState === 'complete' && location.href === {json.dumps(url)}"
        for _ in range(200):
            if self.evaluate(loaded):
                return
            time.sleep(0.02)
        raise AssertionError(f"{url} did not load")

    def box(self, name):
        return self.evaluate(
            f"(() => {{ const e = document.getElementById({name!r}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )

    def mouse(self, name, start=(0.5, 0.5), end=None):
        """Press at a place of an element, given as shares of its box; move; release."""
        left, top, width, height = self.box(name)
        spots = [(left + x * width, top + y * height) for x, y in (start, end or start)]
        for kind, (x, y) in zip(
            ("mousePressed", "mouseMoved", "mouseReleased"), (spots[0], spots[1], spots[1]), strict=True
        ):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        return spots

    def key(self, name, key, code):
        self.evaluate(f"document.getElementById({name!r}).focus()")
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def data(self):
        return json.loads(self.evaluate("document.getElementById('data').textContent"))

    def close(self):
        os.close(self.out), os.close(self.into)
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def served():
    with explore.server() as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving.server_address
        serving.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium here to open the page in")
    found = Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture
def opened(browser, served):
    def go(**asked):
        browser.open("http://{}:{}/?{}".format(*served, urllib.parse.urlencode(asked)))
        return browser

    return go


def agrees(page):
    """Everything on the page is what the package says of the same G, b, alpha and start."""
    G, b, start = (
        np.reshape(page["G"], (2, 2)).astype(float),
        np.array([page["b"]], dtype=float),
        np.array([page["u"][0]], dtype=float),
    )
    assert rates.constants(G) == pytest.approx((page["m"], page["L"]), abs=1e-9)
    W = ir.operators.MonotoneDense.from_weight(np.eye(2) - G, page["m"])
    inclusion, method, alpha = ir.mon.forward_inclusion(W, b, ir.activations.relu), page["method"], page["alpha"]
    generator = getattr(ir.splitting, method.replace("-", "_"))
    first = np.maximum(start, 0) if method == "forward-backward" else start
    states = list(itertools.islice(generator(inclusion, alpha, first), len(page["u"]) - 1))
    scale = 1e-12 * (1 + max(np.abs(state.u).max() for state in states))
    np.testing.assert_allclose(page["u"][1:], [state.u[0] for state in states], rtol=0, atol=scale)
    np.testing.assert_allclose(page["z"][1:], [state.z[0] for state in states], rtol=0, atol=scale)
    defects = [certificates.defect(inclusion, inclusion.B.root(state.u, alpha))[1][0] for state in states]
    bounds = np.linalg.norm(defects, axis=1) / page["m"]
    np.testing.assert_allclose(page["bound"][1:], bounds, rtol=0, atol=1e3 * scale / min(alpha, 1))
    exact = ir.mon.equilibrium(W, b, ir.activations.relu, tol=1e-12).z[0]
    np.testing.assert_allclose(page["z_star"], exact, rtol=0, atol=1e-12)
    assert page["rho"] == pytest.approx(rates.factor(G, method, alpha), abs=1e-12)
    assert page["rho_class"] == pytest.approx(rates.class_factor(page["m"], page["L"], method, alpha), abs=1e-12)
    return page


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("setting", range(len(SETTINGS)))
def test_the_numbers_are_those_of_the_package(opened, method, setting):
    asked = SETTINGS[setting] | {"method": method}
    page = agrees(opened(**asked).data())
    assert {name: page[name] for name in asked} == asked


def test_a_wrong_number_is_noticed(opened):
    page = opened(**SETTINGS[0]).data()
    for name in ("u", "z", "bound", "rho", "rho_class", "z_star", "b"):
        wrong = json.loads(json.dumps(page))
        place = wrong[name] if isinstance(wrong[name], list) else None
        if place is None:
            wrong[name] *= 1.001
        else:
            place[-1] = (np.array(place[-1]) + 1e-3).tolist()
        with pytest.raises(AssertionError):
            agrees(wrong)


def test_buttons_answer_to_clicks(opened):
    page = opened(k=3)
    picture = page.evaluate("document.getElementById('plane').innerHTML")
    page.mouse("step")
    assert page.data()["k"] == 4
    assert page.evaluate("document.getElementById('plane').innerHTML") != picture
    assert page.evaluate("document.getElementById('said').textContent").count("Iterate 4") == 1
    page.mouse("best")
    best = agrees(page.data())
    G = np.reshape(best["G"], (2, 2))
    assert best["rho"] == pytest.approx(rates.peaceman_rachford(G, rates.best_peaceman_rachford(G)), abs=1e-5)
    page.mouse("play")
    ends = time.monotonic() + 20
    while page.data()["k"] == 4 and time.monotonic() < ends:
        time.sleep(0.05)
    page.mouse("play")
    assert (moved := page.data()["k"]) > 4
    time.sleep(0.4)
    assert page.data()["k"] == moved  # paused


def test_sliders_answer_to_mouse_and_keys(opened):
    page = opened()
    before = page.data()
    page.mouse("alpha", (0.5, 0.5), (0.8, 0.5))
    after = agrees(page.data())
    assert after["alpha"] > 2 * before["alpha"]
    rate = page.evaluate("document.getElementById('rate').innerHTML")
    page.key("m", "ArrowRight", 39)
    assert agrees(page.data())["m"] > after["m"]
    assert page.evaluate("document.getElementById('rate').innerHTML") != rate
    page.mouse("rotation", (0.98, 0.5), (0.3, 0.5))
    assert 0.2 < agrees(page.data())["rotation"] < 0.4
    page.mouse("m", (0.5, 0.5), (1.0, 0.5))  # beyond L, which gives way
    pushed = agrees(page.data())
    assert pushed["L"] >= pushed["m"] > 1.9


def test_methods_and_places_are_chosen_by_keys(opened):
    page = opened()
    page.key("method", "ArrowDown", 40)
    assert agrees(page.data())["method"] == "forward-backward"
    page.key("place", "ArrowDown", 40)
    assert agrees(page.data())["z_star"] == [1.5, 1]


def test_a_click_into_the_plane_starts_there(opened):
    page = opened()
    (spot, _), (left, top, width, height) = page.mouse("plane", (0.25, 0.75)), page.box("plane")
    shares = (spot[0] - left) / width, (spot[1] - top) / height
    assert agrees(page.data())["u"][0] == pytest.approx([-3 + 8 * shares[0], 5 - 8 * shares[1]], abs=0.05)


@pytest.mark.parametrize("width", [380, 1400])
def test_nothing_overflows(opened, browser, width):
    browser.resize(width)
    try:
        assert opened().evaluate("document.documentElement.scrollWidth") <= width
    finally:
        browser.resize(1300)


def test_nonsense_in_the_address_is_ignored(opened):
    page = opened(m="NaN", L="-5", alpha="1e9", method="newton", place="<b>", k="7.4")
    found = agrees(page.data())
    assert (found["m"], found["L"], found["alpha"], found["method"], found["k"]) == (1, 1, 10, "peaceman-rachford", 7)


# ------------------------------------------------------------------------------------------------
# the server, without a browser


def test_the_page_and_nothing_else_is_served_and_to_this_machine_only(served):
    assert served[0] == "127.0.0.1"
    for path, status in {"/": 200, "/?m=1": 200, "/etc/passwd": 404, "/explore.html": 404}.items():
        connection = http.client.HTTPConnection(*served, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == status, path
        assert (answer.read() == explore.page()) == (status == 200)
        connection.close()


def test_the_page_loads_nothing_from_elsewhere():
    text = explore.page().decode()
    assert not [
        mark for mark in ("http:", "https:", "src=", "href=", "import ", "@import", "url(", "fetch(") if mark in text
    ]


# A shell has background jobs, and what they start, ignore interrupts: the child hears them again.
HEARING = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
HEARING += "; from implicitref.__main__ import main; sys.exit(main())"


def test_the_command_prints_its_address_and_ends_with_an_interrupt():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HEARING, "explore", "--no-browser"], **pipes) as process:
        try:
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


def test_a_taken_or_impossible_port_is_a_usage_error(served, capsys):
    for port in (served[1], 123456):
        assert main(["explore", "--no-browser", "--port", str(port)]) == 2
        assert f"--port {port}" in capsys.readouterr().err
