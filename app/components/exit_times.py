"""What was timed of a file with exits: real samples one after another, and real batches."""

import pandas as pd
import streamlit as st

from app import numbers
from app.exits import Outcome
from workers.calibration.calibrate import ExitsReport
from workers.calibration.path_times import CONTENDED, DISAGREE, BatchTimes, PathTimes, Spread

ABOUT = (
    "Means of whole calls with real samples, all timed in one session. The file is what Export hands out: a "
    "batch leaves it together. Never early: the same file, always to its end, which the other two are "
    "compared with. Rows apart: Paredown's executor lets the undecided rows of a batch go on alone, segment "
    "by segment. p50, p90 and p99 are the file's; a p99 from 662 calls on."
)


def exit_times(outcome: Outcome, saved: ExitsReport | None) -> None:
    """saved: report of the point with these thresholds, if there is one."""
    report = outcome.explored.report
    st.markdown("**Timed with real samples**")
    if saved is None:
        st.caption("At these thresholds nothing was timed yet: saved as a point, a stream of samples is.")
    elif saved.times is None:
        st.caption("No stream was timed: the thresholds were set on another machine than the exits.")
    else:
        _stream(saved.times)
    if report.batches:
        st.table(
            batch_table(report.batches), border="horizontal", hide_index=True,
            alt="Times of one call by its number of samples",
        )  # fmt: skip
        moved = outcome.thresholds != outcome.explored.calibrated
        at = f" At thresholds {numbers.thresholds(report.thresholds)}, not those above." if moved else ""
        st.caption(f"{ABOUT}{at}{_contended(report.batches)}")


def _stream(times: PathTimes) -> None:
    spread = times.stream
    told = " · ".join(
        f"{name} {numbers.milliseconds(value)}"
        for name, value in (("p50", spread.p50_ms), ("p90", spread.p90_ms), ("p99", spread.p99_ms))
    )
    sentence = times.sentence.replace(" ms", f"{numbers.NARROW}ms").replace(" %", f"{numbers.NARROW}%")
    if DISAGREE in times.marks:
        sentence = f":orange[:material/warning: {sentence}]"
    disturbed = " Contended: other programs took the cores meanwhile." if CONTENDED in times.marks else ""
    st.caption(f"{sentence} {told}.{disturbed}")


def _contended(batches: tuple[BatchTimes, ...]) -> str:
    found = [f"{times.batch}" for times in batches if CONTENDED in times.marks]
    return f" Contended, other programs took the cores meanwhile: batch {', '.join(found)}." if found else ""


def batch_table(batches: tuple[BatchTimes, ...]) -> pd.DataFrame:
    """One row per batch size."""
    rows = []
    for times in batches:
        rows.append(
            {
                "Batch": f"{times.batch:,}",
                "Never early": numbers.milliseconds(times.full.mean_ms),
                "The file": _against(times.file, times.full),
                "Rows apart": "–" if times.batch == 1 else _against(times.executor, times.full),
                "p50": numbers.milliseconds(times.file.p50_ms),
                "p90": numbers.milliseconds(times.file.p90_ms),
                "p99": numbers.milliseconds(times.file.p99_ms),
            }
        )
    return pd.DataFrame(rows)


def _against(own: Spread, full: Spread) -> str:
    return f"{numbers.milliseconds(own.mean_ms)} ({numbers.faster(own.mean_ms / full.mean_ms)})"
