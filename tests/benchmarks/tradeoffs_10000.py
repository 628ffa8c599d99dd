"""How long until Trade-offs with 10,000 variants is drawn, from opening the page in a new browser tab.

    python tests/benchmarks/tradeoffs_10000.py [TABLE.md]

Drawn: the chart's canvas holds points. The goal is 2.5 s.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from playwright.sync_api import Browser

from tests.support import experiments
from tests.support.browser import chromium
from tests.support.web import serving

VARIANTS, OPENINGS, GOAL_S = 10_000, 7, 2.5
DRAWN = """() => {
    const canvas = document.querySelector('.vega-embed canvas');
    if (!canvas || canvas.width < 400) return false;
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let coloured = 0;
    for (let i = 0; i < data.length; i += 4)
        if (data[i + 2] > data[i] + 60 && data[i + 3] > 60) coloured += 1;
    return coloured > 500;
}"""


def opening_s(browser: Browser, address: str) -> float:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_function(DRAWN, timeout=60_000, polling=50)
    seconds = time.perf_counter() - start
    page.close()
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        experiments.fill_many(f"sqlite:///{data}/paredown.db", VARIANTS)
        with serving(data) as web, chromium() as browser:
            times = [opening_s(browser, web.address) for _ in range(OPENINGS)]
    table = (
        f"| Variants | First opening | Median of the next {OPENINGS - 1} | Slowest of them | Goal |\n"
        "|---:|---:|---:|---:|---:|\n"
        f"| {VARIANTS:,} | {times[0]:.2f} s | {statistics.median(times[1:]):.2f} s | {max(times[1:]):.2f} s "
        f"| {GOAL_S} s |\n"
    )
    print(table)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(table)


if __name__ == "__main__":
    main()
