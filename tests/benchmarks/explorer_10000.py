"""How long from letting go of a threshold's slider until the frontier is drawn anew, with 10,000 samples.

    python tests/benchmarks/explorer_10000.py [TABLE.md [DATA_FOLDER]]

A net is trained, gets two exits and is calibrated first, by the real job (minutes); DATA_FOLDER keeps it.
Then the page Exits is opened in Chromium, the slider of the first exit is dragged, and the time runs from the
release of the mouse to the first frame in which the ring "You are here" stands elsewhere. The goal is 150 ms.
"""

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from playwright.sync_api import Page

from tests.support import exits
from tests.support.browser import visiting
from tests.support.web import serving

SAMPLES, MOVES, WARM_UP, GOAL_MS = 10_000, 24, 4, 150
#: What the frontier draws in the colour of the ring.
RING = """
window.ring = () => [...document.querySelectorAll('.vega-embed svg path')]
    .filter((mark) => (mark.getAttribute('stroke') ?? '').toLowerCase() === '#d55e00')
    .map((mark) => mark.getAttribute('transform')).join();
window.addEventListener('pointerup', () => {
    const before = window.ring(), start = performance.now();
    window.took = null;
    const look = () => {
        const now = window.ring();
        if (now && now !== before) window.took = performance.now() - start;
        else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}, true);
"""


def move_ms(page: Page, to: float) -> float:
    """Drag the first slider to a share of its width."""
    track = page.get_by_test_id("stSlider").first.locator("[role=group] > div").first.bounding_box()
    assert track is not None
    y = track["y"] + track["height"] / 2
    page.mouse.move(track["x"] + (to - 0.05) * track["width"], y)
    page.mouse.down()
    page.mouse.move(track["x"] + to * track["width"], y, steps=5)
    page.mouse.up()
    page.wait_for_function("typeof window.took === 'number'", timeout=10_000)
    page.wait_for_timeout(700)  # the gallery comes after it
    return float(page.evaluate("window.took"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(sys.argv[2] if len(sys.argv) > 2 else folder)
        exits.build(data, validation=SAMPLES)
        with serving(data) as web, visiting(f"{web.address}/exits") as page:
            page.locator(".vega-embed svg").nth(2).wait_for(timeout=60_000)
            page.wait_for_timeout(3000)
            page.evaluate(RING)
            places = [0.1 + 0.8 * (7 * number % 20) / 20 for number in range(1, WARM_UP + MOVES + 1)]
            times = [move_ms(page, place) for place in places][WARM_UP:]
    table = (
        f"| Validation samples | Moves | Median | Slowest of ten | Slowest | Goal |\n"
        "|---:|---:|---:|---:|---:|---:|\n"
        f"| {SAMPLES:,} | {MOVES} | {statistics.median(times):.0f} ms | "
        f"{statistics.quantiles(times, n=10)[-1]:.0f} ms | {max(times):.0f} ms | {GOAL_MS} ms |\n"
    )
    print(table)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(table)


if __name__ == "__main__":
    main()
